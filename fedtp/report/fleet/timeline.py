"""Time as the figures of a fleet show it: virtual or in rounds, smoothed, and not in too many steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from fedtp.report.fleet.results import FleetResults
from fedtp.report.units import time_unit

# As wide as a figure can show; more rounds than that are taken together.
MOST_COLUMNS = 240
MOST_POINTS = 2_000
# So many samples tell an accuracy to one or two hundredths.
_ENOUGH = 1_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """A way to say when something happened.

    Parameters
    ----------
    name
        What a person calls it.
    title
        The title of its axis, with the unit.
    hover
        A Plotly template that shows one point of it.
    seconds, positions
        Times and where they stand on the axis; in between, the scale is linear.
    """

    name: str
    title: str
    hover: str
    seconds: Floats
    positions: Floats

    @property
    def range(self) -> list[float]:
        """The ends of the axis."""
        return [float(self.positions[0]), float(self.positions[-1])]

    def __call__(self, seconds: ArrayLike) -> Floats:
        """Where these times stand on the axis."""
        return np.asarray(np.interp(np.asarray(seconds, float), self.seconds, self.positions), float)


def virtual_time(results: FleetResults) -> Scale:
    """Scale virtual time, in the unit that suits the length of the run."""
    unit = time_unit(results.end_seconds)
    ends = np.array([0.0, max(results.end_seconds, unit.size)])
    return Scale("Virtual time", f"virtual time ({unit.name})", f"%{{x:.4~g}} {unit.name}", ends, ends / unit.size)


def round_count(results: FleetResults) -> Scale:
    """Scale rounds: each stands where it started."""
    rounds = results.rounds
    starts = np.append(rounds["started_seconds"].to_numpy(), results.end_seconds)
    numbers = rounds["round"].to_numpy()
    after = numbers[-1] + 1 if len(numbers) else 0
    return Scale("Rounds", "round", "round %{x:.4~g}", starts, np.append(numbers, after).astype(float))


def steps(rounds: pl.DataFrame, most: int) -> pl.DataFrame:
    """Take rounds together until there are at most `most` steps of time.

    Returns
    -------
    polars.DataFrame
        One row per round, in order: `round`; `step`, counted from 0; `step_seconds`, when the step started;
        `step_label`, the rounds that it holds.
    """
    together = rounds_per_step(rounds.height, most)
    first, last = pl.col("round").first().over("step"), pl.col("round").last().over("step")
    return (
        rounds.select("round", "started_seconds")
        .with_columns(step=pl.int_range(pl.len()) // together)
        .select(
            "round",
            "step",
            pl.col("started_seconds").first().over("step").alias("step_seconds"),
            pl.when(first == last)
            .then(pl.format("round {}", first))
            .otherwise(pl.format("rounds {} to {}", first, last))
            .alias("step_label"),
        )
    )


def rounds_per_step(rounds: int, most: int) -> int:
    """Count the rounds that a step takes together, so that there are at most `most` steps."""
    return max(1, -(-rounds // most))


def window(steps: int, samples: float) -> int:
    """Choose how many steps a smoothed line averages: enough for a thousand samples, between 3 and 25.

    A short run is averaged over a quarter of it at most, and not at all below eight steps.

    Examples
    --------
    >>> window(60, 300_000), window(680, 40_000), window(60, 600), window(3, 300)
    (3, 17, 15, 1)
    """
    enough = -(-_ENOUGH * steps // max(1, int(samples)))
    return max(1, min(max(3, enough), 25, steps // 4))


def trailing_share(part: Sequence[int] | pl.Series, whole: Sequence[int] | pl.Series, length: int) -> Floats:
    """Divide `part` by `whole` over the last `length` steps; NaN where they hold nothing.

    Examples
    --------
    >>> trailing_share([1, 4, 0], [2, 4, 0], 2).round(3).tolist()
    [0.5, 0.833, 1.0]
    >>> trailing_share([1, 4, 0], [2, 4, 0], 1).tolist()
    [0.5, 1.0, nan]
    """

    def trailing(values: Sequence[int] | pl.Series) -> Floats:
        sums: Floats = np.concatenate([np.zeros(length), np.cumsum(np.asarray(values, float))])
        return sums[length:] - sums[:-length]

    return share(trailing(part), trailing(whole))


def share(part: ArrayLike, whole: ArrayLike) -> Floats:
    """Divide `part` by `whole`, element by element; NaN where `whole` is 0."""
    above, below = np.asarray(part, float), np.asarray(whole, float)
    quotient: Floats = np.full(np.broadcast(above, below).shape, np.nan)
    np.divide(above, below, out=quotient, where=below != 0)
    return quotient
