"""What adaptors win back of the accuracy that a domain shift costs a frozen network.

A multilayer perceptron with one hidden layer of 1,000 units is trained by tpSGD; then the domain shifts, and adaptors
in the frozen network learn from a few samples of the new domain. Beside them: only the last block, and all blocks,
trained further by tpSGD; and each of these by backpropagation. Won back is (adapted - shifted) / (original - shifted):
the accuracy of the network on the unshifted test set (original), on the shifted one (shifted), and there after it has
learnt from shifted samples (adapted).

Three shifts: MNIST turned by 45 degrees; MNIST inverted (20,000 training samples, then 4,000 others, shifted, for 5
epochs); spoken digits of a speaker whom the network never heard, each of the six in turn (the five others' 2,000
recordings, then 200 of the new speaker's, for 20 epochs; 250 others are the shifted test set; all accuracies are means
over the six). A recording is 20 frames of 40 mel bands, each the mean over a twentieth of it.

Readouts learn, and adaptation goes on from those of the network. Every method, the network itself included, is tuned by
the same search: five learning rates with one seed, and further ones for as long as the best is the smallest or the
largest, scored on samples that are held back. Then it is trained with three seeds at the best of them. All use momentum
0.9 and a learning rate that falls to 0 along a cosine. A configuration is written to results/adaptors/<shift>.csv as it
ends, and a benchmark that was broken off goes on where it stopped. Needs MNIST and the spoken digits (FEDTP_DATA).

    python benchmarks/adaptors.py                   every shift, about 10 minutes on one core
    python benchmarks/adaptors.py inverted          these
    python benchmarks/adaptors.py --tables          the table of what has been measured
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from machine import RESULTS, append_row, publish, read_rows
from peers import Samples, score
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.adaptors import adapt
from fedtp.baselines import Backprop
from fedtp.data import DataSet, load
from fedtp.data.concepts import Rotation, apply
from fedtp.models import mlp

SEEDS = (0, 1, 2)
TUNING_SEED = 3
MOMENTUM = 0.9
MOST_RATES = 9
HIDDEN = 1000
DEGREES = 45.0
FRAMES = 20

NETWORK = "the network itself"
NETWORK_RATES = (0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Method:
    """What learns in the new domain, by what, and the learning rates to try first."""

    part: str
    rule: str
    rates: tuple[float, ...]

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.part}, {self.rule}"


METHODS = {
    method.name: method
    for method in (
        Method("scale-shift", "tpSGD", (0.03, 0.1, 0.3, 1.0, 3.0)),
        Method("bottleneck", "tpSGD", (0.003, 0.01, 0.03, 0.1, 0.3)),
        Method("low-rank", "tpSGD", (0.1, 0.3, 1.0, 3.0, 10.0)),
        Method("last block", "tpSGD", (0.03, 0.1, 0.3, 1.0, 3.0)),
        Method("all blocks", "tpSGD", (0.03, 0.1, 0.3, 1.0, 3.0)),
        Method("scale-shift", "backpropagation", (0.003, 0.01, 0.03, 0.1, 0.3)),
        Method("bottleneck", "backpropagation", (0.001, 0.003, 0.01, 0.03, 0.1)),
        Method("low-rank", "backpropagation", (0.001, 0.003, 0.01, 0.03, 0.1)),
        Method("last block", "backpropagation", (0.003, 0.01, 0.03, 0.1, 0.3)),
        Method("all blocks", "backpropagation", (0.001, 0.003, 0.01, 0.03, 0.1)),
    )
}
#: Units of the bottleneck and rank of the change that keep to 5 % of the weights.
SIZES = {"bottleneck": 16, "low-rank": 12}


@dataclass(frozen=True)
class Domain:
    """What a network learns first, and what it meets afterwards."""

    training: Samples
    held_back: Samples
    test: Samples
    shifted_training: Samples
    shifted_held_back: Samples
    shifted_test: Samples

    @property
    def features(self) -> int:
        """Numbers of a sample."""
        return self.training.x.shape[-1]


@dataclass(frozen=True)
class Shift:
    """Domains over which accuracies are averaged, and for how long is learnt."""

    domains: Callable[[], list[Domain]]
    epochs: int
    shifted_epochs: int
    batch: int


def mnist(shift: Callable[[DataSet], DataSet]) -> list[Domain]:
    """Return MNIST and MNIST shifted, of which no sample is learnt from twice."""
    train, test = load("mnist").split(seed=0)  # shuffled alike for everyone
    parts = [train.rows(slice(*ends)) for ends in ((0, 20_000), (20_000, 25_000))]
    shifted = [shift(train.rows(slice(*ends))) for ends in ((25_000, 29_000), (29_000, 34_000))]
    return [Domain(*map(_samples, [*parts, test, *shifted, shift(test)]))]


def turned(data: DataSet) -> DataSet:
    """Turn the digits."""
    return apply(Rotation(degrees=DEGREES), data)


def inverted(data: DataSet) -> DataSet:
    """Make black white, and white black."""
    low, high = data.x.min(), data.x.max()
    return DataSet(data.name, low + high - data.x, data.y, data.classes, data.shape, data.feature_names)


def _samples(data: DataSet) -> Samples:
    return Samples(torch.from_numpy(data.x), torch.from_numpy(data.y))


def speakers() -> list[Domain]:
    """Return, for each speaker, the others' recordings and this one's."""
    data = load("spoken-digits")
    x, y, groups = _in_few_frames(data), torch.from_numpy(data.y), np.array(data.groups)
    published_test = np.arange(len(data)) >= len(data) - data.test_rows
    shuffled = np.random.default_rng(0).permutation(len(data))
    domains = []
    for speaker in sorted(set(data.groups)):
        new = shuffled[groups[shuffled] == speaker]
        others = shuffled[(groups[shuffled] != speaker) & ~published_test[shuffled]]
        test = shuffled[(groups[shuffled] != speaker) & published_test[shuffled]]
        parts = (others[:-250], others[-250:], test, new[:200], new[200:250], new[250:])
        domains.append(Domain(*(Samples(x[rows], y[rows]) for rows in map(torch.from_numpy, parts))))
    return domains


def _in_few_frames(data: DataSet) -> Tensor:
    """Return sequences of any length as vectors of one length: means over equal parts of them."""
    assert data.lengths is not None
    x = data.x.reshape(-1, *data.shape)
    vectors = np.empty((len(x), FRAMES, data.shape[1]), np.float32)
    for vector, sequence, length in zip(vectors, x, data.lengths, strict=True):
        ends = np.linspace(0, length, FRAMES + 1)
        for frame, (start, end) in enumerate(zip(ends[:-1].astype(int), np.ceil(ends[1:]).astype(int), strict=True)):
            vector[frame] = sequence[start:end].mean(0)
    return torch.from_numpy(vectors.reshape(len(x), -1))


SHIFTS = {
    "turned": Shift(partial(mnist, turned), 5, 5, 64),
    "inverted": Shift(partial(mnist, inverted), 5, 5, 64),
    "speaker": Shift(speakers, 8, 20, 32),
}


def learn(optimizer: Any, samples: Samples, *, epochs: int, batch: int, lr: float, seed: int) -> None:
    """Learn with a rate that falls to 0 along a cosine."""
    generator = torch.Generator().manual_seed(seed)
    for share, part in _steps(samples, epochs, batch, generator):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * share))
        optimizer.step(part.x, part.y)


def _steps(samples: Samples, epochs: int, batch: int, generator: torch.Generator) -> Iterator[tuple[float, Samples]]:
    """Yield every batch, and what share of all went before it."""
    total, done = epochs * -(-len(samples.y) // batch), 0
    for _ in range(epochs):
        for part in samples.batches(batch, generator):
            yield done / total, part
            done += 1


@cache
def trained(shift: str, number: int, lr: float, seed: int) -> tuple[nn.Sequential, TPSGD]:
    """Train the network on the domain before the shift."""
    task, domain = SHIFTS[shift], domains_of(shift)[number]
    model = mlp(domain.features, [HIDDEN], 10, seed=seed)
    optimizer = TPSGD(model, seed=7, lr=lr, momentum=MOMENTUM, readout="learnt")
    learn(optimizer, domain.training, epochs=task.epochs, batch=task.batch, lr=lr, seed=seed)
    return model, optimizer


@cache
def domains_of(shift: str) -> list[Domain]:
    """Load the data once."""
    return SHIFTS[shift].domains()


def adapted(method: Method, model: nn.Sequential, seed: int) -> nn.Sequential:
    """Return a copy of the network in which only what the method trains asks for a gradient."""
    if method.part in ("scale-shift", "bottleneck", "low-rank"):
        return adapt(model, method.part, size=SIZES.get(method.part, 1), seed=seed)
    twin = copy.deepcopy(model)
    if method.part == "last block":
        twin[:-1].requires_grad_(False)
    return twin


def optimizer_for(method: Method, model: nn.Sequential, lr: float, base: TPSGD) -> Any:
    """Return what trains an adapted network; tpSGD goes on with the readouts that the network learnt."""
    if method.rule == "backpropagation":
        return Backprop(model, lr=lr, momentum=MOMENTUM)
    optimizer = TPSGD(model, seed=7, lr=lr, momentum=MOMENTUM, readout="learnt")
    learnt = base.learnt_readouts()
    for name, matrix in optimizer.learnt_readouts().items():
        matrix.copy_(learnt[name])
    return optimizer


def share(model: nn.Sequential, parts: nn.Sequential) -> float:
    """Return how many weights learn, in % of the network's."""
    learning = sum(p.numel() for p in parts.parameters() if p.requires_grad)
    return 100 * learning / sum(p.numel() for p in model.parameters())


