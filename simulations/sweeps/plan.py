"""What a sweep will run: every combination of the varied settings, with every seed."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fedtp.errors import ScenarioError
from simulations.scenario import Scenario
from simulations.sweeps.variation import Variation

MOST_RUNS = 10_000


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Parameters
    ----------
    name
        Of its folder.
    setting
        The varied settings and their values here; runs with the same differ in their seed alone.
    scenario
        What is run.
    """

    name: str
    setting: str
    scenario: Scenario


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep.

    Parameters
    ----------
    scenario
        What all runs have in common.
    variations
        What is varied.
    seeds
        What every combination is run with.
    trials
        The runs: first all with the first seed, so that a sweep that was stopped can already be looked at.
    """

    scenario: Scenario
    variations: tuple[Variation, ...]
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]

    @classmethod
    def make(
        cls,
        scenario: str | Path,
        vary: Sequence[str] = (),
        *,
        seeds: int = 1,
        overrides: Sequence[str] = (),
        seed: int | None = None,
    ) -> Self:
        """Work out what is to be run, and check all of it.

        Parameters
        ----------
        scenario
            The name of a shipped scenario, or a TOML file.
        vary
            What to vary, each ``key=a,b,c``.
        seeds
            How many; one after the other from `seed`, or the scenario's own.
        overrides
            Settings of all runs, each ``key=value``.

        Raises
        ------
        ScenarioError
            If a variation cannot be read, or a combination cannot be run: in the words of `Scenario.load`.

        Examples
        --------
        >>> plan = Plan.make("digits-rotating", ["learner.lr=0.5,1", "learner.hidden=[32],[64,32]"], seeds=2)
        >>> len(plan.trials), plan.trials[1].setting, plan.trials[1].name
        (8, 'lr=0.5, hidden=[64,32]', '2-lr-0.5-hidden-64-32-seed-1')
        """
        base = Scenario.load(scenario, overrides, seed)
        variations = tuple(Variation.parse(text) for text in vary)
        _check_keys(variations)
        numbers = tuple(range(base.run.seed, base.run.seed + seeds))
        count = math.prod(len(variation.values) for variation in variations) * seeds
        if count > MOST_RUNS:
            raise ScenarioError(f"a sweep of {count:,} runs is more than {MOST_RUNS:,}: vary less, or take fewer seeds")
        names = _names(variations)
        combinations = list(itertools.product(*(variation.values for variation in variations)))
        digits = len(str(len(combinations)))
        trials = []
        for number in numbers:
            for index, values in enumerate(combinations, start=1):
                changes = [f"{one.key}={value}" for one, value in zip(variations, values, strict=True)]
                label = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
                folder = _slug(f"{index:0{digits}}-{label or base.name}-seed-{number}")
                trials.append(
                    Trial(folder, label or base.name, _variant(scenario, [*overrides, *changes], changes, number))
                )
        _check_different(trials[: len(combinations)])
        return cls(base, variations, numbers, tuple(trials))

    def record(self) -> dict[str, Any]:
        """Return all that makes this sweep another one than others, as JSON holds it."""
        return {
            "scenario": self.scenario.to_toml(),
            "vary": {variation.key: list(variation.values) for variation in self.variations},
            "seeds": list(self.seeds),
            "runs": {trial.name: trial.setting for trial in self.trials},
        }


def _variant(scenario: str | Path, overrides: Sequence[str], changes: Sequence[str], seed: int) -> Scenario:
    try:
        return Scenario.load(scenario, overrides, seed)
    except ScenarioError as error:
        text = str(error)
        for change in changes:
            text = text.replace(f"--set {change}:", f"--vary {change}:")
        raise ScenarioError(text) from None


def _check_keys(variations: Sequence[Variation]) -> None:
    keys = [variation.key for variation in variations]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ScenarioError(f"--vary {twice}: it is there twice; give all its values at once, as {twice}=a,b")
    if "run.seed" in keys:
        raise ScenarioError("--vary run.seed: --seeds says how many seeds there are, and --seed the first")


def _check_different(trials: Sequence[Trial]) -> None:
    known: dict[str, str] = {}
    for trial in trials:
        same = known.setdefault(trial.scenario.to_toml(), trial.setting)
        if same != trial.setting:
            raise ScenarioError(f"{same} and {trial.setting} are the same scenario: leave one of them out")


def _names(variations: Sequence[Variation]) -> list[str]:
    """Return as short a name for every key as tells it from the others."""
    paths = [variation.key.split(".") for variation in variations]
    ends = Counter(".".join(path[start:]) for path in paths for start in range(len(path)))
    return [
        next(name for start in range(len(path) - 1, -1, -1) if ends[name := ".".join(path[start:])] == 1 or not start)
        for path in paths
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")[:120]
