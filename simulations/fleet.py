"""Flower's Grid in virtual time: the world between a ServerApp and the devices of a simulated fleet.

The grid hands each order to its device, and draws from the device's class how long the download, the work and the
upload take, what they cost, and whether the reply arrives at all. The server sees a reply when virtual time has
come to its arrival.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from numpy.typing import NDArray

from clients.training import Outcome
from fedtp.errors import FedtpError
from fedtp.streaming.state import Part, State, parted, together
from fedtp.wire import content_bytes
from simulations.devices import Batteries, Fleet
from simulations.errand import Errand
from simulations.executors import Executor
from simulations.flower import RUN_ID, identify, number
from simulations.journeys import Journeys
from simulations.luck import Luck, LuckOfOrders
from simulations.virtual_time import FleetClock, Replies

#: Why an answer never arrives: its device could no longer be reached, ran out of power or dropped out while it worked
#: or transferred, or the message was lost.
WENT_OFF, BATTERY_EMPTY, GAVE_UP, LOST_ON_ITS_WAY = "went off", "battery empty", "dropped out", "lost on its way"


class FleetGrid(Grid):
    """A simulated fleet behind Flower's interface.

    Node n hosts the devices (n - 1) k to n k - 1, with k devices per node. With one, the device answers the server
    itself; with more the node is a gateway beside its devices: its own way to the server takes no time.

    Parameters
    ----------
    fleet
        The devices.
    executor
        Does their learning.
    seed
        Of what varies from one transfer to the next.
    devices_per_node
        How many devices a node hosts.
    patience_seconds
        How long after an order a gateway answers at the latest, with what its devices have sent by then.
    on_errand
        Told of every order to a device, when it is sent.

    Attributes
    ----------
    clock
        The virtual clock, by which the server must live.
    batteries
        What the devices' batteries hold.
    """

    def __init__(
        self,
        fleet: Fleet,
        executor: Executor,
        *,
        seed: int,
        devices_per_node: int = 1,
        patience_seconds: float = math.inf,
        on_errand: Callable[[Errand], None] = lambda _: None,
    ) -> None:
        identify()
        self.clock = FleetClock()
        self._fleet = fleet
        self._executor = executor
        self.batteries = Batteries(fleet.batteries)
        self._luck = LuckOfOrders(seed, len(fleet))
        self._devices_per_node = devices_per_node
        self._nodes = -(-len(fleet) // devices_per_node)
        self._patience = patience_seconds
        self._on_errand = on_errand
        self._sent = 0
        self._replies = Replies()

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
        """Return the ids of the nodes that are reachable now: those with a device that is."""
        devices = np.flatnonzero(self._reachable())
        nodes: list[int] = (np.unique(devices // self._devices_per_node) + 1).tolist()
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
            if not 1 <= message.metadata.dst_node_id <= self._nodes:
                raise FedtpError(f"There is no node {message.metadata.dst_node_id} in a fleet of {self._nodes}.")
            number(message, message_id)
        self._sent += len(messages)
        hosted = self._hosted([message.metadata.dst_node_id for message in messages])
        outcomes = self._executor.learn(messages, hosted)
        errands = self._errands(messages, hosted, outcomes)
        for errand in itertools.chain.from_iterable(errands):
            self._on_errand(errand)
        through = [[errand for errand in node if errand.delivered] for node in errands]
        answering = [position for position, node in enumerate(through) if node]
        replies = self._executor.report(
            [messages[position] for position in answering],
            [[errand.device for errand in through[position]] for position in answering],
        )
        for position, reply in zip(answering, replies, strict=True):
            arrival = max(errand.arrived for errand in through[position])
            self._replies.put(ids[position], arrival, reply)
            self.clock.expect(arrival)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to these messages that have arrived by now, in the order of arrival; each once."""
        return self._replies.take(message_ids, self.clock.now())

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages and wait, in virtual time, until all replies have come or time is out.

        Without a time-out it does not wait for replies that are lost: it would for ever.
        """
        start = self.clock.now()
        ids = self.push_messages(messages)
        arrivals = self._replies.arrivals(ids)
        last = max(arrivals, default=start)
        if timeout is not None:
            last = min(last, start + timeout) if len(arrivals) == len(ids) else start + timeout
        self.clock.wait(last, 0)
        return self.pull_messages(ids)

    def state(self) -> State:
        """Return the time, what is on its way, and all that has become of the devices beside what they learnt."""
        own = State({}, {"sent": self._sent})
        return together({"grid": own, **{name: part.state() for name, part in self._parts().items()}})

    def load_state(self, state: State) -> None:
        """Go on where the grid of another fleet of the same devices was.

        Raises
        ------
        DataError
            If it was of others; this one is of no use then.
        """
        parts = self._parts()
        states = parted(state, ["grid", *parts])
        self._sent = states["grid"].whole("sent")
        for name, part in parts.items():
            part.load_state(states[name])

    def _parts(self) -> dict[str, Part]:
        return {"clock": self.clock, "batteries": self.batteries, "luck": self._luck, "replies": self._replies}

    def _reachable(self) -> NDArray[np.bool_]:
        """Return which devices can be reached now: those that are there, and have power."""
        now = self.clock.now()
        self.batteries.advance(now)
        return self._fleet.availability.now(now) & self.batteries.alive

    def _hosted(self, nodes: Sequence[int]) -> list[list[int]]:
        """Return the devices of each node that take part: those that are reachable now."""
        count, reachable = self._devices_per_node, self._reachable()
        starts = [(node - 1) * count for node in nodes]
        return [(np.flatnonzero(reachable[start : start + count]) + start).tolist() for start in starts]

    def _errands(
        self, messages: Sequence[Message], hosted: Sequence[Sequence[int]], outcomes: Sequence[Sequence[Outcome]]
    ) -> list[list[Errand]]:
        """Work out, for all devices at once, how long everything takes, what it costs, and what breaks it off."""
        fleet, now = self._fleet, self.clock.now()
        counts = [len(devices) for devices in hosted]
        numbers = list(itertools.chain.from_iterable(hosted))
        done = list(itertools.chain.from_iterable(outcomes))
        device = np.array(numbers, np.intp)
        # A content that many share is measured once.
        contents = {id(message.content): message for message in messages}
        sizes = {key: content_bytes(message) for key, message in contents.items()}
        down = np.repeat(np.array([sizes[id(message.content)] for message in messages], np.int64), counts)
        up = np.array([outcome.bytes_up for outcome in done], np.int64)
        luck = self._luck.draw(device)
        journeys = Journeys.of(
            fleet,
            device,
            bytes_down=down,
            bytes_up=up,
            flops=np.array([outcome.flops for outcome in done]),
            down_factor=_around_one(fleet.down_cv[device], luck.down),
            up_factor=_around_one(fleet.up_cv[device], luck.up),
        )
        stop, fate = self._fates(device, journeys, luck)
        spent = journeys.broken_off(stop)
        self.batteries.spend(device, spent.joules)
        arrived = np.where(fate == "", now + journeys.device_seconds + journeys.back_seconds, math.inf)
        delivered = np.isfinite(arrived)
        if self._devices_per_node > 1:
            delivered &= arrived <= now + self._patience
        nodes = np.repeat(np.array([message.metadata.dst_node_id for message in messages], np.int64), counts)
        columns = (
            arrived,
            np.rint(down * spent.download_share).astype(np.int64),
            np.rint(up * spent.upload_share).astype(np.int64),
            spent.compute_seconds,
            spent.transfer_seconds,
            spent.joules,
        )
        rows = zip(
            nodes.tolist(),
            numbers,
            *(column.tolist() for column in columns),
            done,
            fate.tolist(),
            delivered.tolist(),
            strict=True,
        )
        errands = iter([Errand(node, number, now, *rest) for node, number, *rest in rows])
        return [list(itertools.islice(errands, count)) for count in counts]

    def _fates(
        self, device: NDArray[np.intp], journeys: Journeys, luck: Luck
    ) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
        """Return how long after the order each device stops working on it, infinite if it does not; and what is lost.

        What is lost has a reason, the first that there is.
        """
        fleet = self._fleet
        gives_up = luck.dropout < fleet.dropout_probability[device]
        stops = np.stack(
            [
                fleet.availability.remaining(self.clock.now(), device),
                journeys.until_exhausted(self.batteries.joules[device]),
                np.where(gives_up, journeys.until_dropped(luck.moment), math.inf),
            ]
        )
        stop = stops.min(0, initial=math.inf)
        broken = stop < journeys.device_seconds
        on_its_way = np.where(luck.loss < fleet.loss_probability[device], LOST_ON_ITS_WAY, "")
        reasons = np.array([WENT_OFF, BATTERY_EMPTY, GAVE_UP])[stops.argmin(0)]
        return np.where(broken, stop, math.inf), np.where(broken, reasons, on_its_way)


def _around_one(cv: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-normal factors with mean 1 and this coefficient of variation, from standard normal numbers."""
    sigma = np.sqrt(np.log1p(cv**2))
    factors: NDArray[np.float64] = np.exp(sigma * normal - sigma**2 / 2)
    return factors
