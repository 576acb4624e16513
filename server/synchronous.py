"""Synchronous rounds: order, collect until enough have answered or the deadline has come, aggregate; and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count

from flwr.serverapp import Grid

from server.clock import Clock, wait_until
from server.layerwise import LayerwiseStrategy, Update
from server.mailbox import Mailbox, OrderKey
from server.round import Round
from server.selection import choose
from server.settings import ServerSpec
from server.verdict import Verdict


def run_synchronous(
    grid: Grid, strategy: LayerwiseStrategy, spec: ServerSpec, clock: Clock, on_round: Callable[[Round], None]
) -> None:
    """Run rounds until the run's time is over, none waiting for answers longer than until its deadline.

    A node that owes an answer gets no order until that has come or been given up for lost, so that a lost message
    costs a node one round and not all that follow.
    """
    mailbox = Mailbox(grid)
    start = 0.0
    for number in count(1):
        wait_until(start, clock)
        started, version = clock.now(), strategy.version
        late = [sent.node for sent, _ in mailbox.receive()]
        mailbox.give_up(started - spec.timeout_seconds)
        idle = set(grid.get_node_ids()) - mailbox.busy
        chosen = choose(
            idle,
            max(1, round(spec.fraction * len(idle))),
            strategy.learner.spec.seed,
            number,
            first=strategy.reactions.first(number),
        )
        mailbox.send(strategy.orders(chosen, number, started))
        verdicts, too_late = _collect(mailbox, strategy, spec, number, len(chosen), clock)
        late += too_late
        if _accepted(verdicts) < spec.quorum * len(chosen):
            verdicts = {key: _without_quorum(verdict) for key, verdict in verdicts.items()}
        strategy.aggregate(_updates(strategy, verdicts))
        start = max(start + spec.interval_seconds, clock.now())
        last = number >= spec.rounds and start > spec.duration_seconds * (1 - 1e-9)
        if last:
            wait_until(spec.duration_seconds, clock)
            late += [sent.node for sent, _ in mailbox.receive()]
        on_round(
            Round(
                number=number,
                started=started,
                ended=clock.now(),
                ordered=tuple(chosen),
                verdicts=verdicts,
                late=tuple(late),
                weights=dict(strategy.weights),
                aggregations=strategy.version - version,
            )
        )
        if last:
            return


def _collect(
    mailbox: Mailbox, strategy: LayerwiseStrategy, spec: ServerSpec, number: int, ordered: int, clock: Clock
) -> tuple[dict[OrderKey, Verdict], list[int]]:
    """Judge the replies to a round's orders until enough are accepted, none is left to come, or time is out.

    Returns
    -------
    tuple
        The verdicts, and the nodes whose replies came too late for their rounds.
    """
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
            if sent.order.round < number or accepted == enough:
                late.append(sent.node)
            else:
                verdicts[sent.key] = strategy.judge(sent, reply)
                accepted += verdicts[sent.key].status == "accepted"
        awaited = min(enough - accepted, mailbox.owed(number))
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
