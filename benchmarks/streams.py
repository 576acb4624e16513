"""tpSGD on streams beside River's classifiers and the same network trained by backpropagation: prequential accuracy.

    python benchmarks/streams.py                everything, about half an hour on one core
    python benchmarks/streams.py tune           learning rates of both networks on other streams
    python benchmarks/streams.py paces          how many copies of the network, and how fast, on those streams
    python benchmarks/streams.py peers          every model with three seeds, accuracy, recovery and CPU time
    python benchmarks/streams.py late           Elec2 with labels that come 48 rows late
    python benchmarks/streams.py rates          accuracy against the learning rate
    python benchmarks/streams.py grid           the best of a small grid, chosen in hindsight
    python benchmarks/streams.py tables         what has been measured

The four streams are ``elec2``, ``rbf-incremental``, ``rbf-abrupt`` and ``sea-abrupt`` of `fedtp.streaming.studies`. A
seed draws other samples of a generator and other weights; Elec2 is what it is. All models run in one loop in one
process and one thread. Defaults were chosen on other streams, those of ``tune``. A run is written to results/streams/
as it ends, and a benchmark that was broken off goes on where it stopped. Elec2 is found through RIVER_DATA. deep-river
cannot be installed beside River 0.26: streams_deep_river.py adds its rows from an environment of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from statistics import mean, stdev
from typing import Any

import numpy as np
from machine import RESULTS, append_row, publish, read_rows
from river.base import Classifier

from fedtp.streaming import TPClassifier
from fedtp.streaming.features import Features
from fedtp.streaming.studies import Protocol, open_source, prequential
from fedtp.streaming.studies.models import models_of, suited

RUNS = RESULTS / "streams"
STREAMS = ("elec2", "rbf-incremental", "rbf-abrupt", "sea-abrupt")
SEEDS = (1, 2, 3)
#: Where defaults are chosen: other generators, other concepts and seeds, other data.
TUNING = (
    "random-rbf-drift(seed_model=7, n_features=8, n_classes=5)",
    "random-rbf-drift(seed_model=8, n_classes=6, change_speed=0.002)",
    "hyperplane(mag_change=0.001, n_drift_features=5)",
    "led-drift",
    "waveform",
    "sine",
    "mixed",
    "agrawal",
    "random-tree",
    "image-segments",
    "phishing",
    "shuttle",
)
TUNING_SEED = 5
RATES = {
    "tpSGD": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    "backpropagation": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
}


PACES = ((1.0,), (0.3,), (0.1,), (0.03,), (1.0, 0.1), (1.0, 0.3, 0.05), (1.0, 0.3, 0.1, 0.03), (2.0, 1.0, 0.5))


class Backprop(Classifier):  # type: ignore[misc]
    """A multilayer perceptron with 64 tanh units trained by plain backpropagation, one sample at a time."""

    def __init__(self, lr: float = 0.03, hidden: int = 64, seed: int = 0) -> None:
        self.lr, self.hidden, self.seed = lr, hidden, seed
        self.rng = np.random.default_rng(seed)
        self.features = Features()
        self.classes: list[Any] = []
        self.W, self.b = np.zeros((hidden, 0)), np.zeros(hidden)
        self.V, self.c = np.zeros((0, hidden)), np.zeros(0)

    @property
    def _multiclass(self) -> bool:
        return True

    def _pass(self, values: Any) -> tuple[Any, Any, Any]:
        x = self.features.standardized(values)
        a = np.tanh(self.W @ x + self.b)
        z = self.V @ a + self.c
        p = np.exp(z - z.max()) if len(z) else z
        return x, a, p / p.sum()

    def predict_one(self, x: dict[Hashable, Any], **kwargs: Any) -> Any:
        """Return the likeliest class."""
        return self.classes[int(self._pass(self.features.vector(x))[2].argmax())] if self.classes else None

    def learn_one(self, x: dict[Hashable, Any], y: Any) -> None:
        """Take one step down the gradient of the cross-entropy."""
        if new := self.features.appear(x):
            columns = self.rng.normal(size=(self.hidden, len(new))) / np.sqrt(len(self.features))
            self.W = np.hstack([self.W, columns])
        if y not in self.classes:
            self.classes.append(y)
            self.V, self.c = np.vstack([self.V, np.zeros(self.hidden)]), np.append(self.c, 0.0)
        values = self.features.vector(x)
        seen, a, p = self._pass(values)
        error = -p
        error[self.classes.index(y)] += 1.0
        back = (error @ self.V) * (1.0 - a * a)
        self.V += self.lr * np.outer(error, a)
        self.c += self.lr * error
        self.W += self.lr * np.outer(back, seen)
        self.b += self.lr * back
        self.features.learn(values)


def tpsgd(seed: int, **settings: Any) -> TPClassifier:
    """Return ours."""
    return TPClassifier(seed=seed, **settings)


def backprop(seed: int, lr: float) -> Backprop:
    """Return the same network trained by backpropagation."""
    return Backprop(lr=lr, seed=seed)


def tuned(method: str) -> float:
    """Return the learning rate that was best on the streams of ``tune``."""
    rows = read_rows(RUNS / "tune.csv")
    rates = {float(row["lr"]) for row in rows if row["model"] == method}
    if not rates:
        sys.exit("run `python benchmarks/streams.py tune` first")
    return max(
        rates, key=lambda lr: mean(float(r["accuracy"]) for r in rows if r["model"] == method and float(r["lr"]) == lr)
    )


def peers() -> dict[str, Callable[[int], Any]]:
    """Return every model, made for a seed."""
    river = models_of(
        {
            "same label as before": "no-change",
            "LogisticRegression": "river.preprocessing.StandardScaler | river.linear_model.LogisticRegression",
            "GaussianNB": "river.naive_bayes.GaussianNB",
            "HoeffdingAdaptiveTree": "river.tree.HoeffdingAdaptiveTreeClassifier",
            "ARF, 10 trees": "river.forest.ARFClassifier(n_models=10)",
        }
    )
    return {
        "tpSGD": tpsgd,
        "backpropagation": partial(backprop, lr=tuned("backpropagation")),
        **{model.name: model.make for model in river},
    }


def run(file: str, model: str, make: Callable[[int], Any], stream: str, seed: int, delay: int = 0, **more: Any) -> None:
    """Measure a model on a stream, unless that has been done."""
    wanted = {"model": model, "stream": stream, "seed": seed, **more}
    for row in read_rows(RUNS / f"{file}.csv"):
        if all(row[key] == str(value) for key, value in wanted.items()):
            return
    source = open_source(stream)
    outcome = prequential(
        suited(make(seed), source.binary),
        source.samples(seed),
        source.length,
        source.drifts,
        Protocol(label_delay=delay, detector="none"),
    )
    recovered = [recovery.samples for recovery in outcome.recoveries]
    append_row(
        RUNS / f"{file}.csv",
        {
            **wanted,
            "accuracy": round(outcome.accuracy, 5),
            "kappa_t": "" if outcome.kappa_t is None else round(outcome.kappa_t, 4),
            "recovery": "" if not recovered or recovered[0] is None else recovered[0],
            "cpu_us": round(1e6 * outcome.cpu_seconds / outcome.samples, 1),
            "state_bytes": outcome.state_bytes,
        },
    )
    print(f"{stream}  {model} {more or ''} seed {seed}: {outcome.accuracy:.4f}", flush=True)


def tune() -> None:
    """Try learning rates where nothing is judged."""
    for method, rates in RATES.items():
        for lr in rates:
            for stream in TUNING:
                run(
                    "tune", method, partial(tpsgd if method == "tpSGD" else backprop, lr=lr), stream, TUNING_SEED, lr=lr
                )


def paces() -> None:
    """Try copies at other paces where nothing is judged."""
    for tried in PACES:
        for stream in TUNING:
            run("paces", f"{tried}", partial(tpsgd, paces=tried), stream, TUNING_SEED)


def measure_peers() -> None:
    """Run every model with every seed."""
    for seed in SEEDS:
        for stream in STREAMS:
            for model, make in peers().items():
                run("peers", model, make, stream, seed)


def late() -> None:
    """Let labels come 48 rows late."""
    for seed in SEEDS:
        for model, make in peers().items():
            run("late", model, make, "elec2", seed, delay=48)


def rates() -> None:
    """Try learning rates on the four streams."""
    for method, tried in RATES.items():
        for lr in tried:
            for stream in STREAMS:
                run("rates", method, partial(tpsgd if method == "tpSGD" else backprop, lr=lr), stream, 1, lr=lr)


def grid() -> None:
    """Try a few settings on the four streams; what is best is known only in hindsight."""
    for stream in STREAMS:
        for hidden in ((64,), (128,)):
            for paces in ((1.0, 0.3, 0.05), (1.0, 0.3, 0.1, 0.03, 0.01), (0.1,), (3.0, 0.5, 0.05)):
                name = f"hidden={hidden}, paces={paces}"
                for seed in SEEDS:
                    run("grid", name, partial(tpsgd, hidden=hidden, paces=paces), stream, seed)


def spread(values: Iterable[float]) -> str:
    """Return mean and standard deviation."""
    known = list(values)
    return f"{mean(known):.4f}" + (f" ± {stdev(known):.4f}" if len(known) > 1 and stdev(known) else "")


def tables() -> None:
    """Publish what has been measured."""
    measured = [row for name in ("peers", "deep_river") for row in read_rows(RUNS / f"{name}.csv")]
    if measured:
        rows = []
        for model in dict.fromkeys(row["model"] for row in measured):
            mine = [row for row in measured if row["model"] == model]
            recoveries = [row["recovery"] for row in mine if row["stream"] == "rbf-abrupt"]
            rows.append(
                {
                    "model": model,
                    **{s: spread(float(r["accuracy"]) for r in mine if r["stream"] == s) for s in STREAMS},
                    "recovery on rbf-abrupt, samples": ", ".join(r or "never" for r in recoveries),
                    "CPU µs a sample": round(mean(float(row["cpu_us"]) for row in mine), 1),
                    "state, kB": round(mean(float(row["state_bytes"]) for row in mine) / 1000, 1),
                }
            )
        publish("streams", "prequential accuracy", rows)
    measured = [row for name in ("late", "deep_river_late") for row in read_rows(RUNS / f"{name}.csv")]
    if measured:
        names = dict.fromkeys(row["model"] for row in measured)
        publish(
            "streams_late",
            "Elec2 with labels 48 rows late",
            [
                {"model": name, "accuracy": spread(float(r["accuracy"]) for r in measured if r["model"] == name)}
                for name in names
            ],
        )
    for file, title in (("tune", "mean accuracy where defaults are chosen"), ("rates", "accuracy on the four streams")):
        measured = read_rows(RUNS / f"{file}.csv")
        rows = []
        for method, lr in dict.fromkeys((row["model"], row["lr"]) for row in measured):
            mine = [row for row in measured if (row["model"], row["lr"]) == (method, lr)]
            each = {r["stream"]: float(r["accuracy"]) for r in mine} if file == "rates" else {}
            rows.append(
                {"method": method, "lr": float(lr), **each, "mean": round(mean(float(r["accuracy"]) for r in mine), 4)}
            )
        if rows:
            publish(f"streams_{file}", title, rows)
    measured = read_rows(RUNS / "paces.csv")
    if measured:
        names = dict.fromkeys(row["model"] for row in measured)
        publish(
            "streams_paces",
            "mean accuracy where defaults are chosen",
            [
                {
                    "paces": name,
                    "accuracy": round(mean(float(r["accuracy"]) for r in measured if r["model"] == name), 4),
                }
                for name in names
            ],
        )
    measured = read_rows(RUNS / "grid.csv")
    if measured:
        rows = []
        for stream in STREAMS:
            means = {
                name: mean(float(r["accuracy"]) for r in measured if (r["model"], r["stream"]) == (name, stream))
                for name in dict.fromkeys(row["model"] for row in measured if row["stream"] == stream)
            }
            best = max(means, key=lambda name: means[name])
            rows.append({"stream": stream, "best setting": best, "accuracy": round(means[best], 4)})
        publish("streams_grid", "the best of a small grid, in hindsight", rows)


PARTS = {
    "tune": tune,
    "paces": paces,
    "peers": measure_peers,
    "late": late,
    "rates": rates,
    "grid": grid,
    "tables": tables,
}


def main() -> None:
    """Run what was asked for."""
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"there is no {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    for part in wanted:
        PARTS[part]()


if __name__ == "__main__":
    main()
