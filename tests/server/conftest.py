"""Nodes that answer, dawdle, lie or keep silent, in a time of the test's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from flwr.app import Message

from fedtp.wire import Order, Report
from simulations.flower import number


class FakeClock:
    """Looks every second, and fails a test that would wait for ever."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waits = 0

    def now(self) -> float:
        return self.time

    def wait(self, until: float, messages: int) -> None:
        assert until > self.time
        self.waits += 1
        assert self.waits < 10_000
        self.time = min(self.time + 1.0, until)


class FakeGrid:
    """Nodes by id: each has the seconds it takes to answer its 1st, 2nd, ... order."""

    def __init__(self, clock: FakeClock, delays: dict[int, Callable[[int], float]]) -> None:
        self.clock = clock
        self.delays = delays
        self.nodes = list(delays)
        self.orders: dict[int, list[Order]] = defaultdict(list)
        self.answer: Callable[[Message, Order], Message] = honest
        self._mail: dict[str, tuple[float, Message]] = {}
        self._count = 0

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str | None]:
        return [self.push(message) for message in messages]

    def push(self, message: Message) -> str | None:
        self._count += 1
        node = message.metadata.dst_node_id
        order = Order.from_records(message.content)
        delay = self.delays[node](len(self.orders[node]))
        self.orders[node].append(order)
        number(message, f"m{self._count}")
        self._mail[f"m{self._count}"] = self.clock.time + delay, self.answer(message, order)
        return f"m{self._count}"

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        ids = list(message_ids)
        assert all(i in self._mail for i in ids), "asked twice for one reply"
        there = [i for i in ids if self._mail[i][0] <= self.clock.time]
        return [self._mail.pop(i)[1] for i in there]

    def rounds_of(self, node: int) -> list[int]:
        return [order.round for order in self.orders[node]]


def honest(message: Message, order: Order) -> Message:
    """Every weight becomes the node's id, learnt from 10 samples."""
    node = message.metadata.dst_node_id
    weights = {name: np.full(packed.size, node, np.float32) for name, packed in order.weights.items()}
    report = Report(order.digest, weights, dict.fromkeys(weights, 10), samples=10, correct=7)
    return Message(report.to_records(), reply_to=message)


@pytest.fixture(scope="session")
def honestly() -> Callable[[Message, Order], Message]:
    """How nodes answer if a test says nothing else."""
    return honest


@pytest.fixture
def make_grid() -> Callable[..., FakeGrid]:
    """Make grids, each with a clock of its own, of the seconds that each node takes to answer its n-th order."""
    return lambda delays: FakeGrid(FakeClock(), delays)