def run(shift: str, name: str, lr: float, seed: int, network_lr: float, on: str) -> dict[str, Any]:
    """Train once in every domain, and return the mean accuracies."""
    task, measured = SHIFTS[shift], []
    for number, domain in enumerate(domains_of(shift)):
        model, base = trained(shift, number, lr if name == NETWORK else network_lr, seed)
        ends = domain.held_back if on == "validation" else domain.test
        shifted_ends = domain.shifted_held_back if on == "validation" else domain.shifted_test
        original, shifted = score(model, ends), score(model, shifted_ends)
        after, weights = shifted, 0.0
        if name != NETWORK:
            twin = adapted(METHODS[name], model, seed)
            optimizer = optimizer_for(METHODS[name], twin, lr, base)
            learn(optimizer, domain.shifted_training, epochs=task.shifted_epochs, batch=task.batch, lr=lr, seed=seed)
            after, weights = score(twin, shifted_ends), share(model, twin)
        measured.append((original, shifted, after, weights))
    original, shifted, after, weights = (round(mean(column), 3) for column in zip(*measured, strict=True))
    return {
        "method": name,
        "lr": lr,
        "seed": seed,
        "split": on,
        "original": original,
        "shifted": shifted,
        "adapted": after,
        "weights_percent": weights,
    }


