"""The same fleet, the same drift, by tpSGD and by backpropagation: accuracy and peak memory of a device.

`digits-rotating` with six hidden layers of 64 units. Learning rates are tuned for each method on seed 100, and kept for
the other seeds. Memory is that of the device that took most, by the account of docs/costs.md.

    python benchmarks/fleet_methods.py        five minutes on one core
"""

from __future__ import annotations

import statistics

from machine import publish

from simulations import Run, Scenario, simulate

RATES = {"tpsgd": (0.3, 1.0, 2.0, 4.0), "backprop": (0.05, 0.1, 0.2, 0.4)}
SEEDS, TUNING_SEED = (1, 2, 3), 100


def run(method: str, rate: float, seed: int) -> Run:
    settings = ["learner.hidden=[64,64,64,64,64,64]", f"learner.method={method}", f"learner.lr={rate}"]
    return simulate(Scenario.load("digits-rotating", settings, seed))


def accuracy(done: Run) -> float:
    return float(done.summary["prequential_accuracy"])


def main() -> None:
    found = {}
    for method, rates in RATES.items():
        best = max(rates, key=lambda rate: accuracy(run(method, rate, TUNING_SEED)))
        found[method] = best, [run(method, best, seed) for seed in SEEDS]
    baseline = found["backprop"][1]
    rows = []
    for method, (rate, runs) in found.items():
        behind = [accuracy(other) - accuracy(own) for own, other in zip(runs, baseline, strict=True)]
        peak = max(own.summary["peak_bytes"] for own in runs)
        rows.append(
            {
                "method": method,
                "lr": rate,
                "prequential accuracy": round(statistics.mean(map(accuracy, runs)), 4),
                "sd over seeds": round(statistics.stdev(map(accuracy, runs)), 4),
                "points behind backprop": round(100 * statistics.mean(behind), 2),
                "final accuracy": round(statistics.mean(own.summary["final_accuracy"] for own in runs), 4),
                "peak KB": round(peak / 1000, 1),
                "of backprop's peak": round(peak / baseline[0].summary["backprop_peak_bytes"], 3),
            }
        )
    publish("fleet_methods", "digits-rotating with six hidden layers, seeds 1 to 3", rows)


if __name__ == "__main__":
    main()
