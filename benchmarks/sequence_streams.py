"""What a memory is worth on a stream: recurrent networks beside `TPClassifier` on the same samples.

The samples of eight sensors come in random order. On `parity` a sample is a bit, and its label the parity of it and the
bit before it of the same sensor; on `rising` it is a noisy reading of a sine, and the label says whether that rises.
Neither can be told from a sample alone.

    python benchmarks/sequence_streams.py
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import typer
from machine import publish

from fedtp.streaming import TPClassifier, TPSequenceClassifier

SENSORS = 8
Samples = Iterator[tuple[dict[str, Any], bool]]


def parity(seed: int) -> Samples:
    """Yield bits, and whether a sensor's bit is another than its last."""
    drawn = random.Random(seed)
    before = [False] * SENSORS
    while True:
        sensor, bit = drawn.randrange(SENSORS), drawn.random() < 0.5
        yield {"sensor": f"sensor {sensor}", "reading": bit}, bit ^ before[sensor]
        before[sensor] = bit


def rising(seed: int) -> Samples:
    """Yield readings of sines, each with a frequency and a phase of its own, and whether they rise."""
    drawn = random.Random(seed)
    phases = [drawn.uniform(0.0, 2.0 * math.pi) for _ in range(SENSORS)]
    steps = [drawn.uniform(0.2, 0.5) for _ in range(SENSORS)]
    while True:
        sensor = drawn.randrange(SENSORS)
        phases[sensor] += steps[sensor]
        reading = math.sin(phases[sensor]) + drawn.gauss(0.0, 0.05)
        yield {"sensor": f"sensor {sensor}", "reading": reading}, math.cos(phases[sensor]) > 0.0


MODELS: dict[str, Callable[[int], Any]] = {
    "GRU, a state for each sensor": lambda seed: TPSequenceClassifier(key="sensor", seed=seed),
    "LSTM, a state for each sensor": lambda seed: TPSequenceClassifier(cell="lstm", key="sensor", seed=seed),
    "Elman, a state for each sensor": lambda seed: TPSequenceClassifier(cell="rnn", key="sensor", seed=seed),
    "GRU, one state": lambda seed: TPSequenceClassifier(seed=seed),
    "TPClassifier": lambda seed: TPClassifier(seed=seed),
}


def main(samples: int = 2000, seeds: int = 3) -> None:
    """Run every model over both streams."""
    rows = []
    for stream in (parity, rising):
        for name, make in MODELS.items():
            accuracies, late, seconds = [], [], 0.0
            for seed in range(1, seeds + 1):
                model, right = make(seed), []
                source = stream(seed)
                for _ in range(samples):
                    x, y = next(source)
                    if getattr(model, "key", None) is None:
                        del x["sensor"]
                    begin = time.process_time()
                    right.append(model.predict_one(x) == y)
                    model.learn_one(x, y)
                    seconds += time.process_time() - begin
                accuracies.append(statistics.mean(right))
                late.append(statistics.mean(right[-samples // 4 :]))
            rows.append(
                {
                    "stream": stream.__name__,
                    "learner": name,
                    "seeds": seeds,
                    "samples": samples,
                    "accuracy": round(statistics.mean(accuracies), 4),
                    "lowest": round(min(accuracies), 4),
                    "last_quarter": round(statistics.mean(late), 4),
                    "cpu_us_per_sample": round(1e6 * seconds / seeds / samples),
                }
            )
            print(rows[-1], flush=True)
    publish("sequence_streams", f"{SENSORS} interleaved sensors: prequential accuracy, mean over seeds", rows)


if __name__ == "__main__":
    typer.run(main)
