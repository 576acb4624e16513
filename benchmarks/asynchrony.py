"""Virtual time to the same accuracy: rounds that cut off stragglers, rounds that wait for them, and no rounds at all.

The scenario is `stragglers`: a fleet whose links differ by a factor of sixteen, under label skew. Each schedule is
tuned over 27 settings on three seeds of their own, for the time to 90 %; all tune the devices' learning rate, and

- deadline: one of 20 s, which the slowest 30 % of the devices miss. Rounds every 20 s, or as soon as one has closed
  but at least 5 or 10 s apart; and the server's learning rate.
- partial training: the same, with devices that train as many blocks as they can send by the deadline.
- over-selection: rounds that close when 70 % have answered, at least 5, 10 or 20 s apart; and the server's rate.
- waiting: rounds that close when all have answered, at least 5, 10 or 20 s apart; and the server's rate.
- buffered: FedBuff; the least seconds between two orders to a device, and the size of the buffers.

Accuracy is the global model's on held-out data of all classes. A target is reached when three evaluations in a row, one
after every round or interval, are at least as high; its time is the first one's. Means over other seeds; a run that
does not reach a target counts with its whole length, so that such a mean is a lower bound.

    python benchmarks/asynchrony.py        half an hour
"""

from __future__ import annotations

import itertools
import logging
import statistics
from collections.abc import Iterator

import typer
from machine import publish

from server.app import make_server_app
from server.round import Round
from simulations import Scenario
from simulations.errand import Errand
from simulations.executors import executor_for
from simulations.fleet import FleetGrid
from simulations.flower import make_context
from simulations.world import World

Settings = tuple[str, ...]
Curve = list[tuple[float, float]]

TUNING_SEEDS, TUNING_TARGET = (100, 101, 102), 0.9
TARGETS = (0.8, 0.85, 0.9, 0.93)
SECONDS, CUT_OFF = 1200, 20
RATES = (0.3, 1.0, 3.0)
SERVER_RATES = [(f"server.lr={rate}",) for rate in (1.0, 1.5, 2.0)]
BUFFERS = [(f"server.buffer_size={size}",) for size in (3, 5, 10)]
#: Each of the five groups of devices trains what fits.
EVERYTHING = tuple(f"devices.{group}.plan=everything" for group in range(5))


def _intervals(*seconds: int) -> list[Settings]:
    return [(f"server.interval_seconds={interval}",) for interval in seconds]


def _rounds_of(seconds: int) -> Settings:
    return f"server.round_seconds={seconds}", f"server.rounds={SECONDS // seconds}"


#: By schedule: ways to go from round to round, and what is tuned beside them.
TRIED = {
    "deadline": ([(), *_intervals(5, 10)], SERVER_RATES),
    "partial training": ([(*EVERYTHING, *pace) for pace in [(), *_intervals(5, 10)]], SERVER_RATES),
    "over-selection": ([("server.over_selection=0.43", *pace) for pace in _intervals(5, 10, 20)], SERVER_RATES),
    "waiting": ([(*_rounds_of(200), *pace) for pace in _intervals(5, 10, 20)], SERVER_RATES),
    "buffered": ([("server.mode=buffered", *_rounds_of(seconds)) for seconds in (5, 10, 20)], BUFFERS),
}


def settings_of(schedule: str) -> Iterator[Settings]:
    """Yield the settings of a schedule that are tried."""
    for rate, pace, more in itertools.product(RATES, *TRIED[schedule]):
        yield (f"learner.lr={rate}", *pace, *more)


def run(seed: int, settings: Settings) -> tuple[Curve, float]:
    """Return the global model's accuracy on held-out data by virtual time, s; and the share that is cut off.

    That is the share of the devices whose first answer comes later than the deadline of 20 s.
    """
    world = World(Scenario.load("stragglers", settings, seed))
    errands: list[Errand] = []
    grid = FleetGrid(world.fleet, executor_for(world), seed=seed, on_errand=errands.append)
    curve: Curve = []

    def note(done: Round) -> None:
        curve.append((done.ended, world.held_out_accuracy(done.weights, done.ended)))

    make_server_app(grid.clock, note)(grid, make_context(world.run_config()))
    first = {errand.device: errand.arrived - errand.started for errand in reversed(errands)}
    return curve, statistics.mean(seconds > CUT_OFF for seconds in first.values())


def seconds_to(curve: Curve, target: float) -> float:
    """Return when a target is reached; infinite if it is not."""
    for three in zip(curve, curve[1:], curve[2:], strict=False):
        if all(accuracy >= target for _, accuracy in three):
            return three[0][0]
    return float("inf")


def tune(schedule: str) -> Settings:
    """Return the settings that reach the target first, or else end best."""
    scores = {}
    for settings in settings_of(schedule):
        curves = [run(seed, settings)[0] for seed in TUNING_SEEDS]
        seconds = statistics.mean(min(seconds_to(curve, TUNING_TARGET), SECONDS) for curve in curves)
        scores[settings] = seconds, -statistics.mean(curve[-1][1] for curve in curves)
    best = min(scores, key=scores.__getitem__)
    print(schedule, *best, f"{scores[best][0]:.0f} s to {TUNING_TARGET:.0%} of {len(scores)} settings", flush=True)
    return best


def main(seeds: int = 3) -> None:
    """Tune each schedule, then compare them over `seeds` seeds."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    best = {schedule: tune(schedule) for schedule in TRIED}
    runs = {schedule: [run(seed, best[schedule]) for seed in range(1, seeds + 1)] for schedule in TRIED}
    times = {
        (schedule, target): [seconds_to(curve, target) for curve, _ in runs[schedule]]
        for schedule, target in itertools.product(TRIED, TARGETS)
    }
    # Whoever does not reach a target counts with the length of the run.
    means = {key: statistics.mean(min(seconds, SECONDS) for seconds in times[key]) for key in times}
    rows = [
        {
            "schedule": schedule,
            "target": target,
            "reached": f"{sum(seconds <= SECONDS for seconds in times[schedule, target])} of {seeds}",
            "seconds": round(means[schedule, target]),
            "fastest": round(min(times[schedule, target])) if min(times[schedule, target]) <= SECONDS else None,
            "times_buffered": round(means[schedule, target] / means["buffered", target], 2),
            "final_accuracy": round(statistics.mean(curve[-1][1] for curve, _ in runs[schedule]), 3),
            "cut_off": round(statistics.mean(share for _, share in runs[schedule]), 2),
            "settings": " ".join(best[schedule]),
        }
        for schedule, target in times
    ]
    publish("asynchrony", "stragglers: virtual seconds until the global model is so accurate", rows)


if __name__ == "__main__":
    typer.run(main)
