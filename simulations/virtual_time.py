"""Virtual time, and the replies that it brings."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np
from flwr.app import Message

from fedtp.errors import DataError
from fedtp.streaming.state import State
from simulations.flower import from_bytes, to_bytes


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

    def state(self) -> State:
        """Return the time, and those at which messages arrive."""
        return State({"arrivals": np.array(self._arrivals, np.float64), "now": np.array([self._now])})

    def load_state(self, state: State) -> None:
        """Move to the time of another clock.

        Raises
        ------
        DataError
            If it was none.
        """
        (now,), arrivals = state.array("now", 1).tolist(), state.typed("arrivals", np.float64, None)
        self._now, self._arrivals = now, arrivals.tolist()
        heapq.heapify(self._arrivals)


class Replies:
    """Replies on their way to the server, by the ids of the messages that they answer.

    An id is the number of the message, from 0: of replies that arrive at once the one to the earlier message is first.
    """

    def __init__(self) -> None:
        self._there: dict[str, tuple[float, Message]] = {}

    def put(self, message_id: str, arrival: float, reply: Message) -> None:
        """Send a reply on its way, which ends at a time, s."""
        self._there[message_id] = arrival, reply

    def arrivals(self, ids: Iterable[str]) -> list[float]:
        """Return when the replies to messages arrive, of those that are on their way."""
        return [self._there[i][0] for i in ids if i in self._there]

    def take(self, ids: Iterable[str], now: float) -> list[Message]:
        """Return the replies to messages that have arrived by a time, s, in the order of arrival; each once."""
        arrived = [i for i in ids if i in self._there and self._there[i][0] <= now]
        arrived.sort(key=lambda i: (self._there[i][0], int(i)))
        return [self._there.pop(i)[1] for i in arrived]

    def state(self) -> State:
        """Return the replies, one after the other as Flower sends them."""
        sent = [to_bytes(reply) for _, reply in self._there.values()]
        return State(
            {
                "ids": np.array([int(i) for i in self._there], np.int64),
                "arrivals": np.array([arrival for arrival, _ in self._there.values()], np.float64),
                "lengths": np.array([len(one) for one in sent], np.int64),
                "sent": np.frombuffer(b"".join(sent), np.uint8),
            }
        )

    def load_state(self, state: State) -> None:
        """Take over the replies that were on their way.

        Raises
        ------
        DataError
            If they are not whole.
        """
        lengths, sent = state.typed("lengths", np.int64, None), state.typed("sent", np.uint8, None)
        ids, arrivals = state.typed("ids", np.int64, len(lengths)), state.typed("arrivals", np.float64, len(lengths))
        if lengths.sum() != len(sent):
            raise DataError(f"the replies are {len(sent)} bytes long, not {lengths.sum()}")
        each = np.split(sent, np.cumsum(lengths)[:-1]) if len(lengths) else []
        replies = [from_bytes(one.tobytes()) for one in each]
        rows = zip(ids.tolist(), arrivals.tolist(), replies, strict=True)
        self._there = {str(number): (arrival, reply) for number, arrival, reply in rows}
