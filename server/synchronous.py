"""Synchronous rounds: order, collect until enough have answered or the deadline has come, aggregate; and again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from flwr.serverapp import Grid

from fedtp.streaming.state import State, parted, together
from server.clock import Clock, wait_until
from server.layerwise import LayerwiseStrategy, Update
from server.mailbox import Mailbox, OrderKey
from server.notes import Notes
from server.round import Round
from server.selection import choose
from server.settings import ServerSpec
from server.verdict import Verdict


class _Begun(Notes):
    """The rounds that have begun, and when the next one does."""

    number: int
    start: float


class Synchronous:
    """Rounds until the run's time is over, none waiting for answers longer than until its deadline.

    A node that owes an answer gets no order until that has come or been given up for lost, so that a lost message
    costs a node one round and not all that follow.

    Parameters
    ----------
    grid
        Flower's connection to the nodes.
    strategy
        Writes orders, judges replies, and aggregates.
    spec
        How long rounds are, and what they need.
    clock
        The server's.

    Attributes
    ----------
    number
        The rounds that have begun.
    start
        When the next one begins at the soonest, s.
    mailbox
        The orders on their way.
    """

    def __init__(self, grid: Grid, strategy: LayerwiseStrategy, spec: ServerSpec, clock: Clock) -> None:
        self.number = 0
        self.start = 0.0
        self.mailbox = Mailbox(grid)
        self._grid = grid
        self._strategy = strategy
        self._spec = spec
        self._clock = clock

    @property
    def over(self) -> bool:
        """Whether there are no more rounds."""
        spec = self._spec
        return self.number >= spec.rounds and self.start > spec.duration_seconds * (1 - 1e-9)

    def round(self) -> Round:
        """Wait for the start of the next round, and run it."""
        strategy, spec, clock, mailbox = self._strategy, self._spec, self._clock, self.mailbox
        self.number += 1
        wait_until(self.start, clock)
        started, version = clock.now(), strategy.version
        late = [sent.node for sent, _ in mailbox.receive()]
        mailbox.give_up(started - spec.timeout_seconds)
        idle = set(self._grid.get_node_ids()) - mailbox.busy
        idle.difference_update(strategy.reputation.quarantined(self.number))
        chosen = choose(
            idle,
            max(1, round(spec.fraction * len(idle))),
            strategy.learner.spec.seed,
            self.number,
            first=strategy.reactions.first(self.number),
        )
        mailbox.send(strategy.orders(chosen, self.number, started))
        verdicts, too_late = self._collect(len(chosen))
        late += too_late
        if _accepted(verdicts) < spec.quorum * len(chosen):
            verdicts = {key: _without_quorum(verdict) for key, verdict in verdicts.items()}
        strategy.aggregate(_updates(strategy, verdicts))
        self.start = max(self.start + spec.interval_seconds, clock.now())
        if self.over:
            wait_until(spec.duration_seconds, clock)
            late += [sent.node for sent, _ in mailbox.receive()]
        return Round(
            number=self.number,
            started=started,
            ended=clock.now(),
            ordered=tuple(chosen),
            verdicts=verdicts,
            late=tuple(late),
            weights=dict(strategy.weights),
            aggregations=strategy.version - version,
            epsilon=strategy.privacy.epsilon,
            state=self.state,
        )

    def state(self) -> State:
        """Return all that is known between two rounds."""
        own = State({}, _Begun(number=self.number, start=self.start).saved())
        return together({"rounds": own, "strategy": self._strategy.state(), "mailbox": self.mailbox.state()})

    def load_state(self, state: State) -> None:
        """Go on where another schedule with the same arguments was.

        Raises
        ------
        DataError
            If it was none; this one is of no use then.
        """
        states = parted(state, ["rounds", "strategy", "mailbox"])
        own = _Begun.of(states["rounds"])
        self._strategy.load_state(states["strategy"])
        self.mailbox.load_state(states["mailbox"])
        self.number, self.start = own.number, own.start

    def _collect(self, ordered: int) -> tuple[dict[OrderKey, Verdict], list[int]]:
        """Judge the replies to so many orders until enough are accepted, none is left to come, or time is out.

        Returns
        -------
        tuple
            The verdicts, and the nodes whose replies came too late for their rounds.
        """
        spec, clock, mailbox = self._spec, self._clock, self.mailbox
        started = clock.now()
        deadline = started + spec.deadline_seconds
        if started < spec.duration_seconds:
            deadline = min(deadline, spec.duration_seconds)
        enough = math.ceil(ordered / (1 + spec.over_selection))
        accepted = 0
        verdicts: dict[OrderKey, Verdict] = {}
        late: list[int] = []
        while True:
            for sent, reply in mailbox.receive():
                if sent.order.round < self.number or accepted == enough:
                    late.append(sent.node)
                else:
                    verdicts[sent.key] = self._strategy.judge(sent, reply)
                    accepted += verdicts[sent.key].status == "accepted"
            awaited = min(enough - accepted, mailbox.owed(self.number))
            if not awaited or clock.now() >= deadline:
                # The order in which replies came must not show in a sum.
                return dict(sorted(verdicts.items())), late
            clock.wait(deadline, awaited)


def _accepted(verdicts: Mapping[OrderKey, Verdict]) -> int:
    return sum(verdict.status == "accepted" for verdict in verdicts.values())


def _without_quorum(verdict: Verdict) -> Verdict:
    """Refuse an update because too few others came in its round; its scores still count."""
    if verdict.status != "accepted":
        return verdict
    return replace(verdict, status="refused", reason="quorum", detail="too few updates came in its round")


def _updates(strategy: LayerwiseStrategy, verdicts: Mapping[OrderKey, Verdict]) -> dict[str, list[Update]]:
    """Return the accepted updates of each block."""
    updates: dict[str, list[Update]] = {name: [] for name in strategy.weights}
    for verdict in verdicts.values():
        if verdict.status == "accepted" and verdict.report is not None:
            for name, weights in verdict.report.weights.items():
                updates[name].append((weights, verdict.report.examples[name]))
    return updates
