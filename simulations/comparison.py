"""Runs read from their folders, to be set side by side."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from fedtp.report.comparison.figures import FIGURES
from fedtp.report.comparison.results import RUNS, ComparisonResults
from fedtp.settings import Path as KeyPath
from fedtp.settings import dotted, literal
from simulations.run_folder import RunFolder
from simulations.scenario import Scenario


@dataclass(frozen=True)
class Member:
    """A run that is compared.

    Parameters
    ----------
    group
        What it has in common with runs of other seeds.
    name
        Its own name, which no other member has.
    folder
        Where it is.
    """

    group: str
    name: str
    folder: RunFolder


def runs_frame(members: Sequence[Member]) -> pl.DataFrame:
    """Return one row per run: group, seed, name, every figure that runs are compared by, then the rest of summaries."""
    rows = []
    for member in members:
        summary = member.folder.summary
        figures = {figure.key: figure.read(summary) for figure in FIGURES}
        plain = {key: value for key, value in summary.items() if not isinstance(value, dict | list)}
        key = {"group": member.group, "seed": member.folder.scenario.run.seed, "run": member.name}
        rows.append({**key, **figures, **{key: value for key, value in plain.items() if key not in {*key, *figures}}})
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=RUNS)


def results(
    members: Sequence[Member],
    *,
    kind: str,
    title: str,
    description: str = "",
    facts: Mapping[str, str] | None = None,
    settings: Sequence[Sequence[str]] = (),
    scenario_toml: str = "",
) -> ComparisonResults:
    """Set runs side by side, in the order of their groups; the rest is as in `ComparisonResults`.

    Raises
    ------
    DataError
        If a run is damaged.
    """
    rounds = pl.concat(
        member.folder.frame("rounds")
        .select("round", "started_seconds", "ended_seconds", "samples", "correct")
        .with_columns(run=pl.lit(member.name))
        for member in members
    )
    return ComparisonResults(
        kind=kind,
        title=title,
        description=description,
        facts=facts or {},
        runs=runs_frame(members),
        rounds=rounds,
        settings=settings,
        scenario_toml=scenario_toml,
    )


def differing(members: Sequence[Member]) -> list[list[str]]:
    """Return the settings in which groups differ: of each its dotted key, and its value in every group.

    What differs within a group, its seeds, is left out.
    """
    scenarios: dict[str, list[Scenario]] = defaultdict(list)
    for member in members:
        scenarios[member.group].append(member.folder.scenario)
    repeated = any(len(group) > 1 for group in scenarios.values())
    settings = [dict(_settings(tomllib.loads(group[0].to_toml()))) for group in scenarios.values()]
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = []
    for key in keys:
        values = [one.get(key) for one in settings]
        if any(value != values[0] for value in values) and not (repeated and key in _SEEDS) and key not in _UNTOLD:
            rows.append([dotted(key), *("–" if value is None else literal(value) for value in values)])
    return rows


_SEEDS = {("run", "seed"), ("learner", "seed")}
_UNTOLD: set[KeyPath] = {("description",)}


def _settings(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _settings(inner, (*path, key))
    elif isinstance(value, list) and value and all(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _settings(inner, (*path, index))
    else:
        yield path, value
