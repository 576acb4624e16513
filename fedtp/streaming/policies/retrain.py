"""Keeping a window of samples, and retraining on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedtp.errors import DataError, ModelError
from fedtp.streaming.drift import DriftReport
from fedtp.streaming.features import Vector
from fedtp.streaming.policies.policy import Managed, Policy
from fedtp.streaming.state import State, counts

if TYPE_CHECKING:
    from fedtp.streaming.learner import Adaptable
    from fedtp.streaming.policies.policy import Fresh


@dataclass(frozen=True)
class WindowRetrain(Policy):
    """After a drift, a new network is trained on the latest samples, and takes the place of the old one.

    Parameters
    ----------
    window
        How many samples are kept, and retrained on.
    epochs
        How often each of them is learnt.

    Examples
    --------
    >>> from fedtp.streaming import TPClassifier
    >>> TPClassifier(policy=WindowRetrain(window=50)).policy
    WindowRetrain(window=50, epochs=10)
    """

    window: int = 100
    epochs: int = 10

    def __post_init__(self) -> None:
        if self.window < 1 or self.epochs < 1:
            raise ModelError(f"A window holds at least 1 sample, and is learnt at least once, got {self}.")

    def manage(self, network: Adaptable) -> Managed:  # noqa: D102
        return _Windowed(network, self)


class _Windowed(Managed):
    def __init__(self, network: Adaptable, policy: WindowRetrain) -> None:
        super().__init__(network)
        self.policy = policy
        self.window: deque[tuple[Vector, Vector]] = deque(maxlen=policy.window)
        self.passed = np.zeros((0, 0))

    def forward(self, x: Vector) -> Vector:
        self.passed = x[None]
        return self.network.forward(x)

    def forward_many(self, x: Vector) -> Vector:
        self.passed = x
        return self.network.forward_many(x)

    def learn(self, target: Vector, guesses: Vector | None = None) -> None:
        self.network.learn(target, guesses)
        self.window.append((self.passed[0].copy(), target))

    def learn_many(self, target: Vector) -> None:
        self.network.learn_many(target)
        self.window.extend(zip(self.passed.copy(), target.T, strict=True))

    def _memory(self) -> State:
        x, targets = self._padded()
        return State({"window.x": x, "window.targets": targets}, {"window": list(x.shape + targets.shape[1:])})

    def _remember(self, state: State) -> None:
        sizes = counts(state.record.get("window"), 3, "the sizes of the window")
        if sizes[0] > self.policy.window:
            raise DataError(f"the window holds {sizes[0]} samples, but only {self.policy.window} are kept")
        x = state.array("window.x", sizes[0], sizes[1])
        targets = state.array("window.targets", sizes[0], sizes[2])
        self.window = deque(zip(x, targets, strict=True), maxlen=self.policy.window)

    def _padded(self) -> tuple[Vector, Vector]:
        """Return the samples and their targets, ``[samples, inputs]`` and ``[samples, outputs]``."""
        if not self.window:
            return np.zeros((0, 0)), np.zeros((0, 0))
        x, targets = zip(*self.window, strict=True)
        return _level(x), _level(targets)

    def drifted(self, report: DriftReport, fresh: Fresh) -> None:
        network = fresh()
        samples, targets = self._padded()
        for _ in range(self.policy.epochs):
            for x, target in zip(samples, targets, strict=True):
                network.forward(x)
                network.learn(target)
        self.network.take(network, self.blocks)


def _level(vectors: Sequence[Vector]) -> Vector:
    """Return vectors as one array; a feature that had not appeared was at its mean, a class was not the right one."""
    size = max(len(vector) for vector in vectors)
    return np.array([np.pad(vector, (0, size - len(vector))) for vector in vectors])
