"""What the tests of the federation share: a small network, streams that a test writes, orders, small scenarios."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Message, MessageType

from clients.training import Outcome
from fedtp.data.stream import Samples
from fedtp.learner import Learner, learner_for
from fedtp.learner_spec import LearnerSpec
from fedtp.wire import Order
from simulations.executors import Devices, Executor, InlineExecutor
from simulations.flower import identify, number
from simulations.scenario import Scenario
from simulations.world import World

FEATURES, CLASSES = 6, 3

SCENARIO = """
title = "Small"

[data]
name = "digits"

[arrival]
rate = 0.2

[concepts.turned]
kind = "rotation"
degrees = 90

[learner]
hidden = [16]
batch_size = 5

[server]
rounds = 4
round_seconds = 60

[[devices]]
class = "pi"
count = 5
"""


def pytest_configure() -> None:
    """Have interrupts reach what tests start, also where a shell has started these in its background without them."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


#: Slow tests that follow each other are put so many parts of the suite apart.
PARTS = 6


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the slow tests over the suite: its workers begin in different places, and many of these only wait."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if not item.get_closest_marker("slow")]
    apart = [item for part in range(PARTS) for item in slow[part::PARTS]]
    # Between two modules: what the tests of one share would be made again after each interruption.
    between = [place for place, item in enumerate(others) if not place or item.path != others[place - 1].path] or [0]
    places = np.linspace(0, len(between), len(apart), endpoint=False).astype(int).tolist()
    for place, item in reversed(list(zip(places, apart, strict=True))):
        others.insert(between[place], item)
    items[:] = others


class Overheard:
    """An executor that tells what came of orders, and shows the replies before they are sent."""

    def __init__(self, executor: Executor, learnt: Callable, replied: Callable) -> None:
        self._executor, self._learnt, self._replied = executor, learnt, replied

    def learn(self, messages: Sequence[Message], devices: Devices) -> list[list[Outcome]]:
        outcomes = self._executor.learn(messages, devices)
        self._learnt(messages, outcomes)
        return outcomes

    def report(self, messages: Sequence[Message], devices: Devices) -> list[Message]:
        replies = self._executor.report(messages, devices)
        self._replied(replies)
        return replies

    def close(self) -> None:
        self._executor.close()


class ScriptedStream:
    """Yields one list entry per order, whatever the time."""

    def __init__(self, takes: Sequence[Samples]) -> None:
        self.position = 0
        self._takes = takes
        self._next = 0

    def take(self, now: float) -> Samples:
        samples = self._takes[self._next] if self._next < len(self._takes) else draw(0)
        self._next += 1
        self.position += len(samples)
        return samples


def draw(count: int, seed: int = 0) -> Samples:
    """Draw samples of three classes about three centres."""
    rng = np.random.default_rng(seed)
    y = rng.integers(CLASSES, size=count)
    centres = np.random.default_rng(7).normal(size=(CLASSES, FEATURES)) * 2
    x = (centres[y] + rng.normal(size=(count, FEATURES))).astype(np.float32)
    return Samples(x, y.astype(np.int64), np.arange(count, dtype=np.float64))


@pytest.fixture(autouse=True, scope="session")
def _process() -> None:
    identify()
    torch.set_num_threads(1)  # more of them only get in each other's way on networks of this size


@pytest.fixture(scope="session")
def samples() -> Callable[..., Samples]:
    return draw


@pytest.fixture(scope="session")
def stream() -> Callable[[Sequence[Samples]], ScriptedStream]:
    return ScriptedStream


@pytest.fixture(scope="session")
def make_learner() -> Callable[..., Learner]:
    """Learners of 6 features and 3 classes, blocks "0" and "2"."""

    def make(**settings: object) -> Learner:
        spec = LearnerSpec.model_validate({"hidden": (8,), "batch_size": 4, "seed": 3, **settings})
        return learner_for(spec, FEATURES, CLASSES)

    return make


@pytest.fixture(scope="session")
def make_order() -> Callable[..., Order]:
    def make(learner: Learner, now: float = 0.0, **other: object) -> Order:
        whole = {
            "round": 1,
            "now": now,
            "digest": learner.digest,
            "weights": learner.initial_weights(),
            "blocks": tuple(learner.sizes),
        }
        return Order(**{**whole, **other})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def send() -> Callable[..., Message]:
    """Put an order, or any records, into a message as a grid would deliver it."""
    sent = 0

    def make(content: object, node: int = 1) -> Message:
        nonlocal sent
        sent += 1
        records = content.to_records() if isinstance(content, Order) else content
        message = Message(records, dst_node_id=node, message_type=MessageType.TRAIN)
        number(message, str(sent))
        return message

    return make


@pytest.fixture(scope="session")
def overhear() -> Callable[..., Callable[[World], Executor]]:
    """Make inline executors of which a test hears: ``learnt(messages, outcomes)`` and ``replied(replies)``."""

    def make(learnt: Callable = lambda *_: None, replied: Callable = lambda _: None) -> Callable[[World], Executor]:
        return lambda world: Overheard(InlineExecutor(world.device), learnt, replied)

    return make


@pytest.fixture(scope="session")
def small() -> Callable[..., Scenario]:
    """A scenario of five devices and digits, changed by settings such as ``server.rounds=2``."""

    def make(*settings: str, toml: str = "") -> Scenario:
        return Scenario.from_toml(SCENARIO + toml, settings)

    return make


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of two megabytes."""
    place, libc = tmp_path / "disk", ctypes.CDLL(None, use_errno=True)
    place.mkdir()
    if not hasattr(libc, "mount") or libc.mount(b"none", bytes(place), b"tmpfs", 0, b"size=2000k"):
        pytest.skip(f"no right to mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    yield place
    assert libc.umount2(bytes(place), 2) == 0  # MNT_DETACH, whoever is in it


@pytest.fixture
def fill(disk: Path) -> Callable[[], Path]:
    """Fill the disk to its last byte, with a file that is returned."""

    def full() -> Path:
        path = disk / "filler"
        try:
            with path.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(10_000))
        except OSError:
            return path

    return full
