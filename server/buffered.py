"""Buffered asynchronous aggregation (FedBuff, Nguyen et al. 2022, arXiv 2106.06639), block by block.

There are no rounds to wait for. A device gets its next order when it has answered the last one; what it has learnt
goes into a buffer of each block that it trained, and a buffer that is full becomes a new version of its block.
"""

from __future__ import annotations

import math

import numpy as np
from flwr.serverapp import Grid

from fedtp.streaming.state import Part, State, counts, parted, together
from server.clock import Clock
from server.layerwise import LayerwiseStrategy, Update
from server.mailbox import Mailbox, OrderKey, Sent
from server.notes import Notes, by_node, of_nodes
from server.round import Round
from server.selection import choose
from server.settings import ServerSpec
from server.staleness import staleness_weight
from server.verdict import Verdict

#: The server looks for answers so many times in the least time between two orders to a device.
TICKS = 20


class Buffered:
    """A share of the fleet at work until the run's time is over; every ``round_seconds`` are told of as a round.

    Parameters
    ----------
    grid
        Flower's connection to the nodes.
    strategy
        Writes orders, judges replies, and aggregates.
    spec
        Who may be at work, and how much is aggregated at a time.
    clock
        The server's.

    Attributes
    ----------
    number
        The rounds that have begun.
    dispatcher
        Sends orders.
    buffers
        Collect updates.
    """

    def __init__(self, grid: Grid, strategy: LayerwiseStrategy, spec: ServerSpec, clock: Clock) -> None:
        self.number = 0
        self.dispatcher = Dispatcher(grid, strategy, spec)
        self.buffers = Buffers(strategy, spec)
        self._strategy = strategy
        self._spec = spec
        self._clock = clock

    @property
    def mailbox(self) -> Mailbox:
        """The orders on their way."""
        return self.dispatcher.mailbox

    @property
    def over(self) -> bool:
        """Whether there are no more rounds."""
        return self.number >= self._spec.rounds

    def round(self) -> Round:
        """Keep the fleet at work for the next ``round_seconds``."""
        strategy, spec, clock, mailbox = self._strategy, self._spec, self._clock, self.mailbox
        self.number += 1
        started, version = clock.now(), strategy.version
        ordered: list[int] = []
        verdicts: dict[OrderKey, Verdict] = {}
        end, tick = self.number * spec.round_seconds, spec.interval_seconds / TICKS
        while clock.now() < end:
            ordered += self.dispatcher.dispatch(self.number, clock.now())
            following = (math.floor(clock.now() / tick + 1e-6) + 1) * tick
            clock.wait(min(following, end), len(mailbox.waiting))
            # The order in which the replies of one tick came must not show in a sum.
            for sent, reply in sorted(mailbox.receive(), key=lambda answer: answer[0].key):
                verdicts[sent.key] = strategy.judge(sent, reply)
                self.buffers.add(sent, verdicts[sent.key])
        return Round(
            number=self.number,
            started=started,
            ended=clock.now(),
            ordered=tuple(ordered),
            verdicts=verdicts,
            late=(),
            weights=dict(strategy.weights),
            aggregations=strategy.version - version,
            waiting=frozenset(() if self.over else (sent.key for sent in mailbox.waiting.values())),
            epsilon=strategy.privacy.epsilon,
            state=self.state,
        )

    def state(self) -> State:
        """Return all that is known between two rounds."""
        own = State({}, {"number": self.number})
        return together({"rounds": own, **{name: part.state() for name, part in self._parts().items()}})

    def load_state(self, state: State) -> None:
        """Go on where another schedule with the same arguments was.

        Raises
        ------
        DataError
            If it was none; this one is of no use then.
        """
        parts = self._parts()
        states = parted(state, ["rounds", *parts])
        number = states["rounds"].whole("number")
        for name, part in parts.items():
            part.load_state(states[name])
        self.number = number

    def _parts(self) -> dict[str, Part]:
        return {"strategy": self._strategy, "dispatcher": self.dispatcher, "buffers": self.buffers}


class _Dispatched(Notes):
    """How often orders were sent, and the times, s, at which nodes got their last ones."""

    times: int
    last: list[float]


