"""What a report on a stream study is made from: four frames and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from fedtp.interval import Interval


@dataclass(frozen=True, eq=False)
class StreamResults:
    """What a study found.

    Parameters
    ----------
    summary
        The study and its figures, as in its ``summary.json``.
    runs, curves, drifts, events
        The frames of `fedtp.streaming.studies.StudyResult.frames`.
    """

    summary: Mapping[str, Any]
    runs: pl.DataFrame
    curves: pl.DataFrame
    drifts: pl.DataFrame
    events: pl.DataFrame

    @property
    def models(self) -> list[str]:
        """The models, in the order in which they were given."""
        return list(self.summary["models"])

    @property
    def samples(self) -> int:
        """The length of the stream."""
        return int(self.summary["samples"])

    @property
    def true_drifts(self) -> list[int]:
        """The true drifts that are known."""
        return list(self.summary["drifts"] or ())

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len(self.summary["seeds"])

    @property
    def best(self) -> str:
        """The most accurate model."""
        return max(self.models, key=lambda model: self.figure(model, "accuracy").mean or 0.0)

    def figure(self, model: str, measure: str) -> Interval:
        """Look up a measure of a model."""
        found = self.summary["models"][model][measure]
        return Interval(found["mean"], found["margin"], found["runs"])

    def figures(self, model: str) -> dict[str, Interval]:
        """Look up all measures of a model."""
        return {name: self.figure(model, name) for name in self.summary["models"][model] if name != "spec"}
