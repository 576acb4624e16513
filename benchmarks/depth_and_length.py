"""Peak memory of a training step against depth and sequence length, and step time at three batch sizes.

Memory is what a step holds at a time beyond what lives before it (weights, batch), from the allocator's events. Times
are medians of ratios within one run: backpropagation over tpSGD.

    python benchmarks/depth_and_length.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from machine import publish
from peers import Samples, peak_mib
from torch import nn

from fedtp import TPSGD
from fedtp.baselines import Backprop, DirectFeedback, FeedbackAlignment
from fedtp.models import mlp, recurrent

METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "tpSGD": lambda model: TPSGD(model, seed=7, lr=0.01),
    "backpropagation": lambda model: Backprop(model, lr=0.01),
    "DFA": lambda model: DirectFeedback(model, method="dfa", lr=0.01),
    "FA": lambda model: FeedbackAlignment(model, lr=0.01),
    "DRTP": lambda model: DirectFeedback(model, method="drtp", lr=0.001),
}
DEPTHS = (4, 8, 16, 32)
LENGTHS = (100, 200, 400, 800)
NETWORKS = {"8-64-2": [8, 64, 2], "512-512-512-512-512-10": [512] * 5 + [10]}


def batch(*shape: int, classes: int = 10) -> Samples:
    """Return noise."""
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(shape, generator=generator), torch.randint(classes, shape[:1], generator=generator))


def memory() -> list[dict[str, object]]:
    """Return the peak memory of each method."""
    rows = []
    for name, make in METHODS.items():
        row: dict[str, object] = {"method": name}
        for depth in DEPTHS:
            model = mlp(512, [512] * depth, 10, activation="relu")
            row[f"{depth} layers"] = round(peak_mib(model, make(model), batch(256, 512)), 2)
        for length in LENGTHS:
            model = recurrent(40, 128, 10)
            row[f"{length} steps"] = round(peak_mib(model, make(model), batch(32, length, 40)), 2)
        rows.append(row)
    return rows


def seconds(optimizer: Any, samples: Samples, steps: int) -> float:
    """Return how long steps take."""
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.step(samples.x, samples.y)
    return time.perf_counter() - start


def plain(model: nn.Module) -> Any:
    """Return backpropagation as PyTorch has it, without the checks of fedtp's."""

    class Plain:
        def __init__(self) -> None:
            self.sgd = torch.optim.SGD(model.parameters(), lr=0.01)

        def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
            self.sgd.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            self.sgd.step()

    return Plain()


def times() -> list[dict[str, object]]:
    """Return how many times as long backpropagation and the peers take as tpSGD."""
    rows = []
    for network, (first, *hidden, classes) in NETWORKS.items():
        for size in (1, 64, 512):
            steps = max(5, 3000 // size // (len(hidden) ** 2))
            samples = batch(size, first, classes=classes)
            optimizers = METHODS | {"backpropagation": plain}
            ready = {name: make(mlp(first, hidden, classes, activation="relu")) for name, make in optimizers.items()}
            ratios: dict[str, list[float]] = {name: [] for name in ready}
            for _ in range(9):
                taken = {name: seconds(optimizer, samples, steps) for name, optimizer in ready.items()}
                for name in ready:
                    ratios[name].append(taken[name] / taken["tpSGD"])
            rows.append(
                {"network": network, "batch": size}
                | {f"{name} / tpSGD": round(median(ratios[name]), 2) for name in ready if name != "tpSGD"}
            )
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    publish("memory", "Peak MiB of a step: MLP of width 512, batch 256; GRU of 128, batch 32", memory())
    publish("step_time", "Time of a step over tpSGD's, one thread", times())
