"""Learning in shards over a Ray cluster: the one that ``RAY_ADDRESS`` names, or one on this machine for the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from clients.training import Outcome
from fedtp.errors import FedtpError
from fedtp.streaming.state import State
from fedtp.wire import Order, Report
from simulations.executors.executor import Devices
from simulations.executors.shard import ScenarioShard
from simulations.executors.sharded import ShardedExecutor

#: Of a cluster that is started for the run: what does not fit into it goes to disk.
_OBJECT_STORE_BYTES = 256 * 2**20


class RayExecutor(ShardedExecutor):
    """Learns in actors, one per shard. A cluster's machines need fedtp and the data where this one has them.

    Parameters
    ----------
    scenario
        The scenario of the devices, as TOML.
    shards
        How many actors, each with a core of its own.
    devices_per_node
        How many devices a node hosts.

    Raises
    ------
    FedtpError
        If Ray is not installed, or there is no cluster at ``RAY_ADDRESS``.
    """

    def __init__(self, scenario: str, shards: int, devices_per_node: int = 1) -> None:
        self._ray = _ray()
        self._started = not self._ray.is_initialized()
        if self._started:
            _connect(self._ray, shards)
        super().__init__([_Actor(self._ray, scenario) for _ in range(shards)], devices_per_node)

    def close(self) -> None:
        """End the actors, and the cluster if it was started for them."""
        super().close()
        if self._started:
            self._ray.shutdown()


class _Actor:
    def __init__(self, ray: ModuleType, scenario: str) -> None:
        self._ray = ray
        self._shard = ray.remote(num_cpus=1)(ScenarioShard).remote(scenario)

    def learn(
        self, orders: Sequence[Order | FedtpError], which: Sequence[int], devices: Devices
    ) -> Callable[[], list[list[Outcome]]]:
        return self._result(self._shard.learn.remote(orders, which, devices))

    def report(self, devices: Devices) -> Callable[[], list[Report | str]]:
        return self._result(self._shard.report.remote(devices))

    def states(self) -> Callable[[], dict[int, State]]:
        return self._result(self._shard.states.remote())

    def load_states(self, states: Mapping[int, State]) -> Callable[[], None]:
        return self._result(self._shard.load_states.remote(states))

    def close(self) -> None:
        self._ray.kill(self._shard)

    def _result(self, pending: Any) -> Callable[[], Any]:
        errors = self._ray.exceptions

        def wait() -> Any:
            try:
                return self._ray.get(pending)
            except errors.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, FedtpError) else error) from None
            except errors.RayActorError as error:
                raise FedtpError(f"A Ray actor of the simulation has ended: {error}") from None

        return wait


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise FedtpError('run.executor is "ray", but Ray is not installed: pip install "fedtp[ray]"') from None
    module: ModuleType = ray
    return module


def _connect(ray: ModuleType, cores: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
    cluster = os.environ.get("RAY_ADDRESS")
    local = {"num_cpus": cores, "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(cluster or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if cluster else local))
    except (OSError, RuntimeError, ValueError) as error:
        where = f"There is no Ray cluster at RAY_ADDRESS={cluster}" if cluster else "Ray does not start on this machine"
        raise FedtpError(f"{where}: {error}") from None
