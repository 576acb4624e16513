"""Boosting the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedtp.errors import ModelError
from fedtp.streaming.drift import DriftReport
from fedtp.streaming.features import Vector
from fedtp.streaming.policies.policy import Managed, Policy
from fedtp.streaming.state import State

if TYPE_CHECKING:
    from fedtp.streaming.learner import Adaptable
    from fedtp.streaming.policies.policy import Fresh


@dataclass(frozen=True)
class BoostLR(Policy):
    """After a drift, every copy of the network learns faster for a while.

    Parameters
    ----------
    factor
        How much faster.
    samples
        For how many.

    Examples
    --------
    >>> from fedtp.streaming import TPClassifier
    >>> TPClassifier(policy=BoostLR(factor=2.0)).policy
    BoostLR(factor=2.0, samples=500)
    """

    factor: float = 3.0
    samples: int = 500

    def __post_init__(self) -> None:
        if not self.factor > 0 or self.samples < 1:
            raise ModelError(f"A boost has a factor above 0 and lasts at least 1 sample, got {self}.")

    def manage(self, network: Adaptable) -> Managed:  # noqa: D102
        return _Boosted(network, self)


class _Boosted(Managed):
    def __init__(self, network: Adaptable, policy: BoostLR) -> None:
        super().__init__(network)
        self.policy = policy
        self.left = 0
        self.usual = network.paces.copy()

    def drifted(self, report: DriftReport, fresh: Fresh) -> None:
        self.left = self.policy.samples
        self.network.set_paces(self.policy.factor * self.usual)

    def learn(self, target: Vector, guesses: Vector | None = None) -> None:
        self.network.learn(target, guesses)
        self._pass(1)

    def learn_many(self, target: Vector) -> None:
        self.network.learn_many(target)
        self._pass(target.shape[1])

    def _memory(self) -> State:
        return State({}, {"left": self.left})

    def _remember(self, state: State) -> None:
        self.left = state.whole("left")

    def _pass(self, samples: int) -> None:
        if self.left:
            self.left = max(self.left - samples, 0)
            if not self.left:
                self.network.set_paces(self.usual)
