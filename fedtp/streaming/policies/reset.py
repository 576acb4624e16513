"""Resetting blocks to what they were before they had learnt anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedtp.streaming.drift import DriftReport
from fedtp.streaming.policies.policy import Managed, Policy

if TYPE_CHECKING:
    from fedtp.streaming.learner import Adaptable
    from fedtp.streaming.policies.policy import Fresh


@dataclass(frozen=True)
class ResetHead(Policy):
    """After a drift, the last block of every copy starts anew; what the others have learnt to see stays.

    Examples
    --------
    >>> from fedtp.streaming import TPClassifier
    >>> TPClassifier(policy=ResetHead()).policy
    ResetHead()
    """

    def manage(self, network: Adaptable) -> Managed:  # noqa: D102
        return _Head(network)


@dataclass(frozen=True)
class ResetFromBlock(Policy):
    """After a drift, the first block whose own loss rose starts anew, and all that follow it, with their readouts.

    Examples
    --------
    >>> from fedtp.streaming import TPClassifier
    >>> TPClassifier(hidden=(64, 32), policy=ResetFromBlock()).policy
    ResetFromBlock()
    """

    def manage(self, network: Adaptable) -> Managed:  # noqa: D102
        return _FromBlock(network)


class _Head(Managed):
    def drifted(self, report: DriftReport, fresh: Fresh) -> None:
        self.network.take(fresh(), self.blocks[-1:])


class _FromBlock(Managed):
    def drifted(self, report: DriftReport, fresh: Fresh) -> None:
        self.network.take(fresh(), self.blocks[self.blocks.index(report.from_block) :])
