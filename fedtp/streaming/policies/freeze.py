"""Freezing all but an adaptor."""

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
class FreezeAdaptor(Policy):
    """After a drift, only a scale and a shift of each unit learn, for a while or for good.

    Each block's own error teaches them, through readouts that are frozen too; it is the adaptor ``"scale-shift"`` of
    `fedtp.adaptors`, but folded into the weights, so that it needs no memory and costs nothing when it is done.

    Parameters
    ----------
    samples
        For how many; None for good.

    References
    ----------
    Lian, Zhou, Feng, Wang, *Scaling & Shifting Your Features*, arXiv 2210.08823.

    Examples
    --------
    >>> from fedtp.streaming import TPClassifier
    >>> TPClassifier(policy=FreezeAdaptor(samples=None)).policy
    FreezeAdaptor(samples=None)
    """

    samples: int | None = 100

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise ModelError(f"A network stays frozen for at least 1 sample, got {self}.")

    def manage(self, network: Adaptable) -> Managed:  # noqa: D102
        return _Frozen(network, self)


class _Frozen(Managed):
    def __init__(self, network: Adaptable, policy: FreezeAdaptor) -> None:
        super().__init__(network)
        self.policy = policy
        #: For how many samples more; below 0 for good.
        self.left = 0

    def drifted(self, report: DriftReport, fresh: Fresh) -> None:
        self.left = -1 if self.policy.samples is None else self.policy.samples

    def learn(self, target: Vector, guesses: Vector | None = None) -> None:
        before = self.network.weights() if self.left else None
        self.network.learn(target, guesses)
        self._hold(before, 1)

    def learn_many(self, target: Vector) -> None:
        before = self.network.weights() if self.left else None
        self.network.learn_many(target)
        self._hold(before, target.shape[1])

    def _hold(self, before: list[Vector] | None, samples: int) -> None:
        if before is not None:
            self.network.keep_scales(before)
        if self.left > 0:
            self.left = max(self.left - samples, 0)

    def _memory(self) -> State:
        return State({}, {"left": self.left})

    def _remember(self, state: State) -> None:
        self.left = state.whole("left", least=-1)
