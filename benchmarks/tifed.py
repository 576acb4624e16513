"""TIFeD's set-up: eight devices, MNIST as a stream in buffers of 50 that are seen once, and a network 784-200-10.

TIFeD ("a Tiny Integer-based Federated learning algorithm with Direct feedback alignment", arXiv 2411.16442) trains on
each device the whole network, or one layer of it. Here the same stream (60,000 images dealt out at random, 5 passes
over each buffer, aggregation after it) is learnt from in float32, by tpSGD, DFA and backpropagation. Accuracy is that
on the test set at the end of the stream.

    python benchmarks/tifed.py            five seeds of every method, at the settings that the search found
    python benchmarks/tifed.py tune       the search, scored on 10,000 training images that are held back
    python benchmarks/tifed.py levers     what each setting gives, on the same images, three seeds

Ten, thirty and ten minutes on one core. Trials that the file of results holds already are not made again, so that a
search that was broken off goes on where it stopped. Needs MNIST (FEDTP_DATA).
"""

from __future__ import annotations

import statistics
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import typer
from machine import RESULTS, append_row, machine, publish, read_rows

from fedtp.data import load
from fedtp.data.mnist import MEAN, SPREAD
from fedtp.errors import DataError
from simulations import Run, Scenario, simulate

DEVICES, BUFFER, HELD_BACK = 8, 50, 10_000
SEEDS, TUNING_SEED, LEVER_SEEDS = range(5), 100, range(100, 103)
TRIALS = RESULTS / "tifed_tuning.csv"

SCENARIO = f"""
title = "A stream that is seen once"
[data]
name = "mnist"
[arrival]
samples_per_order = {BUFFER}
[learner]
hidden = [200]
epochs = 5
detector = "none"
[server]
round_seconds = 300
strategy = "FedAvgM"
"""
#: Who trains what: a microcontroller of 256 KB has memory for training the output layer, and not the hidden one.
FLEETS = {
    "whole network": f"""
[[devices]]
class = "pi"
count = {DEVICES}
""",
    "one layer": f"""
[[devices]]
class = "pi"
plan = "first"
count = {DEVICES // 2}
[[devices]]
class = "mcu"
count = {DEVICES // 2}
""",
}
#: What TIFeD reports.
PUBLISHED = {"whole network": "92.92 ± 0.25", "one layer": "90.51 ± 0.55"}
#: Each method, and the learning rates that its search begins with.
METHODS: dict[str, tuple[dict[str, object], tuple[float, ...]]] = {
    "tpSGD, shared readouts": ({"readout": "shared", "normalize": False}, (0.025, 0.05, 0.1, 0.2)),
    "tpSGD, fixed readouts": ({}, (0.5, 1.0, 2.0, 4.0)),
    "DFA": ({"method": "dfa"}, (0.0125, 0.025, 0.05, 0.1)),
    "backpropagation": ({"method": "backprop"}, (0.025, 0.05, 0.1, 0.2)),
}
# Backpropagation trains the whole network or nothing.
RUNS = [each for each in product(FLEETS, METHODS) if each != ("one layer", "backpropagation")]


@dataclass(frozen=True)
class Choice:
    """What the search chooses; it begins with this smoothing and this activation."""

    lr: float
    server_momentum: float
    label_smoothing: float = 0.1
    activation: str = "relu"


#: What the search tries of each setting; of the learning rate, half and twice the best.
SETTINGS: dict[str, tuple[Any, ...]] = {
    "server_momentum": (0.0, 0.5, 0.8, 0.9),
    "label_smoothing": (0.0, 0.1, 0.2, 0.3),
    "activation": ("relu", "tanh"),
    "lr": (),
}


def run(fleet: str, method: str, choice: Choice, seed: int, *, held_back: Path | None = None, passes: int = 5) -> Run:
    """Simulate a stream, of all training images or, with a folder that `holding_back` made, of the others."""
    settings, _ = METHODS[method]
    images = 60_000 if held_back is None else 60_000 - HELD_BACK
    overrides = {
        **{f"learner.{key}": value for key, value in settings.items()},
        "learner.lr": choice.lr,
        "learner.label_smoothing": choice.label_smoothing,
        "learner.activation": choice.activation,
        "learner.epochs": passes,
        "server.strategy_options.server_momentum": choice.server_momentum,
        "server.rounds": images // (DEVICES * BUFFER),
        **({} if held_back is None else {"data.path": held_back}),
    }
    texts = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in overrides.items()]
    done = simulate(Scenario.from_toml(SCENARIO + FLEETS[fleet], texts, seed))
    if done.summary["updates_accepted"] != done.summary["client_rounds"]:
        raise RuntimeError("A report was late or refused: this is not the comparison that is meant.")
    return done


