"""The drift detectors that watch a device's own errors: River's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fedtp.errors import ModelError


def make_detector(name: str) -> Any | None:
    """Return a new detector of River's by its scenario name, or None for ``"none"``.

    Parameters
    ----------
    name
        ``"adwin"`` (Bifet and Gavaldà 2007), ``"page-hinkley"`` (Page 1954), ``"ddm"`` (Gama et al. 2004),
        ``"hddm-w"`` (Frías-Blanco et al. 2015), or ``"none"``.
    """
    if name == "none":
        return None
    from river import drift  # imported late: it takes longer than a small run

    makers: dict[str, Callable[[], Any]] = {
        # ADWIN compares sub-windows only every `clock` samples. A device sees few samples, so it looks at each.
        "adwin": lambda: drift.ADWIN(clock=1),
        "page-hinkley": lambda: drift.PageHinkley(mode="up"),
        "ddm": drift.binary.DDM,
        "hddm-w": drift.binary.HDDMW,
    }
    if name not in makers:
        raise ModelError(f"There is no drift detector {name!r}; choose one of {', '.join([*makers, 'none'])}.")
    return makers[name]()


def detect(detector: Any | None, errors: Iterable[bool]) -> list[int]:
    """Show a detector one error after another; return the positions at which it flagged a drift.

    ADWIN also flags that errors have become *rarer*, which is learning, not drift: such a change is left out.
    """
    if detector is None:
        return []
    flagged = []
    for position, error in enumerate(errors):
        before = getattr(detector, "estimation", 0.0)
        detector.update(error)
        # ADWIN forgets the older part of its window: what is left tells which way the rate went.
        if detector.drift_detected and getattr(detector, "estimation", 1.0) > before:
            flagged.append(position)
    return flagged
