"""Deep networks that learn block by block, and other orders than one sweep a batch.

Depth: multilayer perceptrons of 20 layers with weights (19 hidden ones of 128 units) on 20,000 samples of MNIST for
5 epochs, with and without a normalisation after each hidden layer, by tpSGD and by backpropagation.

Order: a perceptron with three hidden layers of 256 units on 10,000 samples of MNIST, all blocks at once for 5 epochs,
and one after the other (`fedtp.schedules.greedy`) for 5 epochs each, so that every block learns from as many batches.

Pipeline: how many times as fast `fedtp.schedules.pipeline` is on 2 threads as `fedtp.TPSGD.step` on one, the median of
9 ratios within one run, for perceptrons of five hidden layers of 512 units. PyTorch has one thread in each. Beside it
is what the machine allows at that moment, measured in turn with it: the same ratio for two threads that have nothing to
do with each other, each multiplying matrices. Where that is near 1 there is no second core to be had, and the
pipeline's ratio says only what its bookkeeping costs.

Accuracies are of the test set. Every method is tuned by the same search: five learning rates with one seed, and further
ones for as long as the best is the smallest or the largest, scored on 5,000 training samples that are held back. Then
it is trained with three seeds at the best of them. All use momentum 0.9 and a learning rate that falls to 0 along a
cosine; one after the other, each block along a cosine of its own. A configuration is written to results/deep/ as it
ends, and a benchmark that was broken off goes on where it stopped. Needs MNIST (FEDTP_DATA).

    python benchmarks/deep.py                       everything, about 10 minutes on one core
    python benchmarks/deep.py depth                 this: depth, order or pipeline
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from statistics import median
from typing import Any

import torch
from adaptors import MOMENTUM, RESULTS, SEEDS, Record, learn, spread
from machine import publish
from peers import Samples, score
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.baselines import Backprop
from fedtp.data import load
from fedtp.models import mlp
from fedtp.schedules import greedy, pipeline

LAYERS = 20
WIDTH = 128
EPOCHS = 5
BATCH = 64
TRAINING = {"depth": 20_000, "order": 10_000}
HELD_BACK = 5000


def deep(*, activation: str, norm: type[nn.Module] | None, seed: int) -> nn.Sequential:
    """Build a perceptron of `LAYERS` layers, with a normalisation before each activation or none."""
    layers: list[nn.Module] = []
    for layer in mlp(784, [WIDTH] * (LAYERS - 1), 10, activation=activation, seed=seed):
        if layers and norm is not None and not isinstance(layer, nn.Linear):
            layers.append(norm(WIDTH))
        layers.append(layer)
    return nn.Sequential(*layers)


NETWORKS: dict[str, Callable[..., nn.Sequential]] = {
    "relu, LayerNorm": partial(deep, activation="relu", norm=nn.LayerNorm),
    "relu, BatchNorm": partial(deep, activation="relu", norm=nn.BatchNorm1d),
    "tanh, no normalisation": partial(deep, activation="tanh", norm=None),
}
Make = Callable[..., Any]
METHODS: dict[str, tuple[Make, tuple[float, ...]]] = {
    "tpSGD, learnt readouts": (partial(TPSGD, seed=7, readout="learnt"), (0.03, 0.1, 0.3, 1.0, 3.0)),
    "backpropagation": (Backprop, (0.001, 0.003, 0.01, 0.03, 0.1)),
}
ORDERS = ("all at once", "one after the other")


@cache
def parts(of: str) -> dict[str, Samples]:
    """Return what is learnt from and scored by."""
    train, test = load("mnist").split(seed=0)  # shuffled alike for everyone
    end = TRAINING[of]
    rows = {"training": train.rows(slice(0, end)), "validation": train.rows(slice(end, end + HELD_BACK)), "test": test}
    return {name: Samples(torch.from_numpy(part.x), torch.from_numpy(part.y)) for name, part in rows.items()}


def row(method: str, lr: float, seed: int, on: str, accuracy: float) -> dict[str, Any]:
    """Return what `Record` keeps."""
    return {"method": method, "lr": lr, "seed": seed, "split": on, "accuracy": round(accuracy, 2)}


def depth() -> None:
    """Measure networks of many layers."""
    record, table = Record(RESULTS / "deep" / "depth.csv"), []
    for network, build in NETWORKS.items():
        for method, (make, rates) in METHODS.items():
            name = f"{method}; {network}"

            def measure(lr: float, seed: int, on: str, name: str = name, build: Make = build, make: Make = make) -> Any:
                model = build(seed=seed)
                optimizer = make(model, lr=lr, momentum=MOMENTUM)
                learn(optimizer, parts("depth")["training"], epochs=EPOCHS, batch=BATCH, lr=lr, seed=seed)
                return row(name, lr, seed, on, score(model, parts("depth")[on]))

            record.complete(name, rates, measure, "accuracy")
            tested = record.tested(name, "accuracy")
            table.append({"network": network, "method": method} | summary(tested))
    publish("deep", f"{LAYERS} layers on MNIST: test accuracy in % after {EPOCHS} epochs, three seeds", table)


def order() -> None:
    """Measure blocks that learn one after the other."""
    record, table = Record(RESULTS / "deep" / "order.csv"), []
    for name in ORDERS:

        def measure(lr: float, seed: int, on: str, name: str = name) -> dict[str, Any]:
            model = mlp(784, [256] * 3, 10, seed=seed)
            optimizer = TPSGD(model, seed=7, lr=lr, momentum=MOMENTUM, readout="learnt")
            training = parts("order")["training"]
            if name == "all at once":
                learn(optimizer, training, epochs=EPOCHS, batch=BATCH, lr=lr, seed=seed)
            else:
                greedy(optimizer, EPOCHS, lambda epoch: epoch_of(optimizer, training, epoch, lr, seed))
            return row(name, lr, seed, on, score(model, parts("order")[on]))

        record.complete(name, METHODS["tpSGD, learnt readouts"][1], measure, "accuracy")
        table.append({"order": name} | summary(record.tested(name, "accuracy")))
    publish("deep_order", f"784-256-256-256-10 on MNIST: test accuracy in %, {EPOCHS} epochs a block", table)


def epoch_of(optimizer: TPSGD, samples: Samples, epoch: int, lr: float, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch, each at its learning rate."""
    count = -(-len(samples.y) // BATCH)
    generator = torch.Generator().manual_seed(seed * EPOCHS + epoch)
    for number, batch in enumerate(samples.batches(BATCH, generator)):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * (epoch + number / count) / EPOCHS))
        yield batch.x, batch.y


