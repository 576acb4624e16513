"""Who sees which concept when."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedtp.errors import ScenarioError
from simulations.specs import DriftMatrixSpec, DriftSpec


@dataclass(frozen=True)
class Change:
    """A device's change of concept.

    Parameters
    ----------
    at_seconds
        When it begins.
    concept
        What follows.
    width_seconds
        How long it takes; 0 for a sudden change.
    steps
        0 for a gradual change: the share of samples of the new concept rises from 0 to 1. Otherwise it is an
        incremental one: the concept itself moves, in so many equal steps, the first at `at_seconds`, the last
        `width_seconds` later.
    origin
        Where an incremental change starts from; None for others.
    """

    at_seconds: float
    concept: str
    width_seconds: float = 0.0
    steps: int = 0
    origin: str | None = None

    @property
    def stages(self) -> list[Stage]:
        """The concepts on the way of an incremental change, the new one last."""
        if not self.steps or self.origin is None:
            return []
        return [Stage(self.origin, self.concept, step, self.steps) for step in range(1, self.steps + 1)]


@dataclass(frozen=True)
class Stage:
    """A concept on the way from one to another: after some of a number of equal steps.

    >>> Stage("upright", "turned", 2, 10).name
    'upright to turned, 2/10'
    """

    origin: str
    concept: str
    step: int
    steps: int

    @property
    def name(self) -> str:
        """What it is called; the last stage is the concept itself."""
        if self.step == self.steps:
            return self.concept
        return f"{self.origin} to {self.concept}, {self.step}/{self.steps}"


@dataclass(frozen=True)
class Concept:
    """A part of a timeline: a time under a concept, by its name."""

    name: str


@dataclass(frozen=True)
class SuddenDrift:
    """A part of a timeline: from this time on, s, all is different."""

    at_seconds: float


@dataclass(frozen=True)
class GradualDrift:
    """A part of a timeline: samples of the next concept appear with a share that rises from 0 to 1."""

    at_seconds: float
    width_seconds: float


@dataclass(frozen=True)
class IncrementalDrift:
    """A part of a timeline: one concept turns into the next in so many steps."""

    at_seconds: float
    width_seconds: float
    steps: int = 10


@dataclass(frozen=True)
class Timeline:
    """The concepts of one device.

    Parameters
    ----------
    initial
        The first concept.
    changes
        What follows, in order of time.
    """

    initial: str
    changes: tuple[Change, ...] = ()

    @classmethod
    def of(cls, *parts: Concept | SuddenDrift | GradualDrift | IncrementalDrift) -> Timeline:
        """Return the timeline that is written as concepts with drifts between them.

        Raises
        ------
        ScenarioError
            If the parts do not begin and end with a concept and alternate, or are not in order of time.

        Notes
        -----
        This is how CapyMOA writes a drifting stream (https://capymoa.org, ``DriftStream``), with times for positions.

        Examples
        --------
        >>> day, night = Concept("day"), Concept("night")
        >>> line = Timeline.of(day, GradualDrift(60.0, 30.0), night, SuddenDrift(200.0), day)
        >>> line.concepts(np.array([0.0, 75.0, 90.0, 300.0]), np.array([0.0, 0.6, 0.9, 0.0]))
        ['day', 'day', 'night', 'day']
        """
        concepts, drifts = parts[::2], parts[1::2]
        names = [part.name for part in concepts if isinstance(part, Concept)]
        if len(names) != len(drifts) + 1 or any(isinstance(part, Concept) for part in drifts):
            raise ScenarioError("a timeline alternates concepts and drifts, and begins and ends with a concept")
        changes = []
        for part, origin, concept in zip(drifts, names[:-1], names[1:], strict=True):
            assert not isinstance(part, Concept)
            width = 0.0 if isinstance(part, SuddenDrift) else part.width_seconds
            steps = part.steps if isinstance(part, IncrementalDrift) else 0
            changes.append(Change(part.at_seconds, concept, width, steps, origin if steps else None))
        if any(first.at_seconds > second.at_seconds for first, second in itertools.pairwise(changes)):
            raise ScenarioError("the drifts of a timeline are in order of time")
        return cls(names[0], tuple(changes))

    def drifts(self) -> tuple[DriftSpec, ...]:
        """Return what a scenario says for all its devices to go through this timeline, in step."""
        return tuple(
            DriftSpec(
                kind="incremental" if change.steps else "gradual" if change.width_seconds else "sudden",
                concepts=(change.concept,),
                at_seconds=change.at_seconds,
                width_seconds=change.width_seconds,
                steps=change.steps or None,
            )
            for change in self.changes
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the concepts that there are, in the order in which they begin; one for each turn."""
        return (self.initial, *(name for *_, name in self._turns))

    def numbers(self, seconds: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the concept of each sample as an index of `names`.

        Parameters
        ----------
        seconds
            When the samples arrive, in order.
        chance
            A number from [0, 1) for each sample, which decides between two concepts while one gives way to the other.
        """
        if not self._turns or not len(seconds):
            return np.zeros(len(seconds), np.int64)
        begin, complete = self._times
        # What went before the last turn that was complete at the first sample is over.
        over = np.flatnonzero(complete <= seconds[0])
        first = int(over[-1]) + 1 if len(over) else 0
        numbers = np.full(len(seconds), first)
        for turn in range(first, int(np.searchsorted(begin, seconds[-1], "right"))):
            numbers[seconds >= begin[turn] + chance * self._turns[turn][1]] = turn + 1
        return numbers

    def concepts(self, seconds: NDArray[np.float64], chance: NDArray[np.float64]) -> list[str]:
        """Return the name of the concept of each sample; parameters as those of `numbers`.

        Examples
        --------
        >>> line = Timeline("a", (Change(10.0, "b"), Change(20.0, "c", width_seconds=10.0)))
        >>> line.concepts(np.array([5.0, 10.0, 25.0, 25.0]), np.array([0.9, 0.9, 0.2, 0.8]))
        ['a', 'b', 'c', 'b']
        """
        return [self.names[number] for number in self.numbers(seconds, chance)]

    def last(self, at: float) -> str:
        """Return the concept that is in force at a time, s: of a gradual change, the one that prevails."""
        return self.concepts(np.array([at]), np.array([0.5]))[0]

    @cached_property
    def _turns(self) -> list[tuple[float, float, str]]:
        """When each concept begins, how long its share takes to rise, and its name."""
        turns: list[tuple[float, float, str]] = []
        for change in self.changes:
            gap = change.width_seconds / max(1, change.steps - 1)
            turns += [(change.at_seconds + i * gap, 0.0, stage.name) for i, stage in enumerate(change.stages)]
            turns += [] if change.steps else [(change.at_seconds, change.width_seconds, change.concept)]
        return sorted(turns, key=lambda turn: turn[0])

    @cached_property
    def _times(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        begin, width, _ = zip(*self._turns, strict=True)
        return np.array(begin), np.add(begin, width)


def timelines(
    initial: str, drifts: Sequence[DriftSpec], devices: int, duration: float, rng: np.random.Generator
) -> list[Timeline]:
    """Draw every device's timeline.

    Parameters
    ----------
    initial
        The concept that all begin with.
    drifts
        What changes. For each, `fraction` of the devices are chosen, and each gets a time of its own within
        `stagger_seconds`.
    devices
        How many devices.
    duration
        Length of the run, s; changes that would come later are left out.
    rng
        Draws the devices, their times, and their concepts where there is a choice.
    """
    starts: list[list[tuple[float, DriftSpec]]] = [[] for _ in range(devices)]
    for drift in drifts:
        order = rng.permutation(devices)[: max(1, round(drift.fraction * devices))]
        delays = rng.random(devices) * drift.stagger_seconds
        if drift.groups:
            delays[order] = np.arange(len(order)) * drift.groups // len(order) * drift.stagger_seconds / drift.groups
        for device in order:
            starts[device].append((drift.at_seconds + float(delays[device]), drift))
    return [_timeline(initial, found, duration, rng) for found in starts]


def _timeline(
    initial: str, starts: Sequence[tuple[float, DriftSpec]], duration: float, rng: np.random.Generator
) -> Timeline:
    line = Timeline(initial)
    for start, drift in sorted(starts, key=lambda pair: pair[0]):
        changes = itertools.takewhile(lambda c: c.at_seconds < duration, _changes(drift, start, line.last(start), rng))
        line = Timeline(initial, tuple(sorted([*line.changes, *changes], key=lambda change: change.at_seconds)))
    return line


def matrix_timelines(matrix: DriftMatrixSpec, devices: int, duration: float) -> list[Timeline]:
    """Return the timelines of a change-point matrix; more devices than it has columns take its columns in turn.

    Parameters
    ----------
    matrix
        Rows are time steps, columns devices.
    devices
        How many devices.
    duration
        Length of the run, s; by default it is divided evenly among the rows.
    """
    rows = matrix.rows
    step = duration / len(rows) if matrix.step_seconds is None else matrix.step_seconds
    columns = []
    for column in zip(*rows, strict=True):
        names = [matrix.concepts[number] for number in column]
        turns = [number for number in range(1, len(names)) if names[number] != names[number - 1]]
        changes = [Change(number * step, names[number]) for number in turns if number * step < duration]
        columns.append(Timeline(names[0], tuple(changes)))
    return [columns[device % len(columns)] for device in range(devices)]


def _changes(drift: DriftSpec, start: float, before: str, rng: np.random.Generator) -> Iterator[Change]:
    """Give the changes that a drift brings to a device that was in a concept before."""
    if drift.kind == "recurring":
        for number, concept in enumerate(itertools.cycle([*drift.concepts, before])):
            yield Change(start + number * drift.period_seconds, concept)
    elif drift.kind == "random":
        while others := [concept for concept in drift.concepts if concept != before]:
            before = others[rng.integers(len(others))]
            yield Change(start, before)
            start += drift.period_seconds * rng.standard_exponential()
    else:
        choice = drift.concepts[rng.integers(len(drift.concepts))] if len(drift.concepts) > 1 else drift.concepts[0]
        steps = drift.steps or 0
        yield Change(start, choice, drift.width_seconds, steps, before if steps else None)
