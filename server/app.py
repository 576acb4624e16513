"""The ServerApp: rounds, each with a start, a deadline and an end, whatever the devices do."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp

from fedtp.blocks import Packed
from fedtp.learner import Learner, learner_of
from server.clock import Clock, SystemClock
from server.layerwise import LayerwiseStrategy, Verdict, aggregation_for, score
from server.settings import ServerSpec

# Flower shows what its own logger and those below it are told.
log = logging.getLogger("flwr.fedtp")


@dataclass(frozen=True)
class Round:
    """What happened in one round.

    Parameters
    ----------
    number
        From 1.
    started, ended
        When, s on the server's clock.
    ordered
        The nodes that got an order.
    verdicts
        What became of the replies that came before the deadline, by node.
    late
        Nodes whose reply to an earlier round came after its deadline, and was left out.
    weights
        The weights after the round, packed by block.
    """

    number: int
    started: float
    ended: float
    ordered: tuple[int, ...]
    verdicts: Mapping[int, Verdict]
    late: tuple[int, ...]
    weights: Mapping[str, Packed]


def make_server_app(clock: Clock | None = None, on_round: Callable[[Round], None] | None = None) -> ServerApp:
    """Return a ServerApp that runs the rounds its run config asks for.

    Parameters
    ----------
    clock
        Where the server reads the time and waits; the computer's clock by default.
    on_round
        Called after every round.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        spec = ServerSpec.from_config(context.run_config)
        learner = learner_of(context.run_config)
        run_rounds(grid, learner, spec, clock or SystemClock(), on_round or _log_round)

    return app


def run_rounds(grid: Grid, learner: Learner, spec: ServerSpec, clock: Clock, on_round: Callable[[Round], None]) -> None:
    """Order, collect until the deadline, aggregate; again and again, never waiting longer than a round takes.

    A node that owes an answer gets no order in the next round. After that its answer is given up for lost, so that a
    lost message costs a node one round and not all that follow.
    """
    strategy = LayerwiseStrategy(
        learner,
        aggregation_for(spec.strategy, spec.strategy_options),
        fraction=spec.fraction,
        seed=learner.spec.seed,
    )
    # What was not answered in time in the last two rounds: nodes by message id.
    overdue: deque[dict[str, int]] = deque(maxlen=2)
    for number in range(1, spec.rounds + 1):
        started = max((number - 1) * spec.round_seconds, clock.now())
        _wait_until(started, clock)
        late = _pull_late(grid, overdue)
        busy = sorted(overdue[-1].values()) if overdue else []
        config = ConfigRecord({"now": float(clock.now()), "busy": busy})
        orders = list(strategy.configure_train(number, strategy.arrays(), config, grid))
        nodes = [order.metadata.dst_node_id for order in orders]
        # Flower gives no id to a message that it could not send.
        pending = {sent: node for sent, node in zip(grid.push_messages(orders), nodes, strict=False) if sent}
        replies = _collect(grid, pending, clock, started + spec.deadline_seconds)
        strategy.aggregate_train(number, replies)
        overdue.append(pending)
        if number == spec.rounds:
            _wait_until(spec.rounds * spec.round_seconds, clock)
            late += _pull_late(grid, overdue)
        on_round(
            Round(
                number=number,
                started=started,
                ended=clock.now(),
                ordered=tuple(nodes),
                verdicts=strategy.verdicts,
                late=tuple(reply.metadata.src_node_id for reply in late),
                weights=dict(strategy.weights),
            )
        )


def _collect(grid: Grid, pending: dict[str, int], clock: Clock, deadline: float) -> list[Message]:
    """Return the replies that come before the deadline; `pending` keeps the messages that were not answered."""
    replies = _pull(grid, pending)
    while pending and clock.now() < deadline:
        clock.wait(deadline, len(pending))
        replies += _pull(grid, pending)
    return replies


def _pull(grid: Grid, pending: dict[str, int]) -> list[Message]:
    """Return the nodes' replies to pending messages that are there, and strike those messages off."""
    replies = []
    for reply in grid.pull_messages(list(pending)) if pending else ():
        node = pending.pop(reply.metadata.reply_to_message_id, None)
        if node == reply.metadata.src_node_id:
            replies.append(reply)
        elif node is not None:  # Flower answers itself for a node that is gone
            log.warning("no answer from node %d: %s", node, reply.error.reason if reply.has_error() else "lost")
    return replies


def _pull_late(grid: Grid, overdue: Iterable[dict[str, int]]) -> list[Message]:
    return [reply for pending in overdue for reply in _pull(grid, pending)]


def _wait_until(time: float, clock: Clock) -> None:
    while clock.now() < time:
        clock.wait(time, 0)


def _log_round(done: Round) -> None:
    samples, correct = score(done.verdicts.values())
    log.info(
        "round %d: %d orders, %d replies, accuracy %s",
        done.number,
        len(done.ordered),
        len(done.verdicts),
        f"{correct / samples:.3f}" if samples else "unknown",
    )


#: The app that ``pyproject.toml`` names.
app = make_server_app()
