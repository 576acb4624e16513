"""What the adaptation policies do on drifting streams: accuracy and recovery time, beside a learner without any.

Every stream has three concepts of 4,000 samples each, or stands still, or moves all the time. A policy works on a
`TPClassifier` with two hidden layers, ADWIN and otherwise the defaults; where the stream stands still, the detector is
EDDM, which gives false alarms. Three seeds of the stream and of the model. None of the streams is one of those on which
the learner was made.

    python benchmarks/policies.py                 all, five minutes; the table is printed and written to results
    python benchmarks/policies.py rbf sine        these, printed only
    python benchmarks/policies.py --localisation  which block the reports name, for drifts of the inputs and the labels
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from statistics import mean, median, stdev
from typing import Any

import numpy as np
from machine import publish, show
from river import drift
from river.datasets import synth

from fedtp.measures import RecoveryMeter
from fedtp.streaming import TPClassifier
from fedtp.streaming.policies import POLICIES

SEEDS = (1, 2, 3)
CONCEPT = 4_000
HIDDEN = (64, 32)

Sample = tuple[dict[Any, Any], Any]


def joined(*concepts: Any) -> Iterator[Sample]:
    """Yield some samples of each concept."""
    for concept in concepts:
        yield from concept.take(CONCEPT)


def rbf(*models: int) -> Callable[[int], Iterator[Sample]]:
    def draw(seed: int) -> Iterator[Sample]:
        return joined(
            *(
                synth.RandomRBF(
                    seed_model=100 * model + seed,
                    seed_sample=1000 * position + seed,
                    n_classes=4,
                    n_features=10,
                    n_centroids=20,
                )
                for position, model in enumerate(models, 1)
            )
        )

    return draw


def variants(generator: Any, *functions: int, **more: Any) -> Callable[[int], Iterator[Sample]]:
    def draw(seed: int) -> Iterator[Sample]:
        return joined(
            *(
                generator(classification_function=function, seed=10 * seed + position, **more)
                for position, function in enumerate(functions)
            )
        )

    return draw


def changed(make: Callable[[int], Any], how: str) -> Callable[[int], Iterator[Sample]]:
    """Draw from one generator, and change what comes in, or what it is called, at each drift."""

    def draw(seed: int) -> Iterator[Sample]:
        samples = make(seed).take(3 * CONCEPT)
        head = list(itertools.islice(samples, CONCEPT))
        rows = np.array([[float(value) for value in x.values()] for x, _ in head])
        middle, deviation = rows.mean(0), rows.std(0) + 1e-9
        labels = sorted({y for _, y in head})
        rng = np.random.default_rng(seed)
        change = _CHANGES[how]
        for part in range(3):
            apply = change(rng, middle, deviation, labels, part) if part else lambda x, y: (x, y)
            for x, y in head if part == 0 else itertools.islice(samples, CONCEPT):
                values, label = apply(np.array([float(value) for value in x.values()]), y)
                yield dict(enumerate(values.tolist())), label

    return draw


Change = Callable[[Any, Any], tuple[Any, Any]]


def _shuffled(rng: Any, middle: Any, deviation: Any, labels: list[Any], part: int) -> Change:
    order = rng.permutation(len(middle))
    return lambda x, y: (x[order], y)


def _rotated(rng: Any, middle: Any, deviation: Any, labels: list[Any], part: int) -> Change:
    turn, _ = np.linalg.qr(rng.normal(size=(len(middle), len(middle))))
    return lambda x, y: ((x - middle) / deviation @ turn * deviation + middle, y)


def _shifted(rng: Any, middle: Any, deviation: Any, labels: list[Any], part: int) -> Change:
    step = deviation * rng.choice([-1.5, 1.5], len(middle))
    return lambda x, y: (x + step, y)


def _scaled(rng: Any, middle: Any, deviation: Any, labels: list[Any], part: int) -> Change:
    factor = np.exp(rng.normal(size=len(middle)))
    return lambda x, y: (middle + (x - middle) * factor, y)


def _renamed(rng: Any, middle: Any, deviation: Any, labels: list[Any], part: int) -> Change:
    names = dict(zip(labels, np.roll(labels, part).tolist(), strict=True))
    return lambda x, y: (x, names[y])


def _swapped(rng: Any, middle: Any, deviation: Any, labels: list[Any], part: int) -> Change:
    one, other = labels[part - 1], labels[part % len(labels)]
    return lambda x, y: (x, {one: other, other: one}.get(y, y) if part < len(labels) else y)


_CHANGES: dict[str, Callable[..., Change]] = {
    "shuffled": _shuffled,
    "rotated": _rotated,
    "shifted": _shifted,
    "scaled": _scaled,
    "renamed": _renamed,
    "swapped": _swapped,
}

_STILL: dict[str, Callable[[int], Any]] = {
    "rbf": lambda seed: synth.RandomRBF(
        seed_model=700 + seed, seed_sample=seed, n_classes=4, n_features=10, n_centroids=20
    ),
    "waveform": lambda seed: synth.Waveform(seed=10 + seed),
    "led": lambda seed: synth.LED(seed=10 + seed, noise_percentage=0.1, irrelevant_features=True),
    "agrawal": lambda seed: synth.Agrawal(classification_function=4 + seed % 2, seed=10 + seed),
}

#: By name: the samples of a seed, and how many true drifts there are.
STREAMS: dict[str, tuple[Callable[[int], Iterator[Sample]], int]] = {
    "rbf": (rbf(1, 2, 3), 2),
    "rbf, there and back": (rbf(4, 5, 4), 2),
    "sine": (variants(synth.Sine, 0, 1, 2), 2),
    "mixed": (variants(synth.Mixed, 0, 1, 0), 2),
    "agrawal": (variants(synth.Agrawal, 0, 2, 3), 2),
    "stagger": (variants(synth.STAGGER, 0, 1, 2), 2),
    "waveform, features shuffled": (changed(_STILL["waveform"], "shuffled"), 2),
    "waveform, classes renamed": (changed(_STILL["waveform"], "renamed"), 2),
    "led, features shuffled": (changed(_STILL["led"], "shuffled"), 2),
    "rbf, features shifted": (changed(_STILL["rbf"], "shifted"), 2),
    "hyperplane, moving": (
        lambda seed: synth.Hyperplane(seed=seed, n_features=10, n_drift_features=5, mag_change=0.01).take(3 * CONCEPT),
        0,
    ),
    "rbf, still": (rbf(6, 6, 6), 0),
    "waveform, still": (lambda seed: synth.Waveform(seed=20 + seed).take(3 * CONCEPT), 0),
    "agrawal, still": (lambda seed: synth.Agrawal(classification_function=3, seed=seed).take(3 * CONCEPT), 0),
}


def run(samples: list[Sample], drifts: int, model: Any) -> dict[str, Any]:
    """Predict each sample, then learn it."""
    meter = RecoveryMeter([CONCEPT * (number + 1) for number in range(drifts)])
    correct = reports = 0
    latest = None
    started = time.process_time()
    for x, y in samples:
        right = model.predict_one(x) == y
        meter.update(right)
        correct += right
        model.learn_one(x, y)
        if model.drift is not latest:
            latest = model.drift
            reports += 1
    took = time.process_time() - started
    return {
        "accuracy": 100 * correct / len(samples),
        "recoveries": [recovery.samples or CONCEPT for recovery in meter.recoveries],
        "lost": [recovery.area_lost or 0.0 for recovery in meter.recoveries],
        "reports": reports,
        "us": 1e6 * took / len(samples),
    }


def measure(name: str, policies: dict[str, Any]) -> list[dict[str, object]]:
    """Measure all policies on one stream."""
    draw, drifts = STREAMS[name]
    streams = {seed: list(draw(seed)) for seed in SEEDS}
    rows: list[dict[str, object]] = []
    detector = drift.binary.EDDM() if name.endswith("still") else drift.ADWIN()
    for title, policy in policies.items():
        runs = [
            run(streams[seed], drifts, TPClassifier(hidden=HIDDEN, policy=policy, detector=detector, seed=seed))
            for seed in SEEDS
        ]
        accuracies = [one["accuracy"] for one in runs]
        recoveries = [samples for one in runs for samples in one["recoveries"]]
        lost = [errors for one in runs for errors in one["lost"]]
        rows.append(
            {
                "stream": name,
                "policy": title,
                "accuracy": f"{mean(accuracies):.2f}",
                "deviation": f"{stdev(accuracies):.2f}",
                "recovery": f"{median(recoveries):.0f}" if drifts else "-",
                "errors lost": f"{mean(lost):.0f}" if drifts else "-",
                "reports": f"{mean(one['reports'] for one in runs):.1f}",
                "us": f"{median(one['us'] for one in runs):.0f}",
            }
        )
    return rows


def localisation() -> list[dict[str, object]]:
    """Count which blocks the reports of true drifts name, for each generator and kind of change."""
    rows: list[dict[str, object]] = []
    for kind, make in _STILL.items():
        for how in _CHANGES:
            named = dict.fromkeys(("0", "2", "4"), 0)
            rises: list[list[float]] = []
            for seed in SEEDS:
                model = TPClassifier(hidden=HIDDEN, detector=drift.ADWIN(), seed=seed)
                latest, after = None, CONCEPT
                for position, (x, y) in enumerate(changed(make, how)(seed)):
                    model.learn_one(x, y)
                    if position % CONCEPT == 0:
                        after = position
                    if model.drift is not latest:
                        latest = model.drift
                        if after and position - after < 500:  # the first report of a drift
                            named[latest.from_block] += 1
                            rises.append(list(latest.blocks.values()))
                            after = 0
            middle = np.median(rises, 0) if rises else [float("nan")] * 3
            rows.append(
                {
                    "stream": kind,
                    "change": how,
                    **{f"rise {block}": f"{rise:.2f}" for block, rise in zip(named, middle, strict=True)},
                    **{f"from {block}": f"{count}" for block, count in named.items()},
                    "not flagged": f"{2 * len(SEEDS) - len(rises)}",
                }
            )
    return rows


def main(arguments: list[str]) -> None:
    if arguments == ["--localisation"]:
        publish("drift_blocks", "Which block the reports name", localisation())
        return
    for name in arguments:
        if name not in STREAMS:
            sys.exit(f"There is no stream {name!r}; choose some of {', '.join(STREAMS)}.")
    rows = [row for name in arguments or STREAMS for row in measure(name, POLICIES)]
    if arguments:
        show("Policies", rows)
    else:
        publish("policies", "Accuracy in %, and samples until it is back, of three seeds", rows)


if __name__ == "__main__":
    main(sys.argv[1:])