class Dispatcher:
    """Sends orders to nodes that are free, as many as may be at work at a time.

    Parameters
    ----------
    grid
        Flower's connection to the nodes.
    strategy
        Writes the orders.
    spec
        ``fraction``: the share of the fleet that may be at work. ``interval_seconds``: no node gets an order sooner
        after its last one; there would be nothing new to learn from. ``timeout_seconds``: an order that is not
        answered for so long is given up for lost.

    Attributes
    ----------
    mailbox
        The orders on their way.
    """

    def __init__(self, grid: Grid, strategy: LayerwiseStrategy, spec: ServerSpec) -> None:
        self.mailbox = Mailbox(grid)
        self._grid = grid
        self._strategy = strategy
        self._spec = spec
        self._times = 0
        self._last: dict[int, float] = {}

    def dispatch(self, number: int, now: float) -> list[int]:
        """Give up what is lost, send orders, and return to whom."""
        self._times += 1
        self.mailbox.give_up(now - self._spec.timeout_seconds)
        there, busy = set(self._grid.get_node_ids()), self.mailbox.busy
        # Devices that leave make a fleet smaller than it was when orders were sent.
        free = max(0, max(1, round(self._spec.fraction * len(there | busy))) - len(busy))
        rested = now - self._spec.interval_seconds * (1 - 1e-6)  # times in floating point are not exact
        trusted = there - busy - set(self._strategy.reputation.quarantined(number))
        idle = [node for node in trusted if self._last.get(node, -np.inf) <= rested]
        first = self._strategy.reactions.first(number)
        chosen = choose(idle, free, self._strategy.learner.spec.seed, self._times, first=first)
        self.mailbox.send(self._strategy.orders(chosen, number, now) if chosen else [])
        self._last.update(dict.fromkeys(chosen, now))
        return chosen

    def state(self) -> State:
        """Return the orders on their way, and when each node got its last one."""
        nodes, last = by_node(self._last)
        own = State({"last": nodes}, _Dispatched(times=self._times, last=last).saved())
        return together({"own": own, "mailbox": self.mailbox.state()})

    def load_state(self, state: State) -> None:
        """Go on where another dispatcher with the same arguments was.

        Raises
        ------
        DataError
            If it was none; this one is of no use then.
        """
        states = parted(state, ["own", "mailbox"])
        own = _Dispatched.of(states["own"])
        last = of_nodes(states["own"], "last", own.last)
        self.mailbox.load_state(states["mailbox"])
        self._times, self._last = own.times, last


class Buffers:
    """Collects updates of each block, and aggregates a block when there are enough.

    An update is what a device changed in the weights that it was sent. It is applied to the weights as they are now,
    the less the more often these have been aggregated since: for an aggregation, the device's weights are the current
    ones and its change times the weight of its staleness.

    Parameters
    ----------
    strategy
        Holds the weights, and aggregates them.
    spec
        ``buffer_size``, and the ``staleness`` function.
    """

    def __init__(self, strategy: LayerwiseStrategy, spec: ServerSpec) -> None:
        self._strategy = strategy
        self._size = spec.buffer_size
        self._weight = staleness_weight(spec.staleness, spec.staleness_a, spec.staleness_b)
        self._updates: dict[str, list[Update]] = {name: [] for name in strategy.weights}

    def add(self, sent: Sent, verdict: Verdict) -> None:
        """Take the updates of an accepted report."""
        if verdict.status != "accepted" or verdict.report is None:
            return
        for name, weights in verdict.report.weights.items():
            # The buffer empties when the version changes, so the weights stay what they are while it fills.
            current, staleness = self._strategy.weights[name], self._strategy.versions[name] - sent.versions[name]
            change = np.float32(self._weight(staleness)) * (weights - sent.order.weights[name])
            self._updates[name].append((current + change, verdict.report.examples[name]))
            if len(self._updates[name]) == self._size:
                self._strategy.aggregate({name: self._updates[name]})
                self._updates[name] = []

    def state(self) -> State:
        """Return the updates that wait for more, block by block."""
        sizes = {name: len(packed) for name, packed in self._strategy.weights.items()}
        arrays = {
            name: np.array([weights for weights, _ in updates], np.float32).reshape(-1, sizes[name])
            for name, updates in self._updates.items()
        }
        return State(arrays, {name: [examples for _, examples in held] for name, held in self._updates.items()})

    def load_state(self, state: State) -> None:
        """Go on where others with the same arguments were.

        Raises
        ------
        DataError
            If these were none.
        """
        updates = {}
        for name, packed in self._strategy.weights.items():
            rows = state.typed(name, np.float32, None, len(packed))
            examples = counts(state.record.get(name), len(rows), f"the examples of block {name}")
            updates[name] = list(zip(rows, examples, strict=True))
        self._updates = updates
