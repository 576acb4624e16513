"""The orders in messages."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import Message

from clients.app import read
from fedtp.errors import FedtpError
from fedtp.wire import Order


def distinct(messages: Sequence[Message]) -> tuple[list[Order | FedtpError], list[int]]:
    """Return the orders in messages, and for each message the index of its own.

    A server sends one and the same content to many: it is read once.
    """
    places: dict[int, int] = {}
    orders: list[Order | FedtpError] = []
    which = []
    for message in messages:
        place = places.setdefault(id(message.content), len(orders))
        if place == len(orders):
            orders.append(read(message))
        which.append(place)
    return orders, which
