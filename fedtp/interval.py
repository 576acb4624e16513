"""What repeated runs say together: a mean and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fedtp.measures import confidence_margin


@dataclass(frozen=True)
class Interval:
    """A mean over runs with its confidence interval.

    Parameters
    ----------
    mean
        None where no run has a value.
    margin
        Half the width of the 95 % confidence interval of the mean, by Student's t; None of fewer than two values.
    runs
        How many runs have a value.
    """

    mean: float | None
    margin: float | None
    runs: int


def interval(values: Iterable[float | None]) -> Interval:
    """Take runs together; those without a value are left out, and counted.

    Examples
    --------
    >>> both = interval([1.0, 3.0, None])
    >>> both.mean, round(both.margin, 3), both.runs
    (2.0, 12.706, 2)
    >>> interval([0.8])
    Interval(mean=0.8, margin=None, runs=1)
    """
    known = [float(value) for value in values if value is not None]
    count = len(known)
    if not count:
        return Interval(None, None, 0)
    mean = math.fsum(known) / count
    if count == 1:
        return Interval(mean, None, 1)
    return Interval(mean, float(confidence_margin(known)), count)
