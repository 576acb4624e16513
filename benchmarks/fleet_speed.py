"""How many client-rounds a second a fleet is simulated at, end to end, on one core.

A client-round is one device's work on one order: its message and reply, 50 new samples of its stream, each scored
before it is learnt from, one pass over them in batches of 10, its drift detector, and its part of the aggregation.
1,000 devices, one device per node. What a run builds once (data, devices) is timed apart.

    python benchmarks/fleet_speed.py
"""

from __future__ import annotations

import os
import statistics
import time

import typer
from machine import publish

from simulations import Scenario, simulate

SCENARIO = """
title = "Speed"
[data]
name = "random-rbf"
samples = 50000
parameters = {{ n_features = {features}, n_classes = {classes} }}
[arrival]
samples_per_order = 50
[learner]
hidden = [{hidden}]
batch_size = 10
epochs = 1
[server]
rounds = {rounds}
[[devices]]
class = "pi"
count = 1000
"""
#: Inputs, hidden units, classes, rounds.
NETWORKS = {"20-32-4": (20, 32, 4, 20), "784-200-10": (784, 200, 10, 5)}


def measure(features: int, hidden: int, classes: int, rounds: int, method: str) -> tuple[float, float]:
    """Return client-rounds per second after the first round, and the seconds until that round had ended."""
    text = SCENARIO.format(features=features, hidden=hidden, classes=classes, rounds=rounds)
    scenario = Scenario.from_toml(text, [f"learner.method={method}"])
    ends: list[float] = []
    began = time.perf_counter()
    simulate(scenario, lambda _: ends.append(time.perf_counter()))
    return 1000 * (rounds - 1) / (ends[-1] - ends[0]), ends[0] - began


def main(repeats: int = 3) -> None:
    """Measure every network `repeats` times, and give the median."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = []
    for network, sizes in NETWORKS.items():
        for method in ("tpsgd", "backprop"):
            rates, setups = zip(*(measure(*sizes, method) for _ in range(repeats)), strict=True)
            rows.append(
                {
                    "network": network,
                    "method": method,
                    "client_rounds_per_second": round(statistics.median(rates)),
                    "lowest": round(min(rates)),
                    "highest": round(max(rates)),
                    "setup_and_first_round_seconds": round(statistics.median(setups), 2),
                }
            )
    publish("fleet_speed", "Client-rounds per second on one core, 1,000 devices, one per node", rows)


if __name__ == "__main__":
    typer.run(main)
