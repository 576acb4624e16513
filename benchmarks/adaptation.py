"""What each way to adapt to a staggered drift buys a fleet, on `adaptation-staggered`.

Two drifts, each device's at a time of its own: classes swap their names (real), images turn by a quarter (virtual). The
figure is that of `simulations.recovery`: a device's own samples, from its own drift, until its accuracy over 50 of them
is 95 % of what it was before any device drifted; a device that never recovers counts with all that it saw.

Every row has four settings tried on a seed of its own, both drifts together, by the samples to recover, "none" among
them (four learning rates); then the best runs with other seeds. "none, twice the passes" spends on every sample what
`window-retrain` spends after a drift.

    python benchmarks/adaptation.py
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import mean

import typer
from machine import RESULTS, append_row, publish, read_rows, show

from fedtp.measures import confidence_margin
from simulations import Scenario, simulate

TUNING_SEED = 100
DRIFTS = {"label swap": "swapped", "rotation": "turned"}
SERVER = "adaptation.server"

#: For each row its settings, and those of which the best are taken.
ROWS: dict[str, tuple[list[str], list[list[str]]]] = {
    "none": (["adaptation.policy=none"], [[f"learner.lr={lr}"] for lr in (1.0, 2.0, 3.0, 5.0)]),
    "none, twice the passes": (
        ["adaptation.policy=none", "learner.epochs=4"],
        [[f"learner.lr={lr}"] for lr in (1.0, 2.0, 3.0, 5.0)],
    ),
    "boost-lr": (
        ["adaptation.policy=boost-lr"],
        [[f"adaptation.factor={f}", f"adaptation.blocks={b}"] for f in (2.0, 4.0) for b in ("all", "moved")],
    ),
    "reset": (
        ["adaptation.policy=reset"],
        [[f"adaptation.samples={n}", f"adaptation.blocks={b}"] for n in (100, 400) for b in ("last", "moved")],
    ),
    "keep-own": (
        ["adaptation.policy=keep-own"],
        [[f"adaptation.memory={n}", f"adaptation.blocks={b}"] for n in (50, 100) for b in ("all", "last")],
    ),
    "window-retrain": (
        ["adaptation.policy=window-retrain"],
        [[f"adaptation.epochs={n}", f"adaptation.blocks={b}"] for n in (3, 5) for b in ("all", "moved")],
    ),
    "server: boost": (
        ["adaptation.policy=none", f"{SERVER}.reaction=boost"],
        [[f"{SERVER}.factor={f}", f"{SERVER}.share={s}"] for f in (1.5, 2.0) for s in (0.1, 0.3)],
    ),
    "server: reset": (
        ["adaptation.policy=none", f"{SERVER}.reaction=reset"],
        [[f"{SERVER}.blocks={b}", f"{SERVER}.share={s}"] for b in ("all", "last") for s in (0.1, 0.3)],
    ),
    "half take part, none": (
        ["adaptation.policy=none", "server.fraction=0.5"],
        [[f"learner.lr={lr}"] for lr in (1.0, 2.0, 3.0, 5.0)],
    ),
    "half take part, server: participation": (
        ["adaptation.policy=none", "server.fraction=0.5", f"{SERVER}.reaction=participation"],
        [[f"{SERVER}.rounds={rounds}"] for rounds in (2, 5, 10, 20)],
    ),
}


RUNS = RESULTS / "adaptation" / "runs.csv"
FIGURES = ("recovery_samples", "recovered_share", "prequential_accuracy", "bytes_up", "bytes_down", "joules")


def measure(drift: str, settings: Sequence[str], seed: int) -> dict[str, float]:
    """Return the figures of a run, which is written down, so that a benchmark that is broken off goes on after it."""
    asked = {"drift": drift, "settings": " ".join(settings), "seed": str(seed)}
    known = [row for row in read_rows(RUNS) if all(row[key] == value for key, value in asked.items())]
    if not known:
        overrides = [f"drift.0.concept={DRIFTS[drift]}", *settings]
        summary = simulate(Scenario.load("adaptation-staggered", overrides, seed)).summary
        known = [asked | {name: str(summary[name]) for name in FIGURES}]
        append_row(RUNS, known[0])
    return {name: float(known[0][name]) for name in FIGURES}


def best(settings: Sequence[str], choices: Sequence[list[str]]) -> list[str]:
    """Return the choice after which devices recover soonest on the tuning seed, both drifts together."""

    def taken(choice: list[str]) -> float:
        return mean(measure(drift, [*settings, *choice], TUNING_SEED)["recovery_samples"] for drift in DRIFTS)

    return min(choices, key=taken)


def main(seeds: int = 3, only: str = "") -> None:
    """Tune every row, then compare them over `seeds` seeds; or only some rows, with commas between, and "none"."""
    rates: dict[str, list[str]] = {}
    before: dict[tuple[str, str], list[dict[str, float]]] = {}
    rows: list[dict[str, object]] = []
    for name, (settings, choices) in ROWS.items():
        if only and name not in ("none", *only.split(",")):
            continue
        against = "half take part, none" if name.startswith("half") else "none"
        # What was found best without adaptation is everybody's learning rate.
        given = [*settings, *rates.get(against, [])] if "none" not in name else settings
        chosen = best(given, choices)
        if "none" in name:
            rates[name] = chosen
        for drift in DRIFTS:
            runs = [measure(drift, [*given, *chosen], seed) for seed in range(1, seeds + 1)]
            before[drift, name] = runs
            found = [one["recovery_samples"] for one in runs]
            ratios = [one / other["recovery_samples"] for one, other in zip(found, before[drift, against], strict=True)]
            rows.append(
                {
                    "drift": drift,
                    "adaptation": name,
                    "tuned": " ".join(setting.removeprefix("adaptation.") for setting in chosen),
                    "recovery_samples": round(mean(found), 1),
                    "margin": round(float(confidence_margin(found)), 1),
                    "ratio": round(mean(ratios), 3),
                    "ratio_margin": round(float(confidence_margin(ratios)), 3),
                    "recovered_share": round(mean(one["recovered_share"] for one in runs), 3),
                    "accuracy": round(mean(one["prequential_accuracy"] for one in runs), 4),
                    "mbytes": round(mean(one["bytes_up"] + one["bytes_down"] for one in runs) / 1e6, 1),
                    "joules": round(mean(one["joules"] for one in runs)),
                    "seeds": seeds,
                }
            )
    title = "Samples to recover from a staggered drift (ratio: to none, seed by seed)"
    (show if only else partial(publish, "adaptation"))(title, rows)


if __name__ == "__main__":
    typer.run(main)