def percent(done: Run) -> float:
    """Return the accuracy at the end of the stream."""
    return round(100 * float(done.summary["final_accuracy"]), 2)


@contextmanager
def holding_back() -> Iterator[Path]:
    """Make a folder like MNIST's from the training images alone: some of them are its test set."""
    data = load("mnist")
    train, _ = data.split_rows(seed=TUNING_SEED)
    pixels = np.rint((data.x[train] * SPREAD + MEAN) * 255).astype(np.uint8).reshape(-1, *data.shape)
    labels = data.y[train].astype(np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, rows in (("train", slice(HELD_BACK, None)), ("t10k", slice(HELD_BACK))):
            for kind, values in (("images-idx3", pixels[rows]), ("labels-idx1", labels[rows])):
                header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
                (folder / f"{part}-{kind}-ubyte").write_bytes(header + values.tobytes())
        yield folder


def trials(fleet: str, method: str) -> dict[Choice, float]:
    """Return the choices that have been tried, with their accuracies on the images that are held back."""
    found = {}
    for row in read_rows(TRIALS):
        if (row["fleet"], row["method"]) == (fleet, method):
            numbers = (float(row[key]) for key in ("lr", "server_momentum", "label_smoothing"))
            found[Choice(*numbers, row["activation"])] = float(row["accuracy"])
    return found


def best(fleet: str, method: str) -> Choice:
    """Return the choice that the search ended with."""
    tried = trials(fleet, method)
    if not tried:
        sys.exit(f"{TRIALS} holds no trial of {method}, {fleet}: search first, with tune.")
    return max(tried, key=tried.__getitem__)


def attempt(fleet: str, method: str, choice: Choice, held_back: Path) -> None:
    """Try a choice and write down how it went, unless it has been tried."""
    if choice not in trials(fleet, method):
        accuracy = percent(run(fleet, method, choice, TUNING_SEED, held_back=held_back))
        row = {"fleet": fleet, "method": method, **asdict(choice), "accuracy": accuracy, "machine": machine()}
        append_row(TRIALS, row)


def tune() -> None:
    """Search one setting after another, again and again until none gets better: the same for every method."""
    with holding_back() as folder:
        for fleet, method in RUNS:
            _, rates = METHODS[method]
            for lr, momentum in product(rates, (0.5, 0.8)):
                attempt(fleet, method, Choice(lr, momentum), folder)
            start = None
            while start != (start := best(fleet, method)):
                for name, values in SETTINGS.items():
                    found = best(fleet, method)
                    for value in values or (found.lr / 2, found.lr * 2):
                        attempt(fleet, method, replace(found, **{name: value}), folder)
            print(fleet, method, best(fleet, method), max(trials(fleet, method).values()))


def levers() -> None:
    """Take the settings away, one at a time."""
    rows = []
    with holding_back() as folder:
        for fleet, method in RUNS:
            if method != "DFA":
                chosen = best(fleet, method)
                variants: dict[str, tuple[Choice, int]] = {
                    "as found": (chosen, 5),
                    "no label smoothing": (replace(chosen, label_smoothing=0.0), 5),
                    "no momentum on the server": (replace(chosen, server_momentum=0.0), 5),
                    "one pass over a buffer": (chosen, 1),
                }
                row: dict[str, object] = {"trained": fleet, "method": method}
                for name, (choice, passes) in variants.items():
                    found = [run(fleet, method, choice, s, held_back=folder, passes=passes) for s in LEVER_SEEDS]
                    row[name] = _mean(found)
                rows.append(row)
    publish("tifed_levers", f"accuracy in % on {HELD_BACK:,} training images that are held back", rows)


def compare() -> None:
    """Run every method at its best, with five seeds."""
    rows = []
    for fleet, method in RUNS:
        choice = best(fleet, method)
        done = [run(fleet, method, choice, seed) for seed in SEEDS]
        rows.append(
            {
                "trained": fleet,
                "method": method,
                **asdict(choice),
                "seeds": len(done),
                "accuracy": _mean(done),
                "TIFeD": PUBLISHED[fleet],
                "MB_up": round(done[0].summary["bytes_up"] / 1e6, 1),
                "peak_KB": round(done[0].summary["peak_bytes"] / 1024),
            }
        )
    publish("tifed", "accuracy in % on the test set at the end of the stream", rows)


def _mean(runs: list[Run]) -> str:
    values = [percent(done) for done in runs]
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def main(what: str = typer.Argument("compare", help="compare, tune or levers")) -> None:
    """Compare, search, or take settings away."""
    commands = {"compare": compare, "tune": tune, "levers": levers}
    if what not in commands:
        sys.exit(f'"{what}" is not one of {", ".join(commands)}.')
    try:
        commands[what]()
    except DataError as error:
        sys.exit(f"Without MNIST there is nothing to compare: {error}.")


if __name__ == "__main__":
    typer.run(main)
