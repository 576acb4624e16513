"""What it costs a fleet when most of its devices train one block only: accuracy, bytes and energy.

A fleet learns a network of five blocks. Seven devices of ten train one block an order, by each of the plans, against
all training all, and against the other three alone. Nothing is tuned: the settings are a scenario's defaults.

    python benchmarks/partial_training.py        four minutes; mnist from FEDTP_DATA
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from machine import publish

from simulations import Scenario, simulate

SEEDS = range(1, 4)
DEVICES = 40
SHARE = 0.7
HIDDEN = (64, 64, 64, 64)
ROUNDS = 60

SCENARIO = """
title = "Most devices train one block"

[data]
name = "{data}"

[partition]
kind = "dirichlet"
alpha = 1.0

[arrival]
samples_per_order = 20

[learner]
hidden = {hidden}
detector = "none"

[server]
rounds = {rounds}
{devices}
"""

GROUP = """
[[devices]]
class = "pi"
count = {count}
plan = "{plan}"
"""


def fleets() -> Iterator[tuple[str, str]]:
    """Name every fleet, and write its devices."""
    few = round(SHARE * DEVICES)
    yield "all train all", GROUP.format(count=DEVICES, plan="everything")
    for plan in ("assigned", "rotation", "random", "first"):
        groups = GROUP.format(count=few, plan=plan) + GROUP.format(count=DEVICES - few, plan="everything")
        yield f"70 % train one block, {plan}", groups
    yield "all train one block, assigned", GROUP.format(count=DEVICES, plan="assigned")
    yield "the other 30 % alone", GROUP.format(count=DEVICES - few, plan="everything")


def main() -> None:
    """Run every fleet on every data set."""
    rows: list[dict[str, object]] = []
    for data in ("digits", "mnist"):
        whole: tuple[np.ndarray, float] | None = None
        for name, devices in fleets():
            text = SCENARIO.format(data=data, hidden=list(HIDDEN), rounds=ROUNDS, devices=devices)
            summaries = [simulate(Scenario.from_toml(text, seed=seed)).summary for seed in SEEDS]
            accuracy = 100 * np.array([summary["final_accuracy"] for summary in summaries])
            bytes_up = float(np.mean([summary["bytes_up"] for summary in summaries]))
            joules = float(np.mean([summary["joules"] for summary in summaries]))
            whole = whole or (accuracy, bytes_up)
            rows.append(
                {
                    "data": data,
                    "fleet": name,
                    "final accuracy, %": round(float(accuracy.mean()), 2),
                    "sd over seeds": round(float(accuracy.std(ddof=1)), 2),
                    "points less, paired": round(float((whole[0] - accuracy).mean()), 2),
                    "bytes up against all": round(bytes_up / whole[1], 3),
                    "joules": round(joules, 1),
                }
            )
            print(rows[-1], flush=True)
    publish("partial_training", "Training a part of the network, 3 seeds", rows)


if __name__ == "__main__":
    main()
