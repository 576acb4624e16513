"""The drift detectors that watch each model's errors from outside, alike for all: River's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedtp.errors import ModelError

#: The detectors by name.
DETECTORS = ("adwin", "page-hinkley", "ddm", "hddm-w", "none")


class ErrorWatch:
    """Shows a detector one error after another, and tells when they have become more frequent.

    ADWIN also flags that errors have become *rarer*, which is learning, not drift: such a change is left out.

    Parameters
    ----------
    name
        ``"adwin"`` (Bifet and Gavaldà 2007), ``"page-hinkley"`` (Page 1954), ``"ddm"`` (Gama et al. 2004),
        ``"hddm-w"`` (Frías-Blanco et al. 2015), or ``"none"``.

    Raises
    ------
    ModelError
        If there is no such detector.

    Examples
    --------
    >>> watch = ErrorWatch("adwin")
    >>> worse = [watch.update(position >= 500) for position in range(1000)]
    >>> worse.index(True) - 500
    11
    """

    def __init__(self, name: str) -> None:
        from river import drift  # takes two seconds to import

        makers: dict[str, Callable[[], Any]] = {
            "adwin": drift.ADWIN,
            "page-hinkley": lambda: drift.PageHinkley(mode="up"),
            "ddm": drift.binary.DDM,
            "hddm-w": drift.binary.HDDMW,
            "none": drift.NoDrift,
        }
        if name not in makers:
            raise ModelError(f"There is no drift detector {name!r}; choose one of {', '.join(DETECTORS)}.")
        self._detector = makers[name]()

    def update(self, error: bool) -> bool:
        """Take the next outcome; return whether errors have become more frequent."""
        before = getattr(self._detector, "estimation", 0.0)
        self._detector.update(error)
        # ADWIN forgets the older part of its window: what is left tells which way the rate went.
        return bool(self._detector.drift_detected and getattr(self._detector, "estimation", 1.0) > before)
