"""The runs of a sweep, carried out in processes of their own.

A worker that dies takes one run with it and no more; workers whose sweep died find nobody to tell, and end.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from threadpoolctl import threadpool_limits

from fedtp.errors import FedtpError
from simulations.sweeps.plan import Trial


@dataclass(frozen=True)
class Begun:
    """A run has begun."""

    trial: Trial


@dataclass(frozen=True)
class Advanced:
    """A run has come so far: `done` of its rounds, as a share."""

    trial: Trial
    done: float


@dataclass(frozen=True)
class Finished:
    """A run is in its folder, after so many seconds of the computer's time."""

    trial: Trial
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A run could not be carried out.

    Parameters
    ----------
    trial
        Which.
    reason
        Why, in one line.
    detail
        The same at length.
    """

    trial: Trial
    reason: str
    detail: str = ""


Event = Begun | Advanced | Finished | Failed


class _Worker:
    """A process that carries out one run after the other."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")  # PyTorch's threads do not survive a fork
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, folder))
        self.process.start()
        theirs.close()
        self.trial: Trial | None = None

    def order(self, trial: Trial) -> None:
        self.trial = trial
        with suppress(OSError):  # that the process has died is what `next_event` will tell
            self.connection.send(trial)

    def next_event(self) -> Event:
        assert self.trial is not None
        try:
            event: Event = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"
            event = Failed(self.trial, f"its process ended {how}")
        return event

    def end(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def carry_out(trials: Sequence[Trial], folder: Path, jobs: int) -> Generator[Event, None, None]:
    """Carry out runs, so many at a time; whoever stops listening ends those that are going on.

    Parameters
    ----------
    trials
        The runs.
    folder
        Where their folders shall be.
    jobs
        How many processes.

    Yields
    ------
    Event
        What happens, when it happens.
    """
    waiting = deque(trials)
    workers: dict[Connection, _Worker] = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                worker = _Worker(folder)
                workers[worker.connection] = worker
                worker.order(waiting.popleft())
                assert worker.trial is not None
                yield Begun(worker.trial)
            for connection in wait(list(workers)):
                worker = workers[connection]  # type: ignore[index]
                event = worker.next_event()
                yield event
                if isinstance(event, Advanced):
                    continue
                if waiting and worker.process.is_alive():
                    worker.order(trial := waiting.popleft())
                    yield Begun(trial)
                else:
                    del workers[worker.connection]
                    worker.end()
    finally:
        for worker in workers.values():
            worker.end()


def _serve(connection: Connection, folder: Path) -> None:
    """Carry out the runs that come through a connection, until it breaks off."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at Ctrl-C the sweep ends its workers itself
    try:
        while True:
            trial = connection.recv()
            connection.send(_carry_out(trial, folder, connection))
    except (EOFError, OSError):
        return


def _carry_out(trial: Trial, folder: Path, connection: Connection) -> Event:
    from simulations.checkpoints import Checkpoints
    from simulations.simulation import Progress, simulate  # takes seconds

    def show(at: Progress) -> None:
        connection.send(Advanced(trial, at.round / at.rounds))

    began = time.perf_counter()
    try:
        with threadpool_limits(trial.scenario.run.threads):
            checkpoints = Checkpoints.of(trial.scenario, folder / trial.name)
            run = simulate(trial.scenario, on_round=show, checkpoints=checkpoints)
        # An earlier sweep that was killed may have left a worker that has just finished the same run.
        run.save(folder / trial.name, force=True)
    except FedtpError as error:
        return Failed(trial, " ".join(str(error).split()))
    except BrokenPipeError:
        raise
    except Exception as error:
        last = traceback.format_exception_only(error)[-1].strip()
        return Failed(trial, last, traceback.format_exc())
    return Finished(trial, time.perf_counter() - began)
