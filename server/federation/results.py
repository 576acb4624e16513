"""What a server wrote down of its federation, as tables, and as what a report shows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from fedtp.errors import DataError, FedtpError
from fedtp.learner import learner_for
from fedtp.report.fleet.results import DEVICES, EVENTS, ROUNDS, FleetResults
from server.federation.folder import SPEC, ServerFolder

Row = dict[str, Any]

#: So many devices have a line of their own in each figure, by name; more are shown as one class.
_MOST_NAMED = 12
_STATUSES = ("accepted", "refused", "late", "lost", "empty")


def read_events(path: Path) -> list[Row]:
    """Return the events in a journal and in the files that were closed before it, the oldest first.

    A last line that was cut off is left out.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    closed = {int(one.suffix[1:]): one for one in path.parent.glob(path.name + ".*") if one.suffix[1:].isdecimal()}
    found: list[Row] = []
    for file in [*(closed[number] for number in sorted(closed, reverse=True)), path]:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read: {error}") from None
        for number, line in enumerate(lines):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if isinstance(event, dict) and "kind" in event:
                found.append(event)
            elif number < len(lines) - 1:
                raise DataError(f"{file}, line {number + 1}: is no event; take the line out")
    return found


def orders_of(events: Sequence[Row]) -> tuple[dict[int, Row], dict[tuple[int, str], Row]]:
    """Return rounds by number, and orders by round and device: of what was told twice, after a crash, the later."""
    rounds = {event["round"]: event for event in events if event["kind"] == "round"}
    orders = {(event["round"], event["device"]): event for event in events if event["kind"] == "order"}
    return rounds, orders


def device_row(order: Mapping[str, Any], number: int, device_class: str, peak_bytes: int) -> Row:
    """Return an order as a row of ``devices``; what it cost in time and energy is not known of a real device."""
    return {
        "round": order["round"],
        "device": number,
        "device_class": device_class,
        "started_seconds": order["seconds"],
        **{name: order[name] for name in ("status", "samples", "correct", "bytes_up", "bytes_down")},
        "joules": 0.0,
        "compute_seconds": 0.0,
        "transfer_seconds": 0.0,
        "blocks": " ".join(order["blocks"]),
        "peak_bytes": peak_bytes if order["samples"] else 0,
        "detections": order["detections"],
    }


def round_rows(rounds: Mapping[int, Row], devices: Sequence[Row]) -> list[Row]:
    """Return rounds as rows of ``rounds``."""
    by_round: dict[int, list[Row]] = {number: [] for number in rounds}
    for row in devices:
        by_round.get(row["round"], []).append(row)
    return [_round_row(event, by_round[number]) for number, event in sorted(rounds.items())]


def _round_row(event: Mapping[str, Any], devices: Sequence[Row]) -> Row:
    status = Counter(row["status"] for row in devices)
    return {
        "round": event["round"],
        "started_seconds": event["started_seconds"],
        "ended_seconds": event["ended_seconds"],
        "orders": event["orders"],
        **{name: status[name] for name in _STATUSES},
        **{name: sum(row[name] for row in devices) for name in ("samples", "correct", "bytes_up", "bytes_down")},
        "joules": 0.0,
        "epsilon": event.get("epsilon"),
    }


def totals(rows: Sequence[Row], devices: Sequence[Row], orders: Mapping[Any, Mapping[str, Any]], delta: float) -> Row:
    """Return what a summary tells of all rounds together."""

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


def fleet_results(folder: ServerFolder) -> FleetResults:
    """Return what a report shows of a federation.

    Raises
    ------
    FedtpError
        If there is nothing yet, or it cannot be read.
    """
    if not folder.events.exists():
        raise FedtpError(f"{folder.path} has not learnt yet: `fedtp federation start {folder.path}` begins")
    spec, (rounds, orders) = folder.spec(), orders_of(read_events(folder.events))
    names = {name: number for number, name in enumerate(sorted({name for _, name in orders}))}
    classes = {name: name if len(names) <= _MOST_NAMED else "device" for name in names}
    learner = learner_for(spec.learner, spec.data.sample_shape, len(spec.data.classes))

    def peak(blocks: Sequence[str]) -> int:
        return max(learner.training_bytes(tuple(blocks)), learner.scoring_bytes())

    peaks = {blocks: peak(blocks) for blocks in {tuple(order["blocks"]) for order in orders.values()}}
    devices = [
        device_row(order, names[name], classes[name], peaks[tuple(order["blocks"])])
        for (_, name), order in orders.items()
    ]
    rows = round_rows(rounds, devices)
    detections = [
        (row["device"], row["device_class"], row["started_seconds"], "detection", None, None)
        for row in devices
        for _ in range(row["detections"])
    ]
    summary = {
        "method": spec.learner.method,
        "readout": spec.learner.readout if spec.learner.method == "tpsgd" else None,
        "adaptor": spec.learner.adaptor,
        "seed": spec.learner.seed,
        "version": version("fedtp"),
        "devices": len(names),
        **totals(rows, devices, orders, spec.privacy.delta),
        "backprop_peak_bytes": learner_for(
            spec.learner.model_copy(update={"method": "backprop", "space": "label", "readout": "fixed"}),
            spec.data.sample_shape,
            len(spec.data.classes),
        ).training_bytes(),
    }
    return FleetResults(
        title=spec.title,
        description="A real federation: times are of the server's clock while it learns, and energy is not known.",
        summary=summary,
        rounds=pl.DataFrame(rows, schema={**ROUNDS, "epsilon": pl.Float64}),
        devices=pl.DataFrame(devices, schema=DEVICES),
        events=pl.DataFrame(detections, schema=EVENTS, orient="row"),
        scenario_toml=(folder.path / SPEC).read_text("utf-8"),
    )
