"""Devices that see few of the classes, merged again and again: how well the merged model knows all of them.

Five devices, each with three of ten classes and 10 of 12 features, learn 200 samples a round; after each of six rounds
they are merged (`fedtp.streaming.merge`), and go on from the merged model. Accuracy on 500 samples of all classes, mean
of five seeds, beside the same devices without merging and one model that sees all samples, mixed and whole.

    python benchmarks/merging.py        half a minute
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from statistics import mean

import numpy as np
from machine import publish

from fedtp.streaming import TPClassifier, merge

CLASSES, FEATURES, DEVICES, ROUNDS, SAMPLES = 10, 12, 5, 6, 200
SEEDS = range(5)
Samples = Sequence[tuple[dict[str, float], str]]


class World:
    """Ten classes in twelve features of very different scales; each class is three clouds."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.centres = 1.5 * self.rng.normal(size=(CLASSES, 3, FEATURES))
        self.scales = 10.0 ** self.rng.uniform(-2, 2, FEATURES)

    def draw(
        self, samples: int, classes: Sequence[int] = range(CLASSES), features: Sequence[int] = range(FEATURES)
    ) -> Iterator[tuple[dict[str, float], str]]:
        """Yield samples of some classes, with some features."""
        for _ in range(samples):
            label = int(self.rng.choice(classes))
            x = (self.centres[label, self.rng.integers(3)] + 0.7 * self.rng.normal(size=FEATURES)) * self.scales
            yield {f"x{j}": float(x[j]) for j in features}, f"class {label}"


def accuracy(model: TPClassifier, samples: Samples) -> float:
    """Return the share of right predictions."""
    return float(np.mean([model.predict_one(x) == y for x, y in samples]))


def run(seed: int) -> dict[str, list[float]]:
    """Return the accuracies after each round."""
    world = World(seed)
    held_out = [*world.draw(500)]
    classes = [[(2 * device + i) % CLASSES for i in range(3)] for device in range(DEVICES)]
    features = [[j for j in range(FEATURES) if j % DEVICES != device or j >= 10] for device in range(DEVICES)]
    devices, lonely = ([TPClassifier(seed=1) for _ in range(DEVICES)] for _ in range(2))
    whole = TPClassifier(seed=1)
    found: dict[str, list[float]] = {"merged": [], "alone, mean": [], "alone, best": [], "all samples, mixed": []}
    for _ in range(ROUNDS):
        for device, alone, own_classes, own_features in zip(devices, lonely, classes, features, strict=True):
            for x, y in world.draw(SAMPLES, own_classes, own_features):
                device.learn_one(x, y)
                alone.learn_one(x, y)
        for x, y in world.draw(SAMPLES * DEVICES):
            whole.learn_one(x, y)
        merged = merge(devices)
        devices = [copy.deepcopy(merged) for _ in devices]
        each = [accuracy(alone, held_out) for alone in lonely]
        for name, value in zip(
            found, (accuracy(merged, held_out), mean(each), max(each), accuracy(whole, held_out)), strict=True
        ):
            found[name].append(value)
    return found


def main() -> None:
    """Run all seeds, and publish the means."""
    runs = [run(seed) for seed in SEEDS]
    publish(
        "merging",
        "accuracy on all classes after each round",
        [
            {"model": name, **{f"round {i + 1}": round(mean(r[name][i] for r in runs), 3) for i in range(ROUNDS)}}
            for name in runs[0]
        ],
    )


if __name__ == "__main__":
    main()
