"""Whether the steps on streams run compiled: where Numba is installed, which the extra ``fast`` brings."""

from __future__ import annotations

from types import ModuleType

#: False has everything that is made or loaded from now on work in NumPy.
enabled = True


def compiled() -> ModuleType | None:
    """Return `fedtp.streaming.compiled`, or None where steps are NumPy's.

    It is imported no sooner than something learns: Numba takes a third of a second to import.
    """
    if not enabled:
        return None
    try:
        from fedtp.streaming import compiled
    except ImportError:  # it is not installed, or refuses this version of NumPy
        return None
    return compiled
