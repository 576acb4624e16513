"""Drift detectors that watch errors: River's, told apart by whether things became worse or better."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedtp.errors import ModelError

#: The detectors by name.
DETECTORS = ("adwin", "page-hinkley", "ddm", "hddm-w", "none")


def make_detector(name: str, *, clock: int = 32) -> Any | None:
    """Return a new detector of River's by its name, or None for ``"none"``.

    Parameters
    ----------
    name
        ``"adwin"`` (Bifet and Gavaldà 2007), ``"page-hinkley"`` (Page 1954), ``"ddm"`` (Gama et al. 2004),
        ``"hddm-w"`` (Frías-Blanco et al. 2015), or ``"none"``.
    clock
        After how many samples ADWIN compares the parts of its window; the others look at each.

    Raises
    ------
    ModelError
        If there is no such detector.
    """
    if name not in DETECTORS:
        raise ModelError(f"There is no drift detector {name!r}; choose one of {', '.join(DETECTORS)}.")
    if name == "none":
        return None
    from river import drift  # takes longer to import than a small run

    makers: dict[str, Callable[[], Any]] = {
        "adwin": lambda: drift.ADWIN(clock=clock),
        "page-hinkley": lambda: drift.PageHinkley(mode="up"),
        "ddm": drift.binary.DDM,
        "hddm-w": drift.binary.HDDMW,
    }
    return makers[name]()


def worsened(detector: Any, error: float) -> bool:
    """Show a detector the next error; return whether it flags that errors have become more frequent, or larger.

    ADWIN also flags that errors have become *rarer*, which is learning, not drift: such a change is left out.

    Examples
    --------
    >>> detector = make_detector("adwin")
    >>> flags = [worsened(detector, position >= 500) for position in range(1000)]
    >>> flags.index(True) - 500
    11
    """
    before = getattr(detector, "estimation", 0.0)
    detector.update(error)
    # ADWIN forgets the older part of its window: what is left tells which way the rate went.
    return bool(detector.drift_detected and getattr(detector, "estimation", 1.0) > before)


def detect(detector: Any | None, errors: Iterable[bool]) -> list[int]:
    """Show a detector, if there is one, errors one by one; return at which positions `worsened` was true."""
    if detector is None:
        return []
    return [position for position, error in enumerate(errors) if worsened(detector, error)]


def onset(errors: ArrayLike, least: int = 10) -> int:
    """Return how many of the latest samples are of the new concept, at a moment at which a drift was flagged.

    It is the split of the samples in two after which the errors have risen most, in standard errors (the CUSUM
    estimate of a change point).

    Parameters
    ----------
    errors
        Whether each sample was predicted wrongly, oldest first, ``[samples]``.
    least
        No fewer are taken for a new concept, where there are as many.

    Notes
    -----
    Page, *A test for a change in a parameter occurring at an unknown point*, Biometrika 42, 1955.

    Examples
    --------
    >>> onset([False] * 40 + [True, False, True] * 5)
    15
    """
    wrong = np.asarray(errors, np.float64)
    count = len(wrong)
    if count <= least:
        return count
    new = np.arange(least, count)
    late = np.cumsum(wrong[::-1])[new - 1]
    rise = late / new - (wrong.sum() - late) / (count - new)
    return int(new[(rise * np.sqrt(new * (count - new) / count)).argmax()])
