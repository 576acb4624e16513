"""The same fleet, the same drift, by tpSGD and by backpropagation: accuracy and peak memory of a device.

`digits-rotating` with three and with five hidden layers of 64 units. Learning rates are tuned for every row on seed
100 by prequential accuracy, and kept for the other seeds. Readouts of tpSGD are fixed, or learn and are averaged like
weights. Memory is that of the device that took most, by the account of docs/costs.md.

    python benchmarks/fleet_methods.py        ten minutes on one core
"""

from __future__ import annotations

import statistics

from machine import publish

from simulations import Run, Scenario, simulate

#: Method, readout, and the learning rates to choose from.
METHODS = (
    ("tpsgd", "fixed", (0.1, 0.2, 0.4, 0.8, 1.6)),
    ("tpsgd", "shared", (0.1, 0.2, 0.4, 0.8, 1.6)),
    ("backprop", "", (0.025, 0.05, 0.1, 0.2, 0.4)),
)
DEPTHS, UNITS = (3, 5), 64
SEEDS, TUNING_SEED = (1, 2, 3), 100


def run(method: str, readout: str, depth: int, rate: float, seed: int) -> Run:
    settings = [f"learner.hidden={[UNITS] * depth}", f"learner.method={method}", f"learner.lr={rate}"]
    settings += [f"learner.readout={readout}"] if readout else []
    return simulate(Scenario.load("digits-rotating", settings, seed))


def accuracies(runs: list[Run], kind: str) -> list[float]:
    return [100 * float(done.summary[f"{kind}_accuracy"]) for done in runs]


def main() -> None:
    rows = []
    for depth in DEPTHS:
        found = {}
        for method, readout, rates in METHODS:
            tried = {rate: run(method, readout, depth, rate, TUNING_SEED) for rate in rates}
            best = max(rates, key=lambda rate: accuracies([tried[rate]], "prequential")[0])
            found[method, readout] = best, [run(method, readout, depth, best, seed) for seed in SEEDS]
        _, baseline = found["backprop", ""]
        for (method, readout), (rate, runs) in found.items():
            row: dict[str, object] = {"hidden layers": depth, "method": method, "readouts": readout, "lr": rate}
            for kind in ("prequential", "final"):
                own = accuracies(runs, kind)
                ahead = statistics.mean(own) - statistics.mean(accuracies(baseline, kind))
                row[f"{kind} accuracy, %"] = f"{statistics.mean(own):.2f} ± {statistics.stdev(own):.2f}"
                row[f"ahead, points ({kind})"] = round(ahead, 2)
            peak = max(done.summary["peak_bytes"] for done in runs)
            row["peak KB"] = round(peak / 1000, 1)
            row["of backprop's"] = round(peak / max(done.summary["peak_bytes"] for done in baseline), 3)
            rows.append(row)
    publish("fleet_methods", "digits-rotating, seeds 1 to 3: mean and standard deviation", rows)


if __name__ == "__main__":
    main()
