"""What a comparison is made from: one row per run, and one per round of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import polars as pl

from fedtp.interval import Interval, interval
from fedtp.report.comparison.figures import FIGURES, Figure
from fedtp.report.fleet.results import ROUNDS, conform

#: The columns of the frame of runs; what else a run's summary holds may stand beside them.
RUNS: dict[str, type[pl.DataType]] = {
    "group": pl.String,
    "seed": pl.Int64,
    "run": pl.String,
    **dict.fromkeys([figure.key for figure in FIGURES], pl.Float64),
}
_CURVES: dict[str, type[pl.DataType]] = {
    "run": pl.String,
    **{name: ROUNDS[name] for name in ("round", "started_seconds", "ended_seconds", "samples", "correct")},
}


@dataclass(frozen=True, eq=False)
class ComparisonResults:
    """Runs in groups: those of a group differ in nothing but their seed.

    Parameters
    ----------
    kind
        What sort of comparison it is.
    title, description
        Of what was compared.
    facts
        Names and values to begin with.
    runs
        One row per run, with the columns of `RUNS`; groups in the order in which they are shown. The first is the
        one that others are compared with.
    rounds
        One row per run and round: `run`, `round`, `started_seconds`, `ended_seconds`, `samples`, `correct`.
    settings
        In which settings the groups differ: of each setting its key, and its value in every group.
    scenario_toml
        What all have in common; nothing by default.
    """

    kind: str
    title: str
    description: str
    facts: Mapping[str, str]
    runs: pl.DataFrame
    rounds: pl.DataFrame
    settings: Sequence[Sequence[str]] = ()
    scenario_toml: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", conform(self.rounds, "rounds", _CURVES))

    @cached_property
    def groups(self) -> list[str]:
        """The groups, in order."""
        return self.runs["group"].unique(maintain_order=True).to_list()

    @property
    def repeated(self) -> bool:
        """Whether a group has several runs."""
        return self.runs.height > len(self.groups)

    @cached_property
    def shown(self) -> list[Figure]:
        """The figures that are worth a column: the accuracies, and those in which groups differ."""
        return [figure for figure in FIGURES if figure.always or self._differs(figure)]

    def of(self, group: str) -> pl.DataFrame:
        """Return the runs of a group."""
        return self.runs.filter(pl.col("group") == group)

    def interval(self, group: str, figure: Figure) -> Interval:
        """Return a figure of a group: mean and 95 % confidence interval over its runs."""
        return interval(self.of(group)[figure.key])

    def difference(self, group: str, figure: Figure) -> Interval:
        """Return by how much a group differs from the first one: mean over pairs of runs with the same seed.

        What a seed brings with it, the devices and the order of samples, is the same in both runs of a pair and
        falls out of their difference.
        """
        first, other = (self.of(name).select("seed", figure.key) for name in (self.groups[0], group))
        pairs = first.join(other, on="seed", suffix="_other", maintain_order="left")
        return interval(pairs[f"{figure.key}_other"] - pairs[figure.key])

    def best(self, figure: Figure) -> str | None:
        """Return the group that is best in a figure; None if none is, or all are equal."""
        means = {group: self.interval(group, figure).mean for group in self.groups}
        known = {group: mean for group, mean in means.items() if mean is not None}
        if figure.more_is_better is None or len(set(known.values())) < 2:
            return None
        return (max if figure.more_is_better else min)(known, key=lambda group: known[group])

    def summary(self) -> dict[str, Any]:
        """Return the figures as JSON holds them: of each group, and of its difference from the first."""
        return {
            group: {
                figure.key: {
                    **asdict(self.interval(group, figure)),
                    **({"difference": asdict(self.difference(group, figure))} if group != self.groups[0] else {}),
                }
                for figure in FIGURES
            }
            for group in self.groups
        }

    def _differs(self, figure: Figure) -> bool:
        if len(self.groups) == 1:
            return bool((self.runs[figure.key] != 0).any())
        means = self.runs.group_by("group").agg(pl.col(figure.key).mean())[figure.key]
        return means.n_unique() > 1
