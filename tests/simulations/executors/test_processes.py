"""Learning in several processes: the same results, one clear error, and nothing left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from fedtp.errors import FedtpError, WireError
from simulations import simulate
from simulations.executors import executor_for
from simulations.executors.processes import ProcessExecutor
from simulations.world import World

SKEWED = ("partition.kind=dirichlet", "partition.quantity_sigma=1.0", "server.rounds=3", "run.seed=4")


def pids(executor: ProcessExecutor) -> list[int]:
    return [shard._process.pid for shard in executor._shards]  # type: ignore[attr-defined]


def ended(pid: int, within: float = 20.0) -> bool:
    """Whether a process ends, or has ended; one that nobody has waited for yet has."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="session")
def executor(small):
    """Two processes, and the world that they learn in; starting them is what takes long here."""
    world = World(small("run.processes=2", "devices.0.count=4"))
    executor = executor_for(world)
    assert isinstance(executor, ProcessExecutor)
    yield executor, world
    executor.close()


@pytest.mark.parametrize("settings", [(), ("run.devices_per_node=2", "learner.momentum=0.5", "learner.lr=0.2")])
def test_the_same_run_to_the_last_bit_however_many_processes(small, settings: tuple[str, ...]) -> None:
    alone, many = (simulate(small(*SKEWED, *settings, f"run.processes={count}")) for count in (1, 2))
    for frame in ("rounds", "devices", "events"):
        assert_frame_equal(getattr(alone, frame), getattr(many, frame))
    for name, packed in alone.weights.items():
        np.testing.assert_array_equal(many.weights[name], packed)


def test_an_order_that_does_not_fit_is_an_answer_and_no_crash(executor, make_learner, make_order, send) -> None:
    processes, _ = executor
    foreign = send(make_order(make_learner()), node=2)
    ((outcome,),) = processes.learn([foreign], [[1]])
    assert "digest" in outcome.error
    (reply,) = processes.report([foreign], [[1]])
    assert reply.has_error()
    assert reply.error.reason == outcome.error


def test_what_is_no_order_is_an_answer_too(executor, make_learner, make_order, send) -> None:
    processes, world = executor
    broken = make_order(world.learner).to_records()
    del broken["order"]
    ((outcome,),) = processes.learn([send(broken)], [[0]])
    assert "order" in outcome.error


def test_an_exception_in_a_process_is_raised_here_with_its_traceback(executor, make_order, send) -> None:
    processes, world = executor
    orders = [send(make_order(world.learner), node) for node in (1, 2)]
    with pytest.raises(IndexError, match="out of range") as caught:
        processes.learn(orders, [[0], [99]])
    assert any("simulations/world.py" in note for note in caught.value.__notes__)


def test_a_process_that_is_killed_is_one_clear_error(small, make_learner, make_order, send) -> None:
    processes = ProcessExecutor(small().to_toml(), 1)
    try:
        os.kill(pids(processes)[0], signal.SIGKILL)
        assert ended(pids(processes)[0])
        with pytest.raises(FedtpError, match="was killed by signal 9"):
            processes.learn([send(make_order(make_learner()))], [[0]])
    finally:
        processes.close()


def test_processes_end_with_the_run(small) -> None:
    started: list[int] = []

    def overheard(world: World) -> ProcessExecutor:
        executor = executor_for(world)
        assert isinstance(executor, ProcessExecutor)
        started.extend(pids(executor))
        return executor

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(small("run.processes=2"), fail, executor=overheard)
    assert len(started) == 2
    assert all(ended(pid, within=0.5) for pid in started)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_a_command_that_is_interrupted_or_killed(tmp_path: Path, number: signal.Signals) -> None:
    command = "from simulations.cli import simulate; import typer; typer.run(simulate)"
    options = ["digits-rotating", "--processes=2", f"--out={tmp_path / 'run'}", "--set=server.rounds=9999"]
    run = subprocess.Popen([sys.executable, "-c", command, *options])
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    try:
        while len(started := [int(pid) for pid in children.read_text().split()]) < 2:
            assert run.poll() is None
            time.sleep(0.1)
        run.send_signal(number)
        assert run.wait(60) != 0
        assert all(ended(pid, within=60) for pid in started)
    finally:
        run.kill()


def test_errors_cross_from_one_process_to_another() -> None:
    error = pickle.loads(pickle.dumps(WireError("shape", "too long")))
    assert (str(error), error.reason) == ("too long", "shape")
