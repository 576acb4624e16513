"""Test errors of the baselines beside those that DRTP's authors published for the same network.

784-500-10 on MNIST: tanh hidden units, sigmoid outputs with binary cross-entropy, momentum 0.9, batches of 100, all
60,000 training images, 100 epochs at one learning rate; pixels from 0 to 1; weights as PyTorch draws them. The error is
the mean over the last 10 epochs, as in the paper. The learning rate is the best of five after 5 epochs, on 5,000
training images that are held back; the test set chooses nothing. Published: Frenkel, Lefebvre, Bol, "Learning without
feedback", arXiv 1909.01311, means of 10 trials.

What differs from the paper: its momentum is Nesterov's; its fixed random matrices are uniform, ours normal, with the
same variance (2 / features; for FA 2 / fan-in); its learning rates are its own. And where it feeds errors or labels
back directly, its code adds them up over the batch for the hidden layer but averages the output layer's gradient over
batch and outputs, so that its hidden layer takes steps 1,000 times as large beside those of the output layer. Here both
average over the batch.

A configuration is written to results/published/runs.csv as it ends, and a benchmark that was broken off goes on where
it stopped. Needs MNIST (FEDTP_DATA).

    python benchmarks/published.py                three seeds, about half an hour
    python benchmarks/published.py --seeds 1      ten minutes
    python benchmarks/published.py --seeds 0      the table of what has been measured
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any

import torch
import typer
from machine import RESULTS, append_row, publish, read_rows
from torch import Tensor

from fedtp.baselines import Backprop, DirectFeedback, FeedbackAlignment
from fedtp.data import load
from fedtp.data.mnist import MEAN, SPREAD
from fedtp.models import mlp

RUNS = RESULTS / "published" / "runs.csv"
FIELDS = ("method", "lr", "seed", "split", "error", "curve")
EPOCHS, TUNING_EPOCHS, AVERAGED = 100, 5, 10
TUNING_SEED = 3
HELD_BACK = 5000
SAME = {"loss": "binary_cross_entropy", "momentum": 0.9}


@dataclass(frozen=True)
class Method:
    """How a network is trained, and the test error that was published for it."""

    optimizer: Callable[..., Any]
    rates: tuple[float, ...]
    published: float


METHODS = {
    "backpropagation": Method(Backprop, (0.003, 0.01, 0.03, 0.1, 0.3), 1.72),
    "FA": Method(partial(FeedbackAlignment, seed=7), (0.003, 0.01, 0.03, 0.1, 0.3), 1.92),
    "DFA": Method(partial(DirectFeedback, method="dfa", seed=7), (0.003, 0.01, 0.03, 0.1, 0.3), 2.59),
    "DRTP": Method(partial(DirectFeedback, method="drtp", seed=7), (0.003, 0.01, 0.03, 0.1, 0.3), 4.58),
}


@dataclass(frozen=True)
class Samples:
    """Images and their classes."""

    x: Tensor
    y: Tensor


def samples() -> tuple[Samples, Samples]:
    """Return what is learnt from, and the test set; pixels from 0 to 1."""
    parts = [
        Samples((torch.from_numpy(part.x) * SPREAD + MEAN).clamp_(0, 1), torch.from_numpy(part.y))
        for part in load("mnist").split()
    ]
    return parts[0], parts[1]


def run(method: Method, lr: float, seed: int, learnt: Samples, scored: Samples, epochs: int) -> list[float]:
    """Train once, and return the error after every epoch, in %."""
    model = mlp(784, [500], 10, seed=seed)
    optimizer = method.optimizer(model, lr=lr, **SAME)
    generator = torch.Generator().manual_seed(seed)
    curve = []
    for _ in range(epochs):
        for rows in torch.randperm(len(learnt.y), generator=generator).split(100):
            optimizer.step(learnt.x[rows], learnt.y[rows])
        with torch.no_grad():
            curve.append(100 * (model(scored.x).argmax(1) != scored.y).double().mean().item())
    return curve


def complete(name: str, lr: float, seed: int, split: str, learnt: Samples, scored: Samples) -> None:
    """Measure a configuration, unless it has been."""
    key = (name, str(lr), str(seed), split)
    if key in {(row["method"], row["lr"], row["seed"], row["split"]) for row in read_rows(RUNS)}:
        return
    epochs, averaged = (EPOCHS, AVERAGED) if split == "test" else (TUNING_EPOCHS, 1)
    curve = run(METHODS[name], lr, seed, learnt, scored, epochs)
    error = mean(curve[-averaged:])
    append_row(
        RUNS,
        dict(zip(FIELDS, key, strict=False))
        | {
            "error": round(error, 3),
            "curve": " ".join(f"{value:.2f}" for value in curve),
        },
    )
    print(name, f"lr {lr:g} seed {seed} {split}: {error:.2f} %", flush=True)


def best_lr(name: str) -> float:
    """Return the learning rate that the search chose."""
    tried = [row for row in read_rows(RUNS) if row["method"] == name and row["split"] == "validation"]
    return float(min(tried, key=lambda row: float(row["error"]))["lr"])


def table() -> None:
    """Publish the methods that have been scored on the test set."""
    rows: list[dict[str, object]] = []
    for name, method in METHODS.items():
        tested = [row for row in read_rows(RUNS) if row["method"] == name and row["split"] == "test"]
        if tested:
            errors = [float(row["error"]) for row in tested]
            spread = f" ± {stdev(errors):.2f}" if len(errors) > 1 else ""
            rows.append(
                {
                    "method": name,
                    "lr": tested[0]["lr"],
                    "seeds": len(tested),
                    "test error": f"{mean(errors):.2f}{spread}",
                    "published": f"{method.published:.2f}",
                }
            )
    if rows:
        publish("published", f"784-500-10 on MNIST, {EPOCHS} epochs: test error in % beside the published one", rows)


def main(seeds: int = 3) -> None:
    """Tune the methods, then train each with `seeds` seeds on all training images."""
    torch.set_num_threads(1)
    if seeds:
        training, test = samples()
        kept = len(training.y) - HELD_BACK
        learnt = Samples(training.x[:kept], training.y[:kept])
        held_back = Samples(training.x[kept:], training.y[kept:])
        for name, method in METHODS.items():
            for lr in method.rates:
                complete(name, lr, TUNING_SEED, "validation", learnt, held_back)
        for seed in range(seeds):
            for name in METHODS:
                complete(name, best_lr(name), seed, "test", training, test)
    table()


if __name__ == "__main__":
    typer.run(main)
