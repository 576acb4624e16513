"""deep-river on the streams of streams.py, from an environment of its own: it cannot be installed beside River 0.26.

    python -m venv deep-river
    deep-river/bin/pip install "river==0.25.*" torch pandas scikit-learn sortedcontainers tqdm torchviz pytest
    deep-river/bin/pip install --no-deps deep-river==0.3.4
    deep-river/bin/python benchmarks/streams_deep_river.py
    python benchmarks/streams.py tables

A network with 64 hidden units behind River's StandardScaler, plain SGD at 0.01, River's way to use it. The same
generators with the same seeds, the same loop; nothing of fedtp is imported. Rows go to results/streams/.
"""

from __future__ import annotations

import csv
import os
import random
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from deep_river.classification import Classifier
from river import preprocessing
from river.datasets import synth

RUNS = Path(os.environ.get("FEDTP_RESULTS", Path(__file__).parent / "results")) / "streams"
SEEDS = (1, 2, 3)
RBF: dict[str, Any] = {"n_classes": 4, "n_features": 10, "n_centroids": 20}
#: How far apart the seeds of the generators of two seeds are, as in fedtp.streaming.studies.
APART = 1000


def elec2(seed: int) -> Iterator[tuple[dict[str, Any], Any]]:
    with (Path(os.environ["RIVER_DATA"]) / "Elec2" / "electricity.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            label = row.pop("class") == "UP"
            yield {key: float(value) for key, value in row.items()}, label


def rbf_incremental(seed: int) -> Iterator[tuple[dict[str, Any], Any]]:
    shift = APART * (seed - 1)
    drifting = synth.RandomRBFDrift(
        seed_model=42, seed_sample=42 + shift, change_speed=0.001, n_drift_centroids=10, **RBF
    )
    yield from drifting.take(20_000)


def rbf_abrupt(seed: int) -> Iterator[tuple[dict[str, Any], Any]]:
    shift = APART * (seed - 1)
    yield from synth.RandomRBF(seed_model=1, seed_sample=11 + shift, **RBF).take(10_000)
    yield from synth.RandomRBF(seed_model=2, seed_sample=22 + shift, **RBF).take(10_000)


def sea_abrupt(seed: int) -> Iterator[tuple[dict[str, Any], Any]]:
    shift = APART * (seed - 1)
    yield from synth.ConceptDriftStream(
        stream=synth.SEA(seed=42 + shift, variant=0),
        drift_stream=synth.SEA(seed=43 + shift, variant=3),
        seed=1 + shift,
        position=10_000,
        width=100,
    ).take(20_000)


STREAMS = {
    "elec2": (elec2, 8, 2),
    "rbf-incremental": (rbf_incremental, 10, 4),
    "rbf-abrupt": (rbf_abrupt, 10, 4),
    "sea-abrupt": (sea_abrupt, 3, 2),
}


class Network(torch.nn.Module):
    """64 hidden units."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(features, 64)
        self.out = torch.nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        answer: torch.Tensor = self.out(torch.relu(self.hidden(x)))
        return answer


def measure(name: str, seed: int, delay: int) -> dict[str, Any]:
    draw, features, classes = STREAMS[name]
    random.seed(seed)
    torch.manual_seed(seed)
    model = preprocessing.StandardScaler() | Classifier(
        Network(features, classes),
        loss_fn="cross_entropy",
        optimizer_fn="sgd",
        lr=0.01,
        is_class_incremental=True,
        seed=seed,
    )
    right: list[bool] = []
    waiting: deque[tuple[dict[str, Any], Any]] = deque()
    cpu = 0.0
    for x, y in draw(seed):
        start = time.process_time()
        guess = model.predict_one(x)
        cpu += time.process_time() - start
        right.append(bool(guess == y))
        waiting.append((x, y))
        if len(waiting) > delay:
            old = waiting.popleft()
            start = time.process_time()
            model.learn_one(*old)
            cpu += time.process_time() - start
    return {
        "model": "deep-river, SGD 0.01",
        "stream": name,
        "seed": seed,
        "accuracy": round(sum(right) / len(right), 5),
        "kappa_t": "",
        "recovery": recovery(right, 10_000) if name == "rbf-abrupt" else "",
        "cpu_us": round(1e6 * cpu / len(right), 1),
        "state_bytes": sum(p.numel() * p.element_size() for p in model["Classifier"].module.parameters()),
    }


def recovery(right: list[bool], drift: int) -> int | str:
    """Return after how many samples the last 200 were right 95 % as often as the 2,000 before the drift."""
    before = sum(right[drift - 2000 : drift]) / 2000
    for end in range(drift + 200, len(right) + 1):
        if sum(right[end - 200 : end]) / 200 >= 0.95 * before:
            return end - drift
    return ""


def main() -> None:
    for delay, file in ((0, "deep_river"), (48, "deep_river_late")):
        rows = [measure(name, seed, delay) for name in (STREAMS if not delay else ["elec2"]) for seed in SEEDS]
        RUNS.mkdir(parents=True, exist_ok=True)
        with (RUNS / f"{file}.csv").open("w", newline="") as text:
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        for row in rows:
            print(row, file=sys.stderr)


if __name__ == "__main__":
    main()
