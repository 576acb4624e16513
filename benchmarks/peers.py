"""tpSGD against backpropagation and its gradient-free peers: accuracy and convergence. Time and memory: costs.py.

Every method is tuned by the same search, five learning rates with one seed, scored on training samples that are held
back; where the best is the first or the last of those tried, the search goes on beyond it. Then it is trained with
three seeds at the best and scored on the test set. All use momentum 0.9, a
learning rate that falls to 0 along a cosine, the same batches and the same initial weights. A configuration is written
to results/peers/<task>.csv as it ends, and a benchmark that was broken off goes on where it stopped. Needs MNIST,
CIFAR-10 and the spoken digits (FEDTP_DATA).

    python benchmarks/peers.py                    every task, hours
    python benchmarks/peers.py gru cifar-conv     these
    python benchmarks/peers.py --quick            on scikit-learn's 8x8 digits, a minute; nothing is written
    python benchmarks/peers.py --list
    python benchmarks/peers.py --tables           the tables of what has been measured
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from machine import RESULTS, append_row, publish, read_rows, show
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.baselines import Backprop, DirectFeedback, FeedbackAlignment
from fedtp.data import load
from fedtp.models import cnn, mlp, recurrent, vgg

RUNS = RESULTS / "peers"
SEEDS = (0, 1, 2)
TUNING_SEED = 3
MOMENTUM = 0.9
#: What a learning rate may be.
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class Task:
    """A network, what it learns, and for how long."""

    data: str
    model: Callable[..., nn.Sequential]  # of a seed
    epochs: int
    training: int
    held_back: int
    batch: int = 64
    shape: tuple[int, ...] = ()


TASKS = {
    "mnist-500": Task("mnist", partial(mlp, 784, [500], 10), 5, 20_000, 5000),
    "mnist-1000-1000": Task("mnist", partial(mlp, 784, [1000, 1000], 10), 5, 20_000, 5000),
    "mnist-conv": Task(
        "mnist",
        partial(cnn, (1, 28, 28), [32], 10, hidden=[1000], kernel=5, activation="relu"),
        3,
        10_000,
        5000,
        shape=(1, 28, 28),
    ),
    "cifar-conv": Task("cifar10", partial(cnn, (3, 32, 32), [32, 64], 10), 4, 10_000, 5000, shape=(3, 32, 32)),
    "cifar-vgg11": Task("cifar10", partial(vgg, 10, width=0.25), 4, 10_000, 2500, shape=(3, 32, 32)),
    "rnn": Task("spoken-digits", partial(recurrent, 40, 128, 10, cell="rnn"), 8, 2300, 400, 32, (100, 40)),
    "gru": Task("spoken-digits", partial(recurrent, 40, 128, 10), 8, 2300, 400, 32, (100, 40)),
    "lstm": Task("spoken-digits", partial(recurrent, 40, 128, 10, cell="lstm"), 8, 2300, 400, 32, (100, 40)),
    "gru-2": Task("spoken-digits", partial(recurrent, 40, 128, 10, layers=2), 8, 2300, 400, 32, (100, 40)),
}

#: On data that every installation has.
QUICK = Task("digits", partial(mlp, 64, [128], 10), 20, 1000, 300, 32)

METHODS: dict[str, tuple[Callable[..., Any], tuple[float, ...]]] = {
    "backpropagation": (Backprop, (0.003, 0.01, 0.03, 0.1, 0.3)),
    "tpSGD, label space": (partial(TPSGD, seed=7), (0.03, 0.1, 0.3, 1.0, 3.0)),
    "tpSGD, label space, learnt readouts": (
        partial(TPSGD, seed=7, readout="learnt", grid=4),
        (0.03, 0.1, 0.3, 1.0, 3.0),
    ),
    "tpSGD, label space, learnt readouts, plain steps": (
        partial(TPSGD, seed=7, readout="learnt", grid=4, normalize=False),
        (0.003, 0.01, 0.03, 0.1, 0.3),
    ),
    "tpSGD, target space": (partial(TPSGD, seed=7, loss="squared", space="target"), (0.01, 0.03, 0.1, 0.3, 1.0)),
    "DRTP": (partial(DirectFeedback, method="drtp", seed=7), (0.0003, 0.001, 0.003, 0.01, 0.03)),
    "DFA": (partial(DirectFeedback, method="dfa", seed=7), (0.003, 0.01, 0.03, 0.1, 0.3)),
    "FA": (partial(FeedbackAlignment, seed=7), (0.003, 0.01, 0.03, 0.1, 0.3)),
}


@dataclass
class Samples:
    """Samples in memory, with their lengths if they are sequences."""

    x: Tensor
    y: Tensor
    lengths: Tensor | None = None

    def take(self, rows: Tensor) -> Samples:
        """Return these samples; sequences are cut to the longest of them."""
        if self.lengths is None:
            return Samples(self.x[rows], self.y[rows])
        lengths = self.lengths[rows]
        return Samples(self.x[rows, : int(lengths.max())], self.y[rows], lengths)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Samples]:
        """Yield batches, in an order of the generator's."""
        count = len(self.y)
        order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        for rows in order.split(size):
            yield self.take(rows)


