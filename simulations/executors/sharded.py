"""Learning elsewhere: the devices are dealt out to shards that work at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from flwr.app import Message

from clients.app import answer
from clients.training import Outcome
from fedtp.errors import FedtpError
from fedtp.wire import Order, Report
from simulations.executors.executor import Devices
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

    def close(self) -> None:
        """End it, whatever it is doing."""
        ...


class ShardedExecutor:
    """Deals nodes out to shards, a node's devices always to the same one, and puts together what they return.

    How many shards there are makes no difference to the results.

    Parameters
    ----------
    shards
        At least one.
    """

    def __init__(self, shards: Sequence[RemoteShard]) -> None:
        self._shards = shards

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

    def close(self) -> None:
        """End the shards, whatever they are doing."""
        for shard in self._shards:
            shard.close()

    def _gather(
        self, messages: Sequence[Message], call: Callable[[RemoteShard, Sequence[int]], Callable[[], list[T]]]
    ) -> list[T]:
        """Call every shard with the positions of its nodes' messages; return one result per message."""
        parts: list[list[int]] = [[] for _ in self._shards]
        for position, message in enumerate(messages):
            parts[message.metadata.dst_node_id % len(parts)].append(position)
        begun = [(nodes, call(shard, nodes)) for shard, nodes in zip(self._shards, parts, strict=True) if nodes]
        results: dict[int, T] = {}
        for nodes, result in begun:
            results.update(zip(nodes, result(), strict=True))
        return [results[position] for position in range(len(messages))]
