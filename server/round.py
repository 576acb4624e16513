"""What happened in one round: what a schedule tells whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedtp.blocks import Packed
from fedtp.streaming.state import State
from server.mailbox import OrderKey
from server.verdict import Verdict


@dataclass(frozen=True)
class Round:
    """What happened in one round; in buffered mode, in one period of ``round_seconds``.

    Parameters
    ----------
    number
        From 1.
    started, ended
        When, s on the server's clock.
    ordered
        The nodes that got an order, in the order of sending.
    verdicts
        What became of the replies that came, by the order's node and time.
    late
        Nodes whose reply came after its order's round had been closed, and was left out.
    weights
        The weights after the round, packed by block.
    aggregations
        How many times a block was aggregated, divided by the number of blocks.
    waiting
        Orders that may still be answered in a later round: none in synchronous mode.
    epsilon
        The ε of what the model may have told of any device by now (`server.privacy`); None if there is no noise.
    state
        Returns all that the server knows now, to begin there another time: to be called before the next round.
    """

    number: int
    started: float
    ended: float
    ordered: tuple[int, ...]
    verdicts: Mapping[OrderKey, Verdict]
    late: tuple[int, ...]
    weights: Mapping[str, Packed]
    aggregations: float = 1.0
    waiting: frozenset[OrderKey] = frozenset()
    epsilon: float | None = None
    state: Callable[[], State] = field(default=lambda: State({}), repr=False)