@dataclass
class Split:
    """What a task learns from and is scored by."""

    task: Task
    parts: dict[str, Samples] = field(default_factory=dict)

    def __post_init__(self) -> None:
        train, test = load(self.task.data).split(seed=0)  # shuffled alike for everyone
        end = self.task.training
        for name, part in (
            ("training", train.rows(slice(0, end))),
            ("validation", train.rows(slice(end, end + self.task.held_back))),
            ("test", test),
        ):
            x = torch.from_numpy(part.x).view(-1, *self.task.shape) if self.task.shape else torch.from_numpy(part.x)
            lengths = None if part.lengths is None else torch.from_numpy(part.lengths)
            self.parts[name] = Samples(x, torch.from_numpy(part.y), lengths)


def steps(optimizer: Any, batch: Samples) -> None:
    """Learn from one batch."""
    if batch.lengths is None:
        optimizer.step(batch.x, batch.y)
    else:
        optimizer.step(batch.x, batch.y, lengths=batch.lengths)


def score(model: nn.Sequential, samples: Samples) -> float:
    """Return the accuracy, in %."""
    right = 0
    model.eval()
    with torch.no_grad():
        for batch in samples.batches(500):
            h = batch.x
            for layer in model:
                h = layer(h) if batch.lengths is None or layer is not model[0] else layer(h, batch.lengths)
            right += int((h.argmax(1) == batch.y).sum())
    model.train()
    return 100 * right / len(samples.y)


def run(split: Split, method: str, lr: float, seed: int, on: str) -> dict[str, Any]:
    """Train once, and return what was measured."""
    task, (make, _) = split.task, METHODS[method]
    training, scored = split.parts["training"], split.parts[on]
    model = task.model(seed=seed)
    optimizer = make(model, lr=lr, momentum=MOMENTUM)
    generator = torch.Generator().manual_seed(seed)
    total, done, curve = task.epochs * -(-len(training.y) // task.batch), 0, []
    for _ in range(task.epochs):
        for batch in training.batches(task.batch, generator):
            for group in optimizer.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * done / total))
            steps(optimizer, batch)
            done += 1
        curve.append(score(model, scored))
    first = next(epoch for epoch, accuracy in enumerate(curve, 1) if accuracy >= 0.95 * curve[-1])
    return {
        "method": method,
        "lr": lr,
        "seed": seed,
        "split": on,
        "accuracy": round(curve[-1], 2),
        "epochs_to_95": first,
        "curve": " ".join(f"{accuracy:.2f}" for accuracy in curve),
    }


def runs(name: str) -> Path:
    """Return the file that holds what has been measured of a task."""
    return RUNS / f"{name}.csv"


def best_lr(rows: list[dict[str, Any]], method: str) -> float:
    """Return the learning rate that the search chose."""
    tried = [row for row in rows if row["method"] == method and row["split"] == "validation"]
    return float(max(tried, key=lambda row: float(row["accuracy"]))["lr"])


