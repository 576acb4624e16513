"""Small models and streams that a test can follow by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fedtp.streaming.studies import Source


@dataclass(frozen=True)
class Report:
    sample: int
    blocks: dict[str, float]


class Recorder:
    """Answers always the same, writes down what it was asked, and reports a drift whenever it learns ``"drift"``."""

    def __init__(self, answer: Any = "a") -> None:
        self.answer = answer
        self.calls: list[tuple[str, Any]] = []
        self.drift: Report | None = None
        self.learnt = 0

    def predict_one(self, x: dict[str, Any]) -> Any:
        self.calls.append(("predict", x["n"]))
        return self.answer

    def learn_one(self, x: dict[str, Any], y: Any) -> None:
        self.calls.append(("learn", x["n"]))
        self.learnt += 1
        if y == "drift":
            self.drift = Report(self.learnt, {"0": 0.25, "head": 0.5})


@dataclass
class Labels:
    """A stream of these labels, whatever the seed; it remembers the seeds."""

    labels: str
    seeds: list[int] = field(default_factory=list)

    def __call__(self, seed: int) -> Iterator[tuple[dict[str, Any], Any]]:
        self.seeds.append(seed)
        return iter([({"n": n}, label) for n, label in enumerate(self.labels)])


@pytest.fixture(scope="session")
def recorder() -> Callable[..., Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def labels() -> Callable[..., Source]:
    """Sources of single letters as labels."""

    def make(text: str, **more: Any) -> Source:
        return Source("letters", Labels(text), len(text), **more)

    return make
