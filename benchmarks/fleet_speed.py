"""How fast a fleet is simulated, end to end.

A client-round is one device's work on one order: its part of the messages, 50 new samples of its stream, each scored
before it is learnt from, one pass over them in batches of 10, its drift detector if it has one, its part of the
aggregation and of the records that are kept of everything. On one core.

    python benchmarks/fleet_speed.py          everything, about ten minutes
    python benchmarks/fleet_speed.py rates    client-rounds per second: 1,000 devices, one per node and behind gateways
    python benchmarks/fleet_speed.py scale    100,000 devices, 20 rounds of a tenth of them: seconds, memory, and what
                                              a client-round costs against a fleet of 1,000
    python benchmarks/fleet_speed.py start    seconds from the shell to the end of the first round

What a run builds once (data, devices) is not in the rates. Peers on the same set-up: `fleet_peers.py`.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated

import typer
from machine import publish

from fedtp.data import DataSet, load
from simulations import Scenario, simulate, world

SCENARIO = """
title = "Speed"
[data]
name = "random-rbf"
samples = {samples}
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
count = {devices}
"""
#: Inputs, hidden units, classes, rounds.
NETWORKS = {"20-32-4": (20, 32, 4, 20), "784-200-10": (784, 200, 10, 6)}
#: Method, devices per node, detector.
WAYS = (
    ("tpsgd", 1, "none"),
    ("tpsgd", 100, "none"),
    ("tpsgd", 1, "adwin"),
    ("tpsgd", 100, "adwin"),
    ("backprop", 1, "none"),
    ("backprop", 100, "none"),
)


@cache
def _drawn(text: str) -> DataSet:
    return load(**json.loads(text))


def draw_once() -> None:
    """Let all runs share one draw of their data, which takes longer than they do."""
    world.load = lambda name, **options: _drawn(json.dumps({"name": name, **options}))  # type: ignore[assignment]


def stay_on_one_core() -> None:
    """Leave the other cores to others."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def scenario(network: str, *settings: str, devices: int = 1000, samples: int = 50_000) -> Scenario:
    """Return the fleet that is timed."""
    features, hidden, classes, rounds = NETWORKS[network]
    text = SCENARIO.format(
        features=features, hidden=hidden, classes=classes, rounds=rounds, devices=devices, samples=samples
    )
    return Scenario.from_toml(text, settings)


def rate(fleet: Scenario) -> float:
    """Return client-rounds per second after the first round."""
    ends: list[float] = []
    run = simulate(fleet, lambda _: ends.append(time.perf_counter()))
    orders = run.rounds["orders"].to_list()
    return float(sum(orders[1:]) / (ends[-1] - ends[0]))


def rates(repeats: int) -> None:
    """Measure every network in every way."""
    rows = []
    for network in NETWORKS:
        fleets = {
            (method, per_node, detector): scenario(
                network,
                f"learner.method={method}",
                f"run.devices_per_node={per_node}",
                f"learner.detector={detector}",
            )
            for method, per_node, detector in WAYS
        }
        # In turn, so that what slows the machine down for a while slows them all down.
        found: dict[tuple[str, int, str], list[float]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way, fleet in fleets.items():
                found[way].append(rate(fleet))
        rows += [
            {
                "network": network,
                "method": method,
                "devices per node": per_node,
                "detector": detector,
                "client-rounds per second": round(statistics.median(speeds)),
                "lowest": round(min(speeds)),
                "highest": round(max(speeds)),
            }
            for (method, per_node, detector), speeds in found.items()
        ]
    publish("fleet_speed", "Client-rounds per second on one core, 1,000 devices", rows)


def scaled(devices: int, per_node: int, fraction: float) -> None:
    """Run a fleet to its end, and print what it took as JSON."""
    stay_on_one_core()
    settings = [f"server.fraction={fraction}", f"run.devices_per_node={per_node}", "learner.detector=none"]
    began = time.perf_counter()
    ends: list[float] = []
    fleet = scenario("20-32-4", *settings, devices=devices, samples=max(50_000, 4 * devices))
    run = simulate(fleet, lambda _: ends.append(time.perf_counter()))
    orders = run.rounds["orders"].to_list()
    took = {
        "seconds": time.perf_counter() - began,
        "GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "client-rounds": sum(orders),
        "ms": 1000 * (ends[-1] - ends[0]) / sum(orders[1:]),
    }
    print(json.dumps(took))


def scale(repeats: int) -> None:
    """Compare a large fleet with a small one, each in a process of its own."""
    rows = []
    for per_node in (1, 100):
        found: dict[int, list[dict[str, float]]] = {1_000: [], 100_000: []}
        for _ in range(repeats):
            for devices, fraction in ((1_000, 1.0), (100_000, 0.1)):
                call = f"import fleet_speed; fleet_speed.scaled({devices}, {per_node}, {fraction})"
                done = subprocess.run(
                    [sys.executable, "-c", call], cwd=Path(__file__).parent, check=True, capture_output=True, text=True
                )
                found[devices].append(json.loads(done.stdout.splitlines()[-1]))
        costs = {devices: statistics.median(run["ms"] for run in runs) for devices, runs in found.items()}
        rows += [
            {
                "devices": devices,
                "devices per node": per_node,
                "client-rounds": int(runs[0]["client-rounds"]),
                "seconds in all": round(statistics.median(run["seconds"] for run in runs), 1),
                "GB at most": round(max(run["GB"] for run in runs), 2),
                "ms per client-round": round(costs[devices], 3),
                "against 1,000 devices": round(costs[devices] / costs[1_000], 2),
            }
            for devices, runs in found.items()
        ]
    publish("fleet_scale", "20 rounds: of all of 1,000 devices, of a tenth of 100,000; 20-32-4, one core", rows)


def started(scenario: str) -> tuple[float, float]:
    """Return the seconds from the shell to the end of a run's one round, and to its report."""
    with tempfile.TemporaryDirectory() as folder:
        fedtp = str(Path(sys.executable).with_name("fedtp"))
        short = ["--set", "server.rounds=1", "--set", "drift=[]", "--out", f"{folder}/run"]
        terminal = os.environ | {"FORCE_COLOR": "1"}
        began, shown = time.perf_counter(), b""
        with subprocess.Popen(
            [fedtp, "simulate", scenario, *short], env=terminal, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            while b"round 1/1" not in shown:
                more = process.stderr.read1()
                if not more:
                    raise RuntimeError(shown.decode())
                shown += more
            first = time.perf_counter() - began
            process.communicate()
        return first, time.perf_counter() - began


def start(repeats: int) -> None:
    """Time `fedtp simulate` with a single round."""
    rows = []
    for name in ("sea-sudden", "digits-rotating"):
        runs = [started(name) for _ in range(repeats)]
        first, whole = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
        rows.append({"scenario": name, "seconds to the first round": round(first, 2), "to the report": round(whole, 2)})
    publish("fleet_start", "From the shell to the end of the first round, and to the report of a run of one", rows)


PARTS: dict[str, Callable[[int], None]] = {"rates": rates, "scale": scale, "start": start}


def main(
    part: Annotated[str, typer.Argument(help="rates, scale or start; all of them by default.")] = "",
    repeats: Annotated[int, typer.Option(help="How often everything is measured; medians are given.")] = 3,
) -> None:
    """Measure how fast a fleet is simulated."""
    stay_on_one_core()
    draw_once()
    for name in [part] if part else PARTS:
        PARTS[name](repeats)


if __name__ == "__main__":
    typer.run(main)
