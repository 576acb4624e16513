"""What a federation wrote down, as the folder of a run: with the report that a simulation has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from safetensors.torch import load_file

from clients.budget import peak_bytes
from fedtp.blocks import Chain
from fedtp.errors import DataError
from fedtp.measures import match_detections
from fedtp.report.fleet.results import DEVICES, EVENTS, ROUNDS
from simulations.recorder import DETECTION_WINDOW_ROUNDS
from simulations.run import Run
from simulations.scenario import Scenario
from simulations.world import World

Row = dict[str, Any]


def read_events(path: Path) -> list[Row]:
    """Return the events in a journal, the oldest first; a last line that was cut off is left out.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    found = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines):
        try:
            found.append(json.loads(line))
        except ValueError:
            if number < len(lines) - 1:
                raise DataError(f"{path}, line {number + 1}: is no JSON") from None
    return found


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
    world, events = World(scenario), read_events(journal)
    numbers = {name: number for number, name in enumerate(names)}
    # A round that was begun again after a crash is told of twice: the later one counts.
    rounds = {event["round"]: event for event in events if event["kind"] == "round"}
    orders = {(event["round"], event["device"]): event for event in events if event["kind"] == "order"}
    devices = [_device(world, numbers[name], order) for (_, name), order in orders.items() if name in numbers]
    rows = [_round(event, [row for row in devices if row["round"] == number]) for number, event in rounds.items()]
    drifts, told = _drifts(world, devices)
    network = world.learner.network(world.learner.initial_weights())
    network.load_state_dict(load_file(model))
    weights = {block.name: block.join(block.parameters).numpy() for block in Chain(network)}
    summary = {
        "scenario": scenario.name,
        "method": scenario.learner.method,
        "readout": scenario.learner.readout if scenario.learner.method == "tpsgd" else None,
        "adaptor": scenario.learner.adaptor,
        "seed": scenario.run.seed,
        "version": version("fedtp"),
        "devices": scenario.device_count,
        "final_accuracy": world.held_out_accuracy(weights, scenario.duration_seconds),
        **_totals(rows, devices, orders, scenario.privacy.delta),
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
    blocks = tuple(order["blocks"])
    return {
        "round": order["round"],
        "device": number,
        "device_class": world.fleet.classes[number],
        "started_seconds": order["seconds"],
        "status": order["status"],
        "samples": order["samples"],
        "correct": order["correct"],
        "bytes_up": order["bytes_up"],
        "bytes_down": order["bytes_down"],
        "joules": 0.0,
        "compute_seconds": 0.0,
        "transfer_seconds": 0.0,
        "blocks": " ".join(blocks),
        "peak_bytes": peak_bytes(world.learner, blocks) if order["samples"] else 0,
        "detections": order["detections"],
    }


def _round(event: Mapping[str, Any], devices: Sequence[Row]) -> Row:
    status = Counter(row["status"] for row in devices)
    return {
        "round": event["round"],
        "started_seconds": event["started_seconds"],
        "ended_seconds": event["ended_seconds"],
        "orders": event["orders"],
        **{name: status[name] for name in ("accepted", "refused", "late", "lost", "empty")},
        **{name: sum(row[name] for row in devices) for name in ("samples", "correct", "bytes_up", "bytes_down")},
        "joules": 0.0,
        "epsilon": event.get("epsilon"),
    }


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


def _totals(rows: Sequence[Row], devices: Sequence[Row], orders: Mapping[Any, Mapping[str, Any]], delta: float) -> Row:
    def total(name: str) -> int:
        return sum(row[name] for row in rows)

    samples = total("samples")
    refused = Counter(order["reason"] for order in orders.values() if order["status"] == "refused")
    return {
        "prequential_accuracy": total("correct") / samples if samples else None,
        "rounds": len(rows),
        "client_rounds": len(devices),
        "samples": samples,
        "virtual_seconds": rows[-1]["ended_seconds"] if rows else 0.0,
        "bytes_up": total("bytes_up"),
        "bytes_down": total("bytes_down"),
        **{f"updates_{name}": total(name) for name in ("accepted", "refused", "late", "lost")},
        "orders_empty": total("empty"),
        "refusals": dict(sorted(refused.items())),
        "epsilon": rows[-1]["epsilon"] if rows else None,
        "delta": delta if rows and rows[-1]["epsilon"] is not None else None,
    }


def _updates(world: World, devices: Sequence[Row]) -> dict[str, int]:
    found = Counter(
        block for row in devices if row["status"] == "accepted" for block in row["blocks"].split(" ") if block
    )
    return {name: found[name] for name in world.learner.sizes}
