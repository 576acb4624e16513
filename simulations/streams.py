"""The stream of a simulated device: its share of a data set, arriving in time under drifting concepts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtp.data import DataSet
from fedtp.data.stream import Samples
from fedtp.errors import ScenarioError
from simulations.arrivals import Arrivals, Labels
from simulations.drift import Timeline
from simulations.seeding import Purpose, generator

Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]

# Random numbers that only some scenarios need are drawn for so many samples at a time.
_CHUNK = 64


class Pool:
    """Rows of a data set that can be drawn from by their weights under a concept.

    Parameters
    ----------
    rows
        Indices of rows.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._cumulative: dict[str, Numbers] = {}

    def draw(self, concept: str, data: DataSet, chance: Numbers) -> Rows | None:
        """Draw rows with replacement; None where no row has any weight.

        Parameters
        ----------
        concept
            Its name.
        data
            The data set under it, whose `weights` say how often each row is drawn.
        chance
            A number from [0, 1) for each draw.
        """
        if concept not in self._cumulative:
            assert data.weights is not None
            self._cumulative[concept] = np.cumsum(data.weights[self.rows])
        cumulative = self._cumulative[concept]
        if not cumulative[-1]:
            return None
        drawn: Rows = self.rows[np.searchsorted(cumulative, np.nextafter(chance * cumulative[-1], 0), "right")]
        return drawn


class SimulatedStream:
    """Samples of one device.

    Rows of unordered data are drawn without replacement, in a new random order for every pass over the device's
    share; ordered data is replayed once, and then the stream has ended. Under a concept that is about which samples are
    drawn, rows are drawn by their weights and with replacement, from the device's share or, where that has none of
    them, from everybody's.

    Parameters
    ----------
    concepts
        The whole data set under each concept, by name.
    rows
        The device's share of the data set, indices of rows.
    timeline
        Which concept the device sees when.
    arrivals
        When its samples arrive.
    labels
        When their labels become known; None: at once.
    everybody
        The rows of all devices.
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
        rows: Rows,
        timeline: Timeline,
        arrivals: Arrivals,
        *,
        labels: Labels | None = None,
        everybody: Pool | None = None,
        seed: int = 0,
        device: int = 0,
    ) -> None:
        self.position = 0
        self._concepts = concepts
        self._data = concepts[timeline.initial]
        self._pool = Pool(rows)
        self._everybody = everybody or self._pool
        # A device with few rows shuffles them for several passes at once: to set up a generator takes longer.
        self._passes = 1 if self._data.ordered else max(1, -(-_CHUNK // max(1, len(rows))))
        self._timeline = timeline
        self._arrivals = arrivals
        self._labels = labels
        self._seed = seed
        self._device = device
        self._pass: tuple[int, Rows, Numbers] | None = None
        self._choice: tuple[int, Numbers] | None = None

    def take(self, now: float) -> Samples:
        """Return the samples that have arrived by `now`, s, and were not taken yet."""
        left = len(self._pool.rows) - self.position if self._data.ordered else sys.maxsize
        first = self.position
        seconds = self._arrivals.until(first, now, left)
        self.position += len(seconds)
        rows, chance = self._draw(first, len(seconds))
        columns = self._under_concepts(first, rows, seconds, chance)
        if self._labels is not None:
            columns["label_seconds"] = self._labels.known(seconds, self._choose(first, len(seconds))[:, 0])
        return Samples(seconds=seconds, **columns)

    def _under_concepts(self, first: int, rows: Rows, seconds: Numbers, chance: Numbers) -> dict[str, Any]:
        numbers = self._timeline.numbers(seconds, chance)
        if not len(numbers):
            return _columns(self._data, rows)
        if numbers[0] == numbers[-1] and (numbers == numbers[0]).all():
            return self._see(self._timeline.names[numbers[0]], rows, first, slice(None))
        columns = _columns(self._data, rows)
        for number in np.unique(numbers):
            here = numbers == number
            for name, column in self._see(self._timeline.names[number], rows, first, here).items():
                columns[name][here] = column
        return columns

    def _see(self, concept: str, rows: Rows, first: int, here: NDArray[np.bool_] | slice) -> dict[str, Any]:
        """Return some of the samples under a concept."""
        data = self._concepts[concept]
        found = rows[here]
        if data.weights is not None:
            chance = self._choose(first, len(rows))[here, 1]
            drawn = self._pool.draw(concept, data, chance)
            if drawn is None:
                drawn = self._everybody.draw(concept, data, chance)
            if drawn is None:
                raise ScenarioError(f'concept "{concept}" leaves no sample to learn from: all it has are held out')
            found = drawn
        return _columns(data, found)

    def _draw(self, first: int, count: int) -> tuple[Rows, Numbers]:
        """Return the row, and a random number from [0, 1), of each sample by its position in the stream."""
        size = self._passes * len(self._pool.rows)
        number, start = divmod(first, size)
        if start + count <= size:
            order, numbers = self._shuffled(number)
            return order[start : start + count], numbers[start : start + count]
        passes = [self._shuffled(number + i) for i in range(-(-(start + count) // size))]
        rows, chance = (np.concatenate(part)[start : start + count] for part in zip(*passes, strict=True))
        return rows, chance

    def _shuffled(self, number: int) -> tuple[Rows, Numbers]:
        """Return the order of the device's rows in some passes; it follows from seed, device and their number."""
        if self._pass is None or self._pass[0] != number:
            rng, order = generator(self._seed, Purpose.STREAM, self._device, number), self._pool.rows
            if not self._data.ordered:
                order = rng.permuted(np.tile(order, (self._passes, 1)), axis=1).ravel()
            self._pass = number, order, rng.random(len(order))
        return self._pass[1], self._pass[2]

    def _choose(self, first: int, count: int) -> Numbers:
        """Return further random numbers from [0, 1) for each sample, ``[samples, 2]``: for its label, and its row."""
        chunks = []
        for chunk in range(first // _CHUNK, (first + max(count, 1) - 1) // _CHUNK + 1):
            if self._choice is None or self._choice[0] != chunk:
                rng = generator(self._seed, Purpose.CHOICE, self._device, chunk)
                self._choice = chunk, rng.random((_CHUNK, 2))
            chunks.append(self._choice[1])
        return np.concatenate(chunks)[first % _CHUNK :][:count]


def _columns(data: DataSet, rows: Rows) -> dict[str, Any]:
    """Return what samples hold of rows of a data set, by name."""
    columns = {"x": data.x[rows], "y": data.y[rows]}
    return columns if data.lengths is None else {**columns, "lengths": data.lengths[rows]}
