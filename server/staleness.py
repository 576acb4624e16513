"""What an update is worth that was made from weights that have been aggregated since (FedAsync, Xie et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Staleness = Literal["constant", "hinge", "polynomial"]


def staleness_weight(kind: Staleness, a: float, b: float) -> Callable[[int], float]:
    """Return the function from an update's staleness to its weight (arXiv 1903.03934, section 5.2).

    Parameters
    ----------
    kind
        ``"constant"``: 1. ``"polynomial"``: ``(t + 1) ** -a``; FedBuff has a = 0.5. ``"hinge"``: 1 up to a staleness
        of b, and ``1 / (a * (t - b) + 1)`` from there.
    a, b
        The parameters of these functions.

    Examples
    --------
    >>> [round(staleness_weight("polynomial", 0.5, 0)(t), 2) for t in (0, 1, 3)]
    [1.0, 0.71, 0.5]
    >>> [round(staleness_weight("hinge", 10, 4)(t), 2) for t in (0, 4, 5)]
    [1.0, 1.0, 0.09]
    """
    if kind == "constant":
        return lambda staleness: 1.0
    if kind == "polynomial":
        return lambda staleness: float((staleness + 1.0) ** -a)
    return lambda staleness: 1.0 if staleness <= b else 1.0 / (a * (staleness - b) + 1.0)
