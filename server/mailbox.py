"""Orders on their way: which node owes an answer to what."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fedtp.errors import DataError
from fedtp.streaming.state import State
from fedtp.wire import Order
from server.notes import Notes

# Flower shows what its own logger and those below it are told.
log = logging.getLogger("flwr.fedtp")

#: An order by its node and time, s: no node gets two at once.
OrderKey = tuple[int, float]


@dataclass(frozen=True, eq=False)
class Sent:
    """An order for a node.

    Parameters
    ----------
    node
        Whom it is for.
    order
        What is asked. Nodes that are asked for the same share one, which is then written once.
    versions
        How often each block of its weights had been aggregated.
    """

    node: int
    order: Order
    versions: Mapping[str, int]

    @property
    def key(self) -> OrderKey:
        """The order's node and time, s."""
        return self.node, self.order.now


class _SavedOrder(Notes):
    """An order, and how often its weights had been aggregated; weights are places in a list of arrays."""

    round: int
    now: float
    digest: str
    weights: dict[str, int]
    blocks: tuple[str, ...]
    paces: tuple[float, ...]
    versions: dict[str, int]
    clip: float = 0.0


class _Waiting(Notes):
    """Orders, and who has which of them: message ids with node and place of the order."""

    orders: list[_SavedOrder]
    sent: list[tuple[str, int, int]]


class Mailbox:
    """Sends orders, and tells which answer belongs to which.

    Parameters
    ----------
    grid
        Flower's connection to the nodes.

    Attributes
    ----------
    waiting
        The orders that have no answer yet, by message id.
    """

    def __init__(self, grid: Grid) -> None:
        self.waiting: dict[str, Sent] = {}
        self._grid = grid

    @property
    def busy(self) -> set[int]:
        """The nodes that owe an answer."""
        return {sent.node for sent in self.waiting.values()}

    def send(self, orders: Sequence[Sent]) -> list[str]:
        """Send orders on their way; return the message ids of those that could be sent."""
        # Messages that share one content are written, measured and, in a simulation, read once.
        contents = {id(sent.order): sent.order for sent in orders}
        records = {key: order.to_records() for key, order in contents.items()}
        messages = [Message(records[id(sent.order)], sent.node, MessageType.TRAIN) for sent in orders]
        # Flower gives no id to a message that it could not send.
        pushed = self._grid.push_messages(messages) if messages else ()
        ids = {message_id: sent for message_id, sent in zip(pushed, orders, strict=False) if message_id}
        self.waiting.update(ids)
        return list(ids)

    def receive(self) -> list[tuple[Sent, Message]]:
        """Return the answers that are there, each once, with the order that each answers."""
        answers = []
        for reply in self._grid.pull_messages(list(self.waiting)) if self.waiting else ():
            sent = self.waiting.pop(reply.metadata.reply_to_message_id, None)
            if sent is None:  # nobody asked for it
                continue
            if reply.metadata.src_node_id == sent.node:
                answers.append((sent, reply))
            else:  # Flower answers itself for a node that is gone
                reason = reply.error.reason if reply.has_error() else "lost"
                log.warning("no answer from node %d: %s", sent.node, reason)
        return answers

    def owed(self, number: int) -> int:
        """Return how many of a round's orders have no answer yet."""
        return sum(sent.order.round == number for sent in self.waiting.values())

    def give_up(self, before: float) -> None:
        """Wait no longer for answers to orders that were sent before a time, s, or then."""
        self.waiting = {key: sent for key, sent in self.waiting.items() if sent.order.now > before}

    def state(self) -> State:
        """Return the orders that wait, each of those that nodes share once; and each array that orders share."""
        shared = {id(sent.order): sent for sent in self.waiting.values()}
        arrays = {id(packed): packed for sent in shared.values() for packed in sent.order.weights.values()}
        places = {key: place for place, key in enumerate(shared)}
        rows = {key: row for row, key in enumerate(arrays)}
        orders = [
            _SavedOrder(
                round=order.round,
                now=order.now,
                digest=order.digest,
                weights={name: rows[id(packed)] for name, packed in order.weights.items()},
                blocks=order.blocks,
                paces=order.paces,
                versions=dict(sent.versions),
                clip=order.clip,
            )
            for sent in shared.values()
            for order in [sent.order]
        ]
        sent = [(message_id, one.node, places[id(one.order)]) for message_id, one in self.waiting.items()]
        return State(
            {str(rows[key]): packed for key, packed in arrays.items()}, _Waiting(orders=orders, sent=sent).saved()
        )

    def load_state(self, state: State) -> None:
        """Wait for what another mailbox on the same grid waits for.

        Raises
        ------
        DataError
            If it was none.
        """
        notes = _Waiting.of(state)
        arrays = [state.typed(str(row), np.float32, None) for row in range(len(state.arrays))]
        try:
            orders = [
                Order(
                    one.round,
                    one.now,
                    one.digest,
                    {name: arrays[row] for name, row in one.weights.items()},
                    one.blocks,
                    one.paces,
                    clip=one.clip,
                )
                for one in notes.orders
            ]
            self.waiting = {
                message_id: Sent(node, orders[place], notes.orders[place].versions)
                for message_id, node, place in notes.sent
            }
        except IndexError:
            raise DataError("an order on its way, or its weights, is missing") from None
