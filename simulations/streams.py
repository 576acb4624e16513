"""The stream of a simulated device: its share of a data set, arriving in time under drifting concepts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedtp.data import DataSet
from fedtp.data.stream import Samples
from simulations.drift import Timeline
from simulations.seeding import Purpose, generator


class SimulatedStream:
    """Samples of one device.

    Rows of unordered data are drawn without replacement, in a new random order for every pass over the device's
    share; ordered data is replayed once, and then the stream has ended.

    Parameters
    ----------
    concepts
        The whole data set under each concept, by name.
    rows
        The device's share of the data set, indices of rows.
    timeline
        Which concept the device sees when.
    rate
        Samples per second.
    samples_per_order
        If above 0, `take` finds exactly so many new samples, all arriving when it is called.
    start_seconds
        When the first samples began to arrive, s.
    seed, device
        What the random order is drawn from.

    Attributes
    ----------
    position
        How many samples have been taken.
    """

    def __init__(
        self,
        concepts: Mapping[str, DataSet],
        rows: NDArray[np.int64],
        timeline: Timeline,
        rate: float,
        *,
        samples_per_order: int = 0,
        start_seconds: float = 0.0,
        seed: int = 0,
        device: int = 0,
    ) -> None:
        self.position = 0
        self._concepts = concepts
        self._data = next(iter(concepts.values()))
        self._rows = rows
        self._timeline = timeline
        self._rate = rate
        self._samples_per_order = samples_per_order
        self._start = start_seconds
        self._seed = seed
        self._device = device
        # So that a fleet's samples do not all arrive at the same moments.
        self._phase = float(generator(seed, Purpose.ARRIVAL, device).random())
        self._pass: tuple[int, NDArray[np.int64], NDArray[np.float64]] | None = None

    def take(self, now: float) -> Samples:
        """Return the samples that have arrived by `now`, s, and were not taken yet."""
        if self._samples_per_order:
            end = self.position + self._samples_per_order
        else:
            end = max(int((now - self._start) * self._rate + self._phase), self.position)
        if self._data.ordered:
            end = min(end, len(self._rows))
        count = np.arange(self.position, end)
        self.position = end
        if self._samples_per_order:
            seconds = np.full(len(count), float(now))
        else:
            seconds = self._start + (count + 1 - self._phase) / self._rate
        rows, chance = self._draw(count)
        return self._under_concepts(rows, seconds, chance)

    def _under_concepts(
        self, rows: NDArray[np.int64], seconds: NDArray[np.float64], chance: NDArray[np.float64]
    ) -> Samples:
        concepts = self._timeline.concepts(seconds, chance)
        names = set(concepts)
        if len(names) <= 1:
            data = self._concepts[names.pop()] if names else self._data
            return Samples(data.x[rows], data.y[rows], seconds)
        x, y = self._data.x[rows], self._data.y[rows]
        for name in names:
            here = np.array([concept == name for concept in concepts])
            x[here], y[here] = self._concepts[name].x[rows[here]], self._concepts[name].y[rows[here]]
        return Samples(x, y, seconds)

    def _draw(self, count: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the row, and a random number from [0, 1), of each sample by its position in the stream."""
        size = len(self._rows)
        rows = np.empty(len(count), np.int64)
        chance = np.empty(len(count))
        for number in range(count[0] // size, count[-1] // size + 1) if len(count) else ():
            order, numbers = self._shuffled(number)
            here = count // size == number
            rows[here], chance[here] = order[count[here] % size], numbers[count[here] % size]
        return rows, chance

    def _shuffled(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the order of the device's rows in a pass; it follows from the seed, the device and the pass."""
        if self._pass is None or self._pass[0] != number:
            rng = generator(self._seed, Purpose.STREAM, self._device, number)
            order = self._rows if self._data.ordered else rng.permutation(self._rows)
            self._pass = number, order, rng.random(len(order))
        return self._pass[1], self._pass[2]