def summary(rows: list[dict[str, str]]) -> dict[str, str]:
    """Return the columns of three seeds."""
    assert len(rows) == len(SEEDS)
    return {"lr": rows[0]["lr"], "accuracy": spread([float(row["accuracy"]) for row in rows], 2)}


def pipelined() -> None:
    """Measure a pipeline of two threads against one sweep after the other."""
    table = []
    for size in (64, 256, 1024):
        generator = torch.Generator().manual_seed(0)
        count = max(8, 20_000 // size)
        batches = [
            (torch.randn(size, 512, generator=generator), torch.randint(10, (size,), generator=generator))
            for _ in range(count)
        ]
        sweeping, piping = (TPSGD(mlp(512, [512] * 5, 10, activation="relu"), seed=7, lr=0.01) for _ in range(2))
        ratios, allowed = [], []
        for _ in range(9):
            start = time.perf_counter()
            for x, y in batches:
                sweeping.step(x, y)
            middle = time.perf_counter()
            pipeline(piping, batches, threads=2)
            ratios.append((middle - start) / (time.perf_counter() - middle))
            allowed.append(of_independent_threads(batches[0][0], count))
        table.append(
            {
                "batch": size,
                "pipeline, times as fast": round(median(ratios), 2),
                "slowest": round(min(ratios), 2),
                "fastest": round(max(ratios), 2),
                "independent threads, times as fast": round(median(allowed), 2),
            }
        )
    publish("deep_pipeline", "A pipeline of 2 threads over one sweep after the other, 512-512x5-10", table)


def of_independent_threads(x: Tensor, count: int) -> float:
    """Return how many times as fast two threads do twice some matrix products as one does them."""
    weight = torch.randn(512, 512)

    def work(_: int) -> None:
        for _ in range(count * 5):
            x @ weight

    with ThreadPoolExecutor(2) as pool:
        start = time.perf_counter()
        work(0)
        work(1)
        middle = time.perf_counter()
        list(pool.map(work, range(2)))
        return (middle - start) / (time.perf_counter() - middle)


PARTS = {"depth": depth, "order": order, "pipeline": pipelined}


def main(arguments: list[str]) -> None:
    """Measure some parts, or all."""
    torch.set_num_threads(1)
    for name in arguments or PARTS:
        if name not in PARTS:
            sys.exit(f"There is no part {name!r}; choose some of {', '.join(PARTS)}.")
        PARTS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
