"""What a training step costs: memory and time of tpSGD, backpropagation and the gradient-free peers.

Memory is the most that a step holds at a time beyond what lives before it (weights, momentum, batch), from the
events of PyTorch's allocator and, for what tpSGD does in NumPy, from those of NumPy's. Time is the median of steps that
the methods take in turn, in one thread; ratios are medians of the ratios of each turn.

    python benchmarks/costs.py            everything, some minutes
    python benchmarks/costs.py tasks      each network and batch of peers.py, and how long an epoch takes
    python benchmarks/costs.py memory     against depth and against the length of sequences
    python benchmarks/costs.py time       of multilayer perceptrons at batches of 1, 64 and 512
    python benchmarks/costs.py compile    with torch.compile for a recurrent layer's time step (needs a C++ compiler)
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from machine import publish
from peers import METHODS as TUNED
from peers import MOMENTUM, TASKS, Samples, Task, steps
from torch import nn
from torch.profiler import ProfilerActivity, profile

from fedtp import TPSGD
from fedtp.baselines import Backprop, DirectFeedback, FeedbackAlignment
from fedtp.models import mlp, recurrent

Make = Callable[[nn.Module], Any]

METHODS: dict[str, Make] = {
    "tpSGD": lambda model: TPSGD(model, seed=7, lr=0.01),
    "backpropagation": lambda model: Backprop(model, lr=0.01),
    "DFA": lambda model: DirectFeedback(model, method="dfa", lr=0.01),
    "FA": lambda model: FeedbackAlignment(model, lr=0.01),
    "DRTP": lambda model: DirectFeedback(model, method="drtp", lr=0.001),
}
DEPTHS = (4, 8, 16, 32)
LENGTHS = (100, 200, 400, 800)
NETWORKS = {"8-64-2": [8, 64, 2], "512-512-512-512-512-10": [512] * 5 + [10]}
BATCHES = (1, 64, 512)
TURNS = 9


def noise(*shape: int, classes: int = 10) -> Samples:
    """Return samples of no meaning."""
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(shape, generator=generator), torch.randint(classes, shape[:1], generator=generator))


def peak_mib(optimizer: Any, batch: Samples) -> float:
    """Return the most memory that a step holds at a time beyond what lives before it."""
    steps(optimizer, batch)  # momentum and readouts are there from the first step on
    tracemalloc.start()
    steps(optimizer, batch)
    _, numpy = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        steps(optimizer, batch)
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = top = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return (top + numpy) / 2**20


def in_turn(optimizers: Mapping[str, Any], batch: Samples, count: int) -> dict[str, list[float]]:
    """Return how many seconds a step of each optimizer takes, in each turn."""
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(TURNS):
        for name, optimizer in optimizers.items():
            start = time.perf_counter()
            for _ in range(count):
                steps(optimizer, batch)
            seconds[name].append((time.perf_counter() - start) / count)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, to: str) -> float:
    """Return how many times as long one takes as another."""
    return round(median(a / b for a, b in zip(seconds[name], seconds[to], strict=True)), 2)


def of_task(task: Task) -> Samples:
    """Return a batch of a task's size."""
    shape = task.shape or (784,)
    batch = noise(task.batch, *shape)
    if len(shape) == 2:
        batch.lengths = torch.full((task.batch,), shape[0])
    return batch


def tasks() -> list[dict[str, object]]:
    """Return what a step costs in each task."""
    rows: list[dict[str, object]] = []
    for name, task in TASKS.items():
        batch, optimizers = of_task(task), {}
        for method, (make, rates) in TUNED.items():
            optimizers[method] = make(task.model(seed=0), lr=rates[0], momentum=MOMENTUM)
        peaks = {method: peak_mib(optimizer, batch) for method, optimizer in optimizers.items()}
        seconds = in_turn(optimizers, batch, count=3)
        for method in optimizers:
            rows.append(
                {
                    "task": name,
                    "method": method,
                    "peak MiB": round(peaks[method], 2),
                    "ms per step": round(1000 * median(seconds[method]), 2),
                    "seconds per epoch": round(median(seconds[method]) * -(-task.training // task.batch), 2),
                    "time over tpSGD's": ratio(seconds, method, "tpSGD, label space"),
                }
            )
    return rows


def memory() -> list[dict[str, object]]:
    """Return the peak memory of each method, against depth and length."""
    rows = []
    for name, make in METHODS.items():
        row: dict[str, object] = {"method": name}
        for depth in DEPTHS:
            optimizer = make(mlp(512, [512] * depth, 10, activation="relu"))
            row[f"{depth} layers"] = round(peak_mib(optimizer, noise(256, 512)), 2)
        for length in LENGTHS:
            row[f"{length} steps"] = round(peak_mib(make(recurrent(40, 128, 10)), noise(32, length, 40)), 2)
        rows.append(row)
    return rows


class PlainBackprop:
    """Backpropagation as PyTorch has it, without the checks of fedtp's."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.sgd = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Learn from one batch."""
        self.sgd.zero_grad()
        nn.functional.cross_entropy(self.model(x), y).backward()
        self.sgd.step()


def times() -> list[dict[str, object]]:
    """Return how many times as long the others take as tpSGD."""
    rows = []
    for network, (first, *hidden, classes) in NETWORKS.items():
        for size in BATCHES:
            batch = noise(size, first, classes=classes)
            optimizers = {
                name: make(mlp(first, hidden, classes, activation="relu"))
                for name, make in (METHODS | {"backpropagation": PlainBackprop}).items()
            }
            seconds = in_turn(optimizers, batch, count=max(5, 3000 // size // (len(hidden) ** 2)))
            row: dict[str, object] = {"network": network, "batch": size}
            row["tpSGD µs"] = round(1e6 * median(seconds["tpSGD"]), 1)
            rows.append(row | {f"{name} / tpSGD": ratio(seconds, name, "tpSGD") for name in seconds if name != "tpSGD"})
    return rows


def compiled() -> list[dict[str, object]]:
    """Return how long steps take with a recurrent layer's time step as it is, and compiled."""
    rows: list[dict[str, object]] = []
    for kind in ("gru", "lstm"):
        batch = noise(32, 100, 40)
        optimizers = {name: METHODS["tpSGD"](recurrent(40, 128, 10, cell=kind)) for name in ("as it is", "compiled")}
        rule = optimizers["compiled"].chain.blocks[0].rule
        rule.cell.forward = torch.compile(rule.cell.forward)
        start = time.perf_counter()
        steps(optimizers["compiled"], batch)
        spent = time.perf_counter() - start
        seconds = in_turn(optimizers, batch, count=5)
        rows.append(
            {"network": kind}
            | {f"{name}, ms": round(1000 * median(taken), 1) for name, taken in seconds.items()}
            | {"compiled / as it is": ratio(seconds, "compiled", "as it is"), "seconds to compile": round(spent, 1)}
        )
    return rows


TABLES: dict[str, tuple[str, str, Callable[[], list[dict[str, object]]]]] = {
    "tasks": ("costs", "A step in each task of peers.py, one thread", tasks),
    "memory": ("memory", "Peak MiB of a step: MLP of width 512, batch 256; GRU of 128, batch 32", memory),
    "time": ("step_time", "Time of a step over tpSGD's, one thread", times),
    "compile": ("compile", "Time of a step of a recurrent network of 128, 100 time steps, one thread", compiled),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for table in sys.argv[1:] or TABLES:
        if table not in TABLES:
            sys.exit(f"There is no table {table!r}; choose some of {', '.join(TABLES)}.")
        name, title, measure = TABLES[table]
        publish(name, title, measure())
