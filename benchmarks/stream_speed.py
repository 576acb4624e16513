"""How long a sample of a stream takes, prediction and learning together, beside bare backpropagation in NumPy.

Elec2's 8 features, 64 hidden units; the classifier has three copies of them. On one core the ways take turns on pieces
of the stream, and what counts is the median of their ratios within a turn, for the machine's speed changes. The bare
network is the least that learns: the same features and classes throughout, one copy, no checks. Needs Elec2
(RIVER_DATA) and pandas; for compiled steps Numba, which ``pip install 'fedtp[fast]'`` brings.

    python benchmarks/stream_speed.py
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import pandas as pd
import polars as pl
import typer
from machine import publish
from river import datasets

from fedtp.streaming import TPClassifier, fast

TURN = 1024
BATCH = 32
BARE = "bare backpropagation, numpy"

Sample = tuple[dict[str, float], bool]


class Model(Protocol):
    """What predicts a sample, and then learns it."""

    def predict_one(self, x: dict[str, float]) -> Any: ...  # noqa: D102
    def learn_one(self, x: dict[str, float], y: bool) -> None: ...  # noqa: D102


class BareBackprop:
    """A network with one hidden layer, learning rate 0.02, inputs standardised."""

    def __init__(self, names: Iterable[str], hidden: int = 64, classes: int = 2) -> None:
        rng = np.random.default_rng(0)
        self.names = sorted(names)
        inputs = len(self.names)
        self.count, self.mean, self.variance = 0, np.zeros(inputs), np.ones(inputs)
        self.W, self.b = rng.normal(size=(hidden, inputs)) / np.sqrt(inputs), np.zeros(hidden)
        self.V, self.c = rng.normal(size=(classes, hidden)) * 0.1, np.zeros(classes)

    def _values(self, x: dict[str, float]) -> Any:
        return np.fromiter((x[name] for name in self.names), float, len(self.names))

    def _standardized(self, values: Any) -> Any:
        return (values - self.mean) / np.sqrt(self.variance + 1e-6)

    def predict_one(self, x: dict[str, float]) -> int:  # noqa: D102
        a = np.maximum(self.W @ self._standardized(self._values(x)) + self.b, 0.0)
        return int((self.V @ a + self.c).argmax())

    def learn_one(self, x: dict[str, float], y: bool) -> None:  # noqa: D102
        values = self._values(x)
        standardized = self._standardized(values)
        self.count += 1
        deviation = values - self.mean
        self.mean += deviation / self.count
        self.variance += (deviation * (values - self.mean) - self.variance) / self.count
        a = np.maximum(self.W @ standardized + self.b, 0.0)
        z = self.V @ a + self.c
        error = np.exp(z - z.max())
        error = -error / error.sum()
        error[int(y)] += 1.0
        hidden_error = (error @ self.V) * (a > 0.0)
        self.V += 0.02 * np.outer(error, a)
        self.c += 0.02 * error
        self.W += 0.02 * np.outer(hidden_error, standardized)
        self.b += 0.02 * hidden_error


def one_by_one(model: Model, samples: Sequence[Sample]) -> float:
    """Return the seconds of processor time that a model takes to predict and learn some samples."""
    began = time.process_time()
    for x, y in samples:
        model.predict_one(x)
        model.learn_one(x, y)
    return time.process_time() - began


def in_frames(model: TPClassifier, samples: Sequence[Sample], library: ModuleType, *, predict: bool) -> float:
    """Do the same with frames of `BATCH` samples, made by pandas or polars; without `predict` they are learnt only."""
    frames = []
    for first in range(0, len(samples), BATCH):
        X, y = zip(*samples[first : first + BATCH], strict=True)
        frames.append((library.DataFrame(X), library.Series("y", y) if library is pl else library.Series(y)))
    began = time.process_time()
    for X, y in frames:
        if predict:
            model.predict_many(X)
        model.learn_many(X, y)
    return time.process_time() - began


def ways() -> dict[str, Callable[[Sequence[Sample]], float]]:
    """Return each way of learning some samples by its name: it returns the seconds that they took."""
    made: dict[str, Callable[[Sequence[Sample]], float]] = {}
    for steps in ("numpy", "numba"):
        fast.enabled = steps == "numba"
        if fast.enabled and fast.compiled() is None:
            continue
        made[f"one by one, {steps}"] = partial(one_by_one, TPClassifier(seed=1))
        for library in (pd, pl):
            for doing, predict in (("learn", False), ("predict and learn", True)):
                way = partial(in_frames, TPClassifier(seed=1), library=library, predict=predict)
                made[f"{doing} frames of {BATCH}, {library.__name__}, {steps}"] = way
    return made


def main(turns: int = 40) -> None:
    """Let every way have its turn on `turns` pieces of the stream."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    stream = [({name: float(value) for name, value in x.items()}, y) for x, y in datasets.Elec2()]
    every = {BARE: partial(one_by_one, BareBackprop(stream[0][0])), **ways()}
    seconds: dict[str, list[float]] = {name: [] for name in every}
    for turn in range(turns + 1):
        first = turn * TURN % (len(stream) - TURN)
        for name, way in every.items():
            seconds[name].append(way(stream[first : first + TURN]))
    rows = []
    for name, taken in seconds.items():
        # In the first turn arrays are made, and functions compiled or loaded.
        ratios = [mine / bare for mine, bare in zip(taken[1:], seconds[BARE][1:], strict=True)]
        microseconds = 1e6 * statistics.median(taken[1:]) / TURN
        row = {"way": name, "cpu_us_per_sample": round(microseconds, 2), "ratio": round(statistics.median(ratios), 3)}
        rows.append(row)
    publish("stream_speed", "Processor time of a sample in µs, and its ratio to bare backpropagation's", rows)


if __name__ == "__main__":
    typer.run(main)
