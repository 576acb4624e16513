"""The norm of an update, kept within a bound."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedtp.blocks import Packed


def clipped(weights: Mapping[str, Packed], sent: Mapping[str, Packed], bound: float) -> dict[str, Packed]:
    """Return weights whose change has at most a norm, over all blocks together: a larger change is scaled down to it.

    (McMahan et al. 2018, arXiv 1710.06963, "flat clipping".)

    Parameters
    ----------
    weights
        What a device has learnt, packed by block.
    sent
        What it had been sent.
    bound
        The norm; 0: any.

    Examples
    --------
    >>> sent = {"0": np.zeros(2, np.float32), "1": np.ones(1, np.float32)}
    >>> clipped({"0": np.float32([3, 4]), "1": np.float32([1])}, sent, 1.0)["0"]
    array([0.6, 0.8], dtype=float32)
    """
    if not bound:
        return dict(weights)
    changes = {name: packed.astype(np.float64) - sent[name] for name, packed in weights.items()}
    norm = sum(float(np.vdot(change, change)) for change in changes.values()) ** 0.5
    if not norm > bound:
        return dict(weights)
    return {name: (sent[name] + change * (bound / norm)).astype(np.float32) for name, change in changes.items()}
