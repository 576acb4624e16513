"""Who sees which concept when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.specs import DriftSpec


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
        How long the share of the new concept takes to rise from 0 to 1; 0 for a sudden change.
    """

    at_seconds: float
    concept: str
    width_seconds: float = 0.0


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

    def concepts(self, seconds: NDArray[np.float64], chance: NDArray[np.float64]) -> list[str]:
        """Return the concept of each sample.

        Parameters
        ----------
        seconds
            When the samples arrive.
        chance
            A number from [0, 1) for each sample, which decides between two concepts while one gives way to the other.

        Examples
        --------
        >>> line = Timeline("a", (Change(10.0, "b"), Change(20.0, "c", width_seconds=10.0)))
        >>> line.concepts(np.array([5.0, 10.0, 25.0, 25.0]), np.array([0.9, 0.9, 0.2, 0.8]))
        ['a', 'b', 'c', 'b']
        """
        concepts = [self.initial] * len(seconds)
        for change in self.changes:
            if not len(seconds) or seconds[-1] < change.at_seconds:
                break
            for i in np.flatnonzero(seconds >= change.at_seconds + chance * change.width_seconds):
                concepts[i] = change.concept
        return concepts

    def last(self, at: float) -> str:
        """Return the concept that is in force at a time, s: of a gradual change, the one that prevails."""
        return self.concepts(np.array([at]), np.array([0.5]))[0]


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
        Draws the devices and their times.
    """
    changes: list[list[Change]] = [[] for _ in range(devices)]
    for drift in drifts:
        chosen = rng.permutation(devices)[: max(1, round(drift.fraction * devices))]
        starts = drift.at_seconds + rng.random(devices) * drift.stagger_seconds
        for device in np.sort(chosen):
            changes[device] += _changes(drift, float(starts[device]), duration, changes[device], initial)
    return [Timeline(initial, tuple(sorted(c, key=lambda change: change.at_seconds))) for c in changes]


def _changes(drift: DriftSpec, start: float, duration: float, earlier: Sequence[Change], initial: str) -> list[Change]:
    if start >= duration:
        return []
    if drift.kind != "recurring":
        return [Change(start, drift.concept, drift.width_seconds)]
    before = Timeline(initial, tuple(sorted(earlier, key=lambda change: change.at_seconds))).last(start)
    times = math.ceil((duration - start) / drift.period_seconds)
    return [Change(start + i * drift.period_seconds, drift.concept if i % 2 == 0 else before) for i in range(times)]