def next_run(rows: list[dict[str, str]], method: str) -> tuple[float, int, str] | None:
    """Return the learning rate, the seed and the split of what a method lacks; None if it is complete."""
    tried = {float(row["lr"]) for row in rows if row["method"] == method and row["split"] == "validation"}
    for lr in METHODS[method][1]:
        if lr not in tried:
            return lr, TUNING_SEED, "validation"
    best = best_lr(rows, method)
    if best in (min(tried), max(tried)):
        number = RATES.index(best) + (1 if best == max(tried) else -1)
        if 0 <= number < len(RATES):
            return RATES[number], TUNING_SEED, "validation"
    tested = {int(row["seed"]) for row in rows if row["method"] == method and _is_test(row, best)}
    return next(((best, seed, "test") for seed in SEEDS if seed not in tested), None)


def _is_test(row: dict[str, Any], lr: float) -> bool:
    return bool(row["split"] == "test" and float(row["lr"]) == lr)


def complete(name: str) -> None:
    """Run what of a task has not been measured yet."""
    split = Split(TASKS[name])
    for method in METHODS:
        while lacking := next_run(read_rows(runs(name)), method):
            lr, seed, on = lacking
            row = run(split, method, lr, seed, on)
            append_row(runs(name), row)
            print(name, method, f"lr {lr:g} seed {seed} {on}: {row['accuracy']} %", flush=True)


def quick() -> None:
    """Run every method on a small task, and print the table."""
    split = Split(QUICK)
    rows: list[dict[str, Any]] = []
    for method, (_, rates) in METHODS.items():
        rows += [run(split, method, lr, TUNING_SEED, "validation") for lr in rates]
        rows += [run(split, method, best_lr(rows, method), seed, "test") for seed in SEEDS]
    show(title("digits", QUICK), summary(rows))


def title(name: str, task: Task) -> str:
    """Say what a table shows."""
    return f"{name}: {task.training} samples, {task.epochs} epochs, test accuracy in %"


def summary(rows: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Return the means of the methods whose three seeds are there."""
    table: list[dict[str, object]] = []
    for method in METHODS:
        if not any(row["method"] == method for row in rows):
            continue
        best = best_lr(rows, method)
        tested = [row for row in rows if row["method"] == method and _is_test(row, best)]
        if len(tested) < len(SEEDS):
            continue
        figures = {key: [float(row[key]) for row in tested] for key in ("accuracy", "epochs_to_95")}
        table.append(
            {
                "method": method,
                "lr": str(tested[0]["lr"]),
                "accuracy": f"{mean(figures['accuracy']):.2f} ± {stdev(figures['accuracy']):.2f}",
                "epochs to 95 %": f"{mean(figures['epochs_to_95']):.1f}",
            }
        )
    return table


def tables() -> None:
    """Publish what has been measured: accuracy, and epochs to 95 % of the final accuracy, of every task and method."""
    found = {name: {row["method"]: row for row in summary(read_rows(runs(name)))} for name in TASKS}
    for figure, file, heading in (
        ("accuracy", "peers_accuracy", "Test accuracy in %, mean and deviation of three seeds"),
        ("epochs to 95 %", "peers_epochs", "Epochs to 95 % of the final accuracy, mean of three seeds"),
    ):
        publish(
            file,
            heading,
            [
                {"task": name, "epochs": str(TASKS[name].epochs)}
                | {method: str(methods[method][figure]) if method in methods else "-" for method in METHODS}
                for name, methods in found.items()
                if methods
            ],
        )


def main(arguments: list[str]) -> None:
    """Measure some tasks, or all."""
    torch.set_num_threads(1)
    if arguments == ["--list"]:
        print("\n".join(TASKS))
    elif arguments == ["--quick"]:
        quick()
    elif arguments == ["--tables"]:
        tables()
    else:
        for name in arguments or TASKS:
            if name not in TASKS:
                sys.exit(f"There is no task {name!r}; choose some of {', '.join(TASKS)}.")
            complete(name)
        tables()


if __name__ == "__main__":
    main(sys.argv[1:])
