"""What a report on a fleet is made from: three frames and a summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from fedtp.errors import DataError

ROUNDS = {
    "round": pl.Int64,
    "started_seconds": pl.Float64,
    "ended_seconds": pl.Float64,
    "orders": pl.Int64,
    "accepted": pl.Int64,
    "refused": pl.Int64,
    "late": pl.Int64,
    "lost": pl.Int64,
    "empty": pl.Int64,
    "samples": pl.Int64,
    "correct": pl.Int64,
    "bytes_up": pl.Int64,
    "bytes_down": pl.Int64,
    "joules": pl.Float64,
}
DEVICES = {
    "round": pl.Int64,
    "device": pl.Int64,
    "device_class": pl.String,
    "started_seconds": pl.Float64,
    "status": pl.String,
    "samples": pl.Int64,
    "correct": pl.Int64,
    "bytes_up": pl.Int64,
    "bytes_down": pl.Int64,
    "joules": pl.Float64,
    "compute_seconds": pl.Float64,
    "transfer_seconds": pl.Float64,
    "blocks": pl.String,
    "peak_bytes": pl.Int64,
}
EVENTS = {
    "device": pl.Int64,
    "device_class": pl.String,
    "time_seconds": pl.Float64,
    "kind": pl.String,
    "concept": pl.String,
    "detected": pl.Boolean,
}


@dataclass(frozen=True, eq=False)
class FleetResults:
    """What a fleet did.

    Parameters
    ----------
    title, description
        What was run, in the words of its scenario.
    summary
        The key figures of the run, as in its ``summary.json``; what is missing or null is shown as a dash.
    rounds
        One row per round, in order, with the columns of `ROUNDS`.
    devices
        One row per order that a device was given, with the columns of `DEVICES`.
    events
        One row per true drift (`kind` ``"drift"``: the new `concept`, and whether it was `detected`) and per
        detection (`kind` ``"detection"``), with the columns of `EVENTS`.
    scenario_toml
        The whole scenario, defaults included.

    Raises
    ------
    DataError
        If a frame lacks a column, or one of its columns is of another type. Further columns are ignored.
    """

    title: str
    description: str
    summary: Mapping[str, object]
    rounds: pl.DataFrame
    devices: pl.DataFrame
    events: pl.DataFrame
    scenario_toml: str

    def __post_init__(self) -> None:
        for name, schema in (("rounds", ROUNDS), ("devices", DEVICES), ("events", EVENTS)):
            object.__setattr__(self, name, conform(getattr(self, name), name, schema))
        object.__setattr__(self, "rounds", self.rounds.sort("round"))

    def number(self, key: str) -> float | None:
        """Look up a number of the summary; None where there is none, or not a finite one."""
        value = self.summary.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value)

    @property
    def drifts(self) -> pl.DataFrame:
        """The true drifts, in the order in which they began."""
        return self.events.filter(pl.col("kind") == "drift").sort("time_seconds", "device")

    @property
    def detections(self) -> pl.DataFrame:
        """The detections, in the order in which they were made."""
        return self.events.filter(pl.col("kind") == "detection").sort("time_seconds", "device")

    @property
    def classes(self) -> list[str]:
        """The device classes, in the order of their first devices."""
        first = self.devices.group_by("device_class").agg(pl.col("device").min()).sort("device")
        return first["device_class"].to_list()

    @property
    def end_seconds(self) -> float:
        """When the last round ended; 0 without rounds."""
        latest = self.rounds["ended_seconds"].max()
        return float(latest) if isinstance(latest, float) else 0.0


def conform(frame: pl.DataFrame, name: str, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    """Return the columns of a schema, and no others.

    Parameters
    ----------
    frame
        What has them.
    name
        What errors call it.
    schema
        The types of the columns, by name.

    Raises
    ------
    DataError
        If a column is missing or of another type.
    """
    missing = [column for column in schema if column not in frame.columns]
    if missing:
        raise DataError(f"the frame of {name} lacks {', '.join(missing)}; it has {', '.join(frame.columns)}")
    try:
        return frame.select(pl.col(column).cast(kind) for column, kind in schema.items())
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the frame of {name} has a column of another type: {error}") from error
