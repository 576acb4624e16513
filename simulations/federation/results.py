"""What a federation wrote down, as the folder of a run: with the report that a simulation has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from clients.budget import peak_bytes
from fedtp.measures import match_detections
from fedtp.model_file import load_model
from fedtp.report.fleet.results import DEVICES, EVENTS, ROUNDS
from server.federation.results import Row, device_row, orders_of, read_events, round_rows, totals
from simulations.recorder import DETECTION_WINDOW_ROUNDS
from simulations.run import Run
from simulations.scenario import Scenario
from simulations.world import World


def run_of(scenario: Scenario, journal: Path, model: Path, names: Sequence[str], wall_seconds: float) -> Run:
    """Return the run that a federation on a scenario's streams was.

    Parameters
    ----------
    scenario
        Whose streams the devices had.
    journal
        The server's events.
    model
        The last model that the server exported.
    names
        The devices' names, in the order of the scenario's devices.
    wall_seconds
        How long all of it took.
    """
    world, (rounds, orders) = World(scenario), orders_of(read_events(journal))
    numbers = {name: number for number, name in enumerate(names)}
    devices = [_device(world, numbers[name], order) for (_, name), order in orders.items() if name in numbers]
    rows = round_rows(rounds, devices)
    drifts, told = _drifts(world, devices)
    weights = load_model(model).weights
    summary = {
        "scenario": scenario.name,
        "method": scenario.learner.method,
        "readout": scenario.learner.readout if scenario.learner.method == "tpsgd" else None,
        "adaptor": scenario.learner.adaptor,
        "seed": scenario.run.seed,
        "version": version("fedtp"),
        "devices": scenario.device_count,
        "final_accuracy": world.held_out_accuracy(weights, scenario.duration_seconds),
        **totals(rows, devices, orders, scenario.privacy.delta),
        "updates_by_block": _updates(world, devices),
        "peak_bytes": max((row["peak_bytes"] for row in devices), default=0),
        "backprop_peak_bytes": world.backprop_bytes(),
        **told,
        "detection_window_seconds": DETECTION_WINDOW_ROUNDS * scenario.server.round_seconds,
        "wall_seconds": wall_seconds,
    }
    return Run(
        scenario,
        summary,
        pl.DataFrame(rows, schema={**ROUNDS, "epsilon": pl.Float64}),
        pl.DataFrame(devices, schema=DEVICES),
        pl.DataFrame(drifts, schema=EVENTS, orient="row"),
        weights,
        world.learner,
    )


def _device(world: World, number: int, order: Mapping[str, Any]) -> Row:
    peak = peak_bytes(world.learner, tuple(order["blocks"]))
    return device_row(order, number, world.fleet.classes[number], peak)


def _drifts(world: World, devices: Sequence[Row]) -> tuple[list[tuple[Any, ...]], Row]:
    """Return the drifts and detections of all devices, and how many there were."""
    window = DETECTION_WINDOW_ROUNDS * world.scenario.server.round_seconds
    rows: list[tuple[Any, ...]] = []
    true = found = false_alarms = 0
    for number, line in enumerate(world.timelines):
        name, own = world.fleet.classes[number], [row for row in devices if row["device"] == number]
        times = [row["started_seconds"] for row in own for _ in range(row["detections"])]
        detected, false = match_detections([change.at_seconds for change in line.changes], times, window)
        true, found, false_alarms = true + len(detected), found + sum(detected), false_alarms + false
        rows += [
            (number, name, change.at_seconds, "drift", change.concept, hit)
            for change, hit in zip(line.changes, detected, strict=True)
        ]
        rows += [(number, name, time, "detection", None, None) for time in times]
    rows.sort(key=lambda row: (row[2], row[0]))
    return rows, {"drifts_true": true, "drifts_detected": found, "false_alarms": false_alarms}


def _updates(world: World, devices: Sequence[Row]) -> dict[str, int]:
    found = Counter(
        block for row in devices if row["status"] == "accepted" for block in row["blocks"].split(" ") if block
    )
    return {name: found[name] for name in world.learner.sizes}