class Record:
    """Configurations that have been measured, in a file that grows by a line as each ends.

    Parameters
    ----------
    file
        CSV, with columns ``method``, ``lr``, ``seed``, ``split`` and what was measured.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows = read_rows(file)

    def of(self, method: str, on: str) -> list[dict[str, str]]:
        """Return the rows of a method on a part of the data."""
        return [row for row in self.rows if row["method"] == method and row["split"] == on]

    def tested(self, method: str, by: str) -> list[dict[str, str]]:
        """Return the rows of the test set at the learning rate that the search chose."""
        if not self.of(method, "validation"):
            return []
        best = self.best_lr(method, by)
        return [row for row in self.of(method, "test") if float(row["lr"]) == best]

    def keep(self, row: dict[str, Any]) -> None:
        """Write down a configuration."""
        append_row(self.file, row)
        self.rows.append({key: str(value) for key, value in row.items()})

    def best_lr(self, method: str, by: str) -> float:
        """Return the learning rate that the search chose."""
        return float(max(self.of(method, "validation"), key=lambda row: float(row[by]))["lr"])

    def complete(
        self, method: str, rates: Sequence[float], measure: Callable[[float, int, str], dict[str, Any]], by: str
    ) -> None:
        """Run what of a search and its three seeds has not been measured yet.

        Parameters
        ----------
        method, rates
            Its name and the learning rates to try first.
        measure
            From a learning rate, a seed and a part of the data to a row.
        by
            The column to choose a learning rate by.
        """
        while (lr := self._untried(method, rates, by)) is not None:
            self._measure(method, measure, lr, TUNING_SEED, "validation", by)
        best = self.best_lr(method, by)
        done = {row["seed"] for row in self.tested(method, by)}
        for seed in SEEDS:
            if str(seed) not in done:
                self._measure(method, measure, best, seed, "test", by)

    def _untried(self, method: str, rates: Sequence[float], by: str) -> float | None:
        """Return the next learning rate of a search, which goes on for as long as the best is the first or the last."""
        tried = sorted(float(row["lr"]) for row in self.of(method, "validation"))
        for lr in rates:
            if lr not in tried:
                return lr
        best = self.best_lr(method, by)
        if best not in (tried[0], tried[-1]) or len(tried) == MOST_RATES:
            return None
        return _beyond(best, up=best == tried[-1])

    def _measure(
        self, method: str, measure: Callable[[float, int, str], dict[str, Any]], lr: float, seed: int, on: str, by: str
    ) -> None:
        row = measure(lr, seed, on)
        self.keep(row)
        print(self.file.stem, method, f"lr {lr:g} seed {seed} {on}: {row[by]} %", flush=True)


def _beyond(lr: float, *, up: bool) -> float:
    """Return the next of ... 0.1, 0.3, 1, 3 ..., upwards or downwards."""
    mantissa, exponent = f"{lr:.0e}".split("e")
    ones = mantissa == "1"
    return float(f"{3 if ones else 1}e{int(exponent) + (up and not ones) - (not up and ones)}")


def record(shift: str) -> Record:
    """Return what has been measured of a shift."""
    return Record(RESULTS / "adaptors" / f"{shift}.csv")


def complete(shift: str) -> None:
    """Run what of a shift has not been measured yet."""
    notes = record(shift)
    notes.complete(NETWORK, NETWORK_RATES, lambda lr, seed, on: run(shift, NETWORK, lr, seed, lr, on), "original")
    network_lr = notes.best_lr(NETWORK, "original")
    for name, method in METHODS.items():

        def measure(lr: float, seed: int, on: str, name: str = name) -> dict[str, Any]:
            return run(shift, name, lr, seed, network_lr, on)

        notes.complete(name, method.rates, measure, "adapted")


def won_back(row: dict[str, str]) -> float:
    """Return what share of the loss was won back, in %."""
    original, shifted, after = (float(row[key]) for key in ("original", "shifted", "adapted"))
    return 100 * (after - shifted) / (original - shifted)


def spread(values: list[float], digits: int) -> str:
    """Return a mean and standard deviation."""
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def tables() -> None:
    """Publish the methods whose three seeds are there."""
    table = []
    for shift in SHIFTS:
        notes = record(shift)
        for method in (NETWORK, *METHODS):
            rows = notes.tested(method, "original" if method == NETWORK else "adapted")
            if len(rows) < len(SEEDS):
                continue
            table.append(
                {
                    "shift": shift,
                    "what learns": "nothing" if method == NETWORK else method,
                    "weights that learn, %": f"{float(rows[0]['weights_percent']):.2f}",
                    "lr": "" if method == NETWORK else rows[0]["lr"],
                    "original": f"{mean(float(row['original']) for row in rows):.1f}",
                    "shifted": f"{mean(float(row['shifted']) for row in rows):.1f}",
                    "adapted": spread([float(row["adapted"]) for row in rows], 1),
                    "won back, %": spread([won_back(row) for row in rows], 0),
                }
            )
    if table:
        publish("adaptors", "Adaptors under domain shift: test accuracy in %, three seeds", table)


def main(arguments: list[str]) -> None:
    """Measure some shifts, or all."""
    torch.set_num_threads(1)
    if arguments != ["--tables"]:
        for shift in arguments or SHIFTS:
            if shift not in SHIFTS:
                sys.exit(f"There is no shift {shift!r}; choose some of {', '.join(SHIFTS)}.")
            complete(shift)
    tables()


if __name__ == "__main__":
    main(sys.argv[1:])
