"""Buffered asynchronous aggregation (FedBuff, Nguyen et al. 2022, arXiv 2106.06639), block by block.

There are no rounds to wait for. A device gets its next order when it has answered the last one; what it has learnt
goes into a buffer of each block that it trained, and a buffer that is full becomes a new version of its block.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from flwr.serverapp import Grid

from server.clock import Clock
from server.layerwise import LayerwiseStrategy, Update
from server.mailbox import Mailbox, OrderKey, Sent
from server.round import Round
from server.selection import choose
from server.settings import ServerSpec
from server.staleness import staleness_weight
from server.verdict import Verdict

#: The server looks for answers so many times in the least time between two orders to a device.
TICKS = 20


def run_buffered(
    grid: Grid, strategy: LayerwiseStrategy, spec: ServerSpec, clock: Clock, on_round: Callable[[Round], None]
) -> None:
    """Keep a share of the fleet at work until the run's time is over; tell of every ``round_seconds`` as of a round."""
    buffers = Buffers(strategy, spec)
    dispatcher = Dispatcher(grid, strategy, spec)
    tick = spec.interval_seconds / TICKS
    for number in range(1, spec.rounds + 1):
        started, version = clock.now(), strategy.version
        ordered: list[int] = []
        verdicts: dict[OrderKey, Verdict] = {}
        end = number * spec.round_seconds
        while clock.now() < end:
            ordered += dispatcher.dispatch(number, clock.now())
            following = (math.floor(clock.now() / tick + 1e-6) + 1) * tick
            clock.wait(min(following, end), len(dispatcher.mailbox.waiting))
            # The order in which the replies of one tick came must not show in a sum.
            for sent, reply in sorted(dispatcher.mailbox.receive(), key=lambda answer: answer[0].key):
                verdicts[sent.key] = strategy.judge(sent, reply)
                buffers.add(sent, verdicts[sent.key])
        waiting = (sent.key for sent in dispatcher.mailbox.waiting.values())
        on_round(
            Round(
                number=number,
                started=started,
                ended=clock.now(),
                ordered=tuple(ordered),
                verdicts=verdicts,
                late=(),
                weights=dict(strategy.weights),
                aggregations=strategy.version - version,
                waiting=frozenset(waiting if number < spec.rounds else ()),
            )
        )


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
        idle = [node for node in there - busy if self._last.get(node, -np.inf) <= rested]
        first = self._strategy.reactions.first(number)
        chosen = choose(idle, free, self._strategy.learner.spec.seed, self._times, first=first)
        self.mailbox.send(self._strategy.orders(chosen, number, now) if chosen else [])
        self._last.update(dict.fromkeys(chosen, now))
        return chosen


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
