"""What is done where a drift is detected: one policy in each file."""

from __future__ import annotations

from typing import Any

from fedtp.errors import ModelError
from fedtp.streaming.policies.boost import BoostLR
from fedtp.streaming.policies.ensemble import Ensemble
from fedtp.streaming.policies.freeze import FreezeAdaptor
from fedtp.streaming.policies.policy import Managed, Policy
from fedtp.streaming.policies.reset import ResetFromBlock, ResetHead
from fedtp.streaming.policies.retrain import WindowRetrain

__all__ = [
    "POLICIES",
    "BoostLR",
    "Ensemble",
    "FreezeAdaptor",
    "Managed",
    "Policy",
    "ResetFromBlock",
    "ResetHead",
    "WindowRetrain",
    "as_policy",
]

#: The policies by name, with their usual settings.
POLICIES: dict[str, Policy | None] = {
    "none": None,
    "boost-lr": BoostLR(),
    "reset-head": ResetHead(),
    "reset-from-block": ResetFromBlock(),
    "window-retrain": WindowRetrain(),
    "freeze-adaptor": FreezeAdaptor(),
    "ensemble": Ensemble(),
}


def as_policy(given: Any) -> Policy | None:
    """Return the policy that a name stands for, or that was given as it is.

    Raises
    ------
    ModelError
        If it is neither.

    Examples
    --------
    >>> as_policy("boost-lr")
    BoostLR(factor=3.0, samples=500)
    """
    if given is None or isinstance(given, Policy):
        return given
    if isinstance(given, str) and given in POLICIES:
        return POLICIES[given]
    raise ModelError(f"There is no policy {given!r}; choose one of {', '.join(POLICIES)}, or a Policy object.")
