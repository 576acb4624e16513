"""Measures of online learning that River does not have, from counts that add up over devices."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def kappa(confusion: NDArray[np.int64]) -> float | None:
    """Cohen's kappa: ``(p₀ - pₑ) / (1 - pₑ)``, with pₑ the agreement of chance.

    Parameters
    ----------
    confusion
        How often each class (rows) was predicted as each class (columns).

    Returns
    -------
    float | None
        None where it is undefined: without samples, or if only one class was seen and predicted.

    Notes
    -----
    Cohen, *A coefficient of agreement for nominal scales*, 1960. The pooled kappa of a fleet is that of the
    summed confusion matrices.

    Examples
    --------
    >>> round(kappa(np.array([[40, 10], [10, 40]])), 9)
    0.6
    """
    total = int(confusion.sum())
    if total == 0:
        return None
    observed = float(np.trace(confusion)) / total
    chance = float((confusion.sum(0) / total) @ (confusion.sum(1) / total))
    return None if chance >= 1 else (observed - chance) / (1 - chance)


def kappa_t(correct: int, same: int, samples: int) -> float | None:
    """Kappa-temporal: ``(p₀ - p') / (1 - p')``, with p' the accuracy of "the same label as before".

    Parameters
    ----------
    correct, same, samples
        How many samples were predicted rightly, had the label of the sample before, and were seen.

    Notes
    -----
    Žliobaitė et al., *Evaluation methods and decision theory for classification of streaming data with temporal
    dependence*, Machine Learning 98, 2015, eq. 5.

    Examples
    --------
    >>> round(kappa_t(correct=90, same=80, samples=100), 9)
    0.5
    """
    if samples == 0 or same == samples:
        return None
    observed, before = correct / samples, same / samples
    return (observed - before) / (1 - before)


def match_detections(drifts: Sequence[float], detections: Sequence[float], window: float) -> tuple[list[bool], int]:
    """Tell which drifts of one device were detected, and count the detections that belong to none.

    A drift is detected if a detection follows within `window`, before the device's next drift. Every detection
    within a drift's window belongs to it.

    Parameters
    ----------
    drifts, detections
        When they happened, s, each in order of time.
    window
        How long after a drift a detection still counts as one of it, s.

    Returns
    -------
    detected
        For each drift, whether it was detected.
    false_alarms
        How many detections belong to no drift.

    Examples
    --------
    >>> match_detections([100.0, 500.0], [20.0, 130.0, 140.0, 900.0], window=60.0)
    ([True, False], 2)
    """
    detected = [False] * len(drifts)
    false_alarms = 0
    for time in detections:
        latest = bisect_right(drifts, time) - 1
        if latest >= 0 and time <= drifts[latest] + window:
            detected[latest] = True
        else:
            false_alarms += 1
    return detected, false_alarms
