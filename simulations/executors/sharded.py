"""Learning elsewhere: the devices are dealt out to shards that work at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from flwr.app import Message

from clients.app import answer
from clients.training import Outcome
from fedtp.errors import FedtpError
from fedtp.streaming.state import State
from fedtp.wire import Order, Report
from simulations.executors.executor import Devices
from simulations.executors.fleet_state import stacked, unstacked
from simulations.executors.orders import distinct

T = TypeVar("T")


class RemoteShard(Protocol):
    """A `simulations.executors.shard.Shard` elsewhere: a call begins the work and returns what waits for its result."""

    def learn(
        self, orders: Sequence[Order | FedtpError], which: Sequence[int], devices: Devices
    ) -> Callable[[], list[list[Outcome]]]:
        """Begin to carry out orders."""
        ...

    def report(self, devices: Devices) -> Callable[[], list[Report | str]]:
        """Begin to report on the last `learn`."""
        ...

    def states(self) -> Callable[[], dict[int, State]]:
        """Begin to gather the states of its devices."""
        ...

    def load_states(self, states: Mapping[int, State]) -> Callable[[], None]:
        """Begin to have its devices go on where others were."""
        ...

    def close(self) -> None:
        """End it, whatever it is doing."""
        ...


class ShardedExecutor:
    """Deals nodes out to shards, a node's devices always to the same one, and puts together what they return.

    How many shards there are makes no difference to the results, but for the rounding of sums in recurrent networks.

    Parameters
    ----------
    shards
        At least one.
    devices_per_node
        How many devices a node hosts.
    """

    def __init__(self, shards: Sequence[RemoteShard], devices_per_node: int) -> None:
        self._shards = shards
        self._devices_per_node = devices_per_node

    def learn(self, messages: Sequence[Message], devices: Devices) -> list[list[Outcome]]:
        """Let devices of each message's node carry it out; return what came of it on each."""
        orders, which = distinct(messages)
        return self._gather(
            messages,
            lambda shard, nodes: shard.learn(orders, [which[i] for i in nodes], [devices[i] for i in nodes]),
        )

    def report(self, messages: Sequence[Message], devices: Devices) -> list[Message]:
        """Return the replies to some of the messages of the last `learn`."""
        reports = self._gather(messages, lambda shard, nodes: shard.report([devices[i] for i in nodes]))
        return [answer(message, report) for message, report in zip(messages, reports, strict=True)]

    def state(self) -> State:
        """Return what the devices must keep from one order to the next."""
        begun = [shard.states() for shard in self._shards]
        return stacked({number: state for states in begun for number, state in states().items()})

    def load_state(self, state: State) -> None:
        """Have the devices go on where those of another executor of the same world were."""
        parts: list[dict[int, State]] = [{} for _ in self._shards]
        for number, own in unstacked(state).items():
            parts[self._shard_of(number // self._devices_per_node + 1)][number] = own
        begun = [shard.load_states(states) for shard, states in zip(self._shards, parts, strict=True)]
        for done in begun:
            done()

    def close(self) -> None:
        """End the shards, whatever they are doing."""
        for shard in self._shards:
            shard.close()

    def _shard_of(self, node: int) -> int:
        return node % len(self._shards)

    def _gather(
        self, messages: Sequence[Message], call: Callable[[RemoteShard, Sequence[int]], Callable[[], list[T]]]
    ) -> list[T]:
        """Call every shard with the positions of its nodes' messages; return one result per message."""
        parts: list[list[int]] = [[] for _ in self._shards]
        for position, message in enumerate(messages):
            parts[self._shard_of(message.metadata.dst_node_id)].append(position)
        begun = [(nodes, call(shard, nodes)) for shard, nodes in zip(self._shards, parts, strict=True) if nodes]
        results: dict[int, T] = {}
        for nodes, result in begun:
            results.update(zip(nodes, result(), strict=True))
        return [results[position] for position in range(len(messages))]
