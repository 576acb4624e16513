"""The main job: a scenario in, a run out."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import torch

from fedtp.streaming.state import Part, State
from server.app import make_server_app, weights_of
from server.round import Round
from simulations.checkpoint import Checkpoint
from simulations.checkpoints import Checkpoints
from simulations.executors import Executor, executor_for
from simulations.fleet import FleetGrid
from simulations.flower import make_context
from simulations.recorder import Recorder
from simulations.run import Run
from simulations.scenario import Scenario
from simulations.world import World

#: What a checkpoint holds beside the state of each part: the server's, and the computer's time that was spent.
SERVER, WATCH = "server", "watch"


@dataclass(frozen=True)
class Progress:
    """How far a simulation has come.

    Parameters
    ----------
    round, rounds
        Rounds that have ended, and that there are at least.
    virtual_seconds
        The time in the simulated fleet.
    accuracy
        Share of the latest round's samples that were predicted rightly; None if there were none.
    refused, late, detections
        So far.
    """

    round: int
    rounds: int
    virtual_seconds: float
    accuracy: float | None
    refused: int
    late: int
    detections: int


def simulate(
    scenario: Scenario,
    on_round: Callable[[Progress], None] | None = None,
    *,
    executor: Callable[[World], Executor] = executor_for,
    checkpoints: Checkpoints | None = None,
) -> Run:
    """Run a scenario: Flower's ServerApp and the devices' code, in virtual time, in this process.

    Parameters
    ----------
    scenario
        What to run. The same scenario gives the same run, bit for bit.
    on_round
        Told after every round how far it has come.
    executor
        Makes what does the devices' learning; by default what the scenario asks for.
    checkpoints
        Where to save how far it has come, as often as the scenario says, and from where to go on; by default nowhere.

    Returns
    -------
    Run
        Everything that happened.

    Raises
    ------
    FedtpError
        If the scenario cannot be run: its data set is missing, say; or a checkpoint cannot be gone on with, or written.

    Examples
    --------
    >>> from simulations import Scenario
    >>> run = simulate(Scenario.load("digits-rotating", ["server.rounds=2", "drift=[]"]))
    >>> run.summary["rounds"], run.summary["devices"]
    (2, 100)
    """
    began = time.perf_counter()
    world = World(scenario)
    recorder = Recorder(world)
    learning = executor(world)
    grid = FleetGrid(
        world.fleet,
        learning,
        seed=scenario.run.seed,
        devices_per_node=scenario.run.devices_per_node,
        patience_seconds=scenario.server.deadline_seconds,
        on_errand=recorder.errand,
    )
    weights = world.learner.initial_weights()

    parts: dict[str, Part] = {"grid": grid, "devices": learning, "recorder": recorder}
    begun: State | None = None
    earlier_seconds = 0.0

    def spent() -> float:
        return earlier_seconds + time.perf_counter() - began

    def taken(done: Round) -> Checkpoint:
        own = {SERVER: done.state(), WATCH: State({}, {"seconds": spent()})}
        return Checkpoint(scenario, done.number, own | {name: part.state() for name, part in parts.items()})

    def ended(done: Round) -> None:
        weights.update(done.weights)
        recorder.round(done)
        gc.collect(1)
        if checkpoints is not None and checkpoints.due(done.number, scenario.run.checkpoint_rounds):
            checkpoints.save(lambda: taken(done))
        if on_round is not None:
            on_round(
                Progress(
                    round=done.number,
                    rounds=max(scenario.server.rounds, done.number),
                    virtual_seconds=done.ended,
                    accuracy=recorder.latest["accuracy"],
                    refused=recorder.total("refused"),
                    late=recorder.total("late"),
                    detections=recorder.total("detections"),
                )
            )

    with closing(learning), _threads(scenario.run.threads), _quiet_flower(), _collecting_by_rounds():
        if checkpoints is not None and checkpoints.latest is not None:
            latest, checkpoints.latest = checkpoints.latest, None
            own = latest.restore(parts, (SERVER, WATCH))
            begun, earlier_seconds = own[SERVER], float(own[WATCH].record.get("seconds", 0))
            weights.update(weights_of(begun))
        # Whoever simulates has all data anyway.
        make_server_app(grid.clock, ended, begun, noise_seed=scenario.run.seed)(grid, make_context(world.run_config()))
        final = world.held_out_accuracy(weights, scenario.duration_seconds)
    events, *_ = recorder.events()
    summary = {
        "scenario": scenario.name,
        "method": scenario.learner.method,
        "readout": scenario.learner.readout if scenario.learner.method == "tpsgd" else None,
        "adaptor": scenario.learner.adaptor,
        "seed": scenario.run.seed,
        "version": version("fedtp"),
        "devices": scenario.device_count,
        "final_accuracy": final,
        **recorder.summary(),
        "wall_seconds": spent(),
    }
    return Run(scenario, summary, recorder.rounds(), recorder.devices(), events, weights, world.learner)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _collecting_by_rounds() -> Iterator[None]:
    """Keep Python from looking through all devices for garbage again and again; each round looks through the new."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Leave it to the run's results to say what happened in it."""
    log = logging.getLogger("flwr")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
