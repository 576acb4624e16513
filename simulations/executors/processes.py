"""Learning in several processes of this machine, on several cores.

A process is this interpreter, started afresh: it builds the world from the scenario by itself, and takes pickled calls
from its standard input until that ends. So it ends with the process that started it, however that ended, and wants
nothing of the program that a person started: neither a copy of its threads nor a second import of it.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clients.training import Outcome
from fedtp.errors import FedtpError
from fedtp.streaming.state import State
from fedtp.wire import Order, Report
from simulations.executors.executor import Devices
from simulations.executors.shard import ScenarioShard
from simulations.executors.sharded import ShardedExecutor

_SERVE = "from simulations.executors.processes import serve; serve()"


class ProcessExecutor(ShardedExecutor):
    """Learns in processes, one per shard.

    Parameters
    ----------
    scenario
        The scenario of the devices, as TOML.
    shards
        How many processes.
    devices_per_node
        How many devices a node hosts.
    """

    def __init__(self, scenario: str, shards: int, devices_per_node: int = 1) -> None:
        super().__init__([_Process(scenario) for _ in range(shards)], devices_per_node)


class _Process:
    """A shard in a process of its own.

    Parameters
    ----------
    scenario
        The scenario of its devices, as TOML.
    """

    def __init__(self, scenario: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)},
        )
        self._send(scenario)

    def learn(
        self, orders: Sequence[Order | FedtpError], which: Sequence[int], devices: Devices
    ) -> Callable[[], list[list[Outcome]]]:
        """Begin to carry out orders; see `simulations.executors.shard.Shard.learn`."""
        return self._call("learn", orders, which, devices)

    def report(self, devices: Devices) -> Callable[[], list[Report | str]]:
        """Begin to report on the last `learn`; see `simulations.executors.shard.Shard.report`."""
        return self._call("report", devices)

    def states(self) -> Callable[[], dict[int, State]]:
        """Begin to gather the states of its devices."""
        return self._call("states")

    def load_states(self, states: Mapping[int, State]) -> Callable[[], None]:
        """Begin to have its devices go on where others were."""
        return self._call("load_states", states)

    def close(self) -> None:
        """End the process, whatever it is doing: it holds nothing that is worth keeping."""
        self._process.kill()
        self._process.communicate()

    def _call(self, name: str, *arguments: object) -> Callable[[], Any]:
        self._send((name, arguments))
        return self._result

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(value, self._process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def _result(self) -> Any:
        assert self._process.stdout is not None
        try:
            value, error = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):  # it ended before its answer, or amidst it
            raise self._gone() from None
        if error is not None:
            raise error
        return value

    def _gone(self) -> FedtpError:
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return FedtpError(f"A process of the simulation {how}. If there was too little memory, lower run.processes.")


def serve() -> None:
    """Build the shard that standard input names, and answer calls to it with results or exceptions."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person interrupts the run, and the run ends its processes
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where all else goes that is printed
    try:
        scenario, shard = pickle.load(calls), None
        while True:
            name, arguments = pickle.load(calls)
            try:
                shard = shard or ScenarioShard(scenario)
                answer = pickle.dumps((getattr(shard, name)(*arguments), None), pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                answer = _told(error)
            answers.write(answer)
            answers.flush()
    except (EOFError, BrokenPipeError):
        pass  # the run has ended


def _told(error: Exception) -> bytes:
    """Pack an error with its traceback; of one that cannot be packed, what it says."""
    note = "In a process of the simulation:\n" + traceback.format_exc()
    error.add_note(note)
    try:
        packed = pickle.dumps((None, error))
        pickle.loads(packed)
    except Exception:
        other = RuntimeError(repr(error))
        other.add_note(note)
        packed = pickle.dumps((None, other))
    return packed
