"""Flower's Grid in virtual time: the world between a ServerApp and the devices of a simulated fleet.

The grid hands each order to its device, and draws from the device's class how long the download, the work and the
upload take, what they cost, and whether the reply arrives at all. The server sees a reply when virtual time has
come to its arrival.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from numpy.typing import NDArray

from clients.training import Outcome
from fedtp.errors import FedtpError
from fedtp.wire import content_bytes
from simulations.devices import Fleet
from simulations.executors import Executor
from simulations.flower import RUN_ID, identify, number
from simulations.seeding import Purpose, generator


class FleetClock:
    """Virtual time. It stands still while anything is computed, and moves when the server waits."""

    def __init__(self) -> None:
        self._now = 0.0
        self._arrivals: list[float] = []

    def now(self) -> float:
        """Return the virtual time, s."""
        return self._now

    def expect(self, arrival: float) -> None:
        """Note that a message arrives at a time, s."""
        heapq.heappush(self._arrivals, arrival)

    def wait(self, until: float, messages: int) -> None:
        """Move to the time by which so many more messages have arrived, but not past `until`."""
        reached = until
        if messages:
            soonest = heapq.nsmallest(messages, self._arrivals)
            reached = min(until, soonest[-1]) if len(soonest) == messages else until
        self._now = max(self._now, reached)
        while self._arrivals and self._arrivals[0] <= self._now:
            heapq.heappop(self._arrivals)


@dataclass(frozen=True, eq=False)
class Errand:
    """An order's way to a device and back, as the world sees it and the server does not.

    Parameters
    ----------
    node
        The device's node id.
    started, arrived
        When the order was sent and the reply arrives, s; infinite if the reply is lost.
    bytes_down, bytes_up
        Size of the order and of the reply.
    compute_seconds, transfer_seconds
        How long the device computed, and how long it sent and received.
    joules
        Energy that the device spent.
    outcome
        What came of it on the device; None if it could not carry the order out.
    """

    node: int
    started: float
    arrived: float
    bytes_down: int
    bytes_up: int
    compute_seconds: float
    transfer_seconds: float
    joules: float
    outcome: Outcome | None


class FleetGrid(Grid):
    """A simulated fleet behind Flower's interface. Node ids are the devices' numbers plus 1.

    Parameters
    ----------
    fleet
        The devices.
    executor
        Does their learning.
    seed
        Of what varies from one transfer to the next.
    on_errand
        Told of every order, when it is sent.

    Attributes
    ----------
    clock
        The virtual clock, by which the server must live.
    """

    def __init__(
        self, fleet: Fleet, executor: Executor, *, seed: int, on_errand: Callable[[Errand], None] = lambda _: None
    ) -> None:
        identify()
        self.clock = FleetClock()
        self._fleet = fleet
        self._executor = executor
        self._seed = seed
        self._on_errand = on_errand
        self._sent = 0
        self._pushes = 0
        self._replies: dict[str, tuple[float, Message]] = {}

    def set_run(self, run: Run) -> None:
        """Do nothing: a simulated grid has one run."""

    @property
    def run(self) -> Run:
        """The grid's only run."""
        return Run.create_empty(RUN_ID)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message; deprecated by Flower in favour of ``Message(...)``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the node ids of the devices that are reachable now."""
        nodes: list[int] = (np.flatnonzero(self._fleet.available(self.clock.now())) + 1).tolist()
        return nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages on their way; return an id for each, by which its reply can be pulled.

        Raises
        ------
        FedtpError
            If a message is for a node that the fleet does not have.
        """
        messages = list(messages)
        ids = [str(self._sent + i) for i in range(len(messages))]
        for message, message_id in zip(messages, ids, strict=True):
            if not 1 <= message.metadata.dst_node_id <= len(self._fleet):
                raise FedtpError(f"There is no node {message.metadata.dst_node_id} in a fleet of {len(self._fleet)}.")
            number(message, message_id)
        self._sent += len(messages)
        replies = self._executor(messages)
        for message_id, (reply, _), errand in zip(ids, replies, self._errands(messages, replies), strict=True):
            if math.isfinite(errand.arrived):
                self._replies[message_id] = errand.arrived, reply
                self.clock.expect(errand.arrived)
            self._on_errand(errand)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to these messages that have arrived by now, in the order of arrival; each once."""
        now = self.clock.now()
        arrived = [i for i in message_ids if i in self._replies and self._replies[i][0] <= now]
        arrived.sort(key=lambda i: (self._replies[i][0], int(i)))
        return [self._replies.pop(i)[1] for i in arrived]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages and wait, in virtual time, until all replies have come or time is out.

        Without a time-out it does not wait for replies that are lost: it would for ever.
        """
        start = self.clock.now()
        ids = self.push_messages(messages)
        arrivals = [self._replies[i][0] for i in ids if i in self._replies]
        last = max(arrivals, default=start)
        if timeout is not None:
            last = min(last, start + timeout) if len(arrivals) == len(ids) else start + timeout
        self.clock.wait(last, 0)
        return self.pull_messages(ids)

    def _errands(self, messages: Sequence[Message], replies: Sequence[tuple[Message, Outcome | None]]) -> list[Errand]:
        """Work out, for all messages at once, how long everything takes and what it costs."""
        if not messages:
            return []
        fleet, now = self._fleet, self.clock.now()
        nodes = [message.metadata.dst_node_id for message in messages]
        device = np.array(nodes) - 1
        # A content that many share is measured once.
        contents = {id(message.content): message for message in messages}
        sizes = {key: content_bytes(message) for key, message in contents.items()}
        down = np.array([sizes[id(message.content)] for message in messages])
        up = np.array([0 if reply.has_error() else content_bytes(reply) for reply, _ in replies])
        flops = np.array([0.0 if outcome is None else outcome.flops for _, outcome in replies])
        variation = self._variation()
        transfer = down / (fleet.down_bytes_per_second * variation.down)[device]
        transfer += up / (fleet.up_bytes_per_second * variation.up)[device]
        compute = flops / fleet.flops_per_second[device]
        arrived = now + 2 * fleet.latency_seconds[device] + transfer + compute
        arrived[variation.lost[device]] = math.inf
        joules = compute * fleet.power_watts[device] + transfer * fleet.radio_watts[device]
        columns = (nodes, arrived.tolist(), down.tolist(), up.tolist(), compute.tolist(), transfer.tolist())
        return [
            Errand(node, now, arrival, size_down, size_up, computing, moving, energy, outcome)
            for node, arrival, size_down, size_up, computing, moving, energy, (_, outcome) in zip(
                *columns, joules.tolist(), replies, strict=True
            )
        ]

    def _variation(self) -> _Variation:
        """Draw how the links are now: for every device, whoever takes part, so that none shifts another's draw."""
        self._pushes += 1
        rng = generator(self._seed, Purpose.TRANSPORT, self._pushes)
        fleet = self._fleet
        return _Variation(
            down=_around_one(fleet.down_cv, rng),
            up=_around_one(fleet.up_cv, rng),
            lost=rng.random(len(fleet)) < fleet.loss_probability,
        )


@dataclass(frozen=True, eq=False)
class _Variation:
    down: NDArray[np.float64]
    up: NDArray[np.float64]
    lost: NDArray[np.bool_]


def _around_one(cv: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Log-normal factors with mean 1 and this coefficient of variation."""
    sigma = np.sqrt(np.log1p(cv**2))
    factors: NDArray[np.float64] = np.exp(sigma * rng.standard_normal(len(cv)) - sigma**2 / 2)
    return factors
