"""Time, as the server knows it. It reads and waits through a `Clock` only, so that it can live in virtual time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since the run began, and waiting."""

    def now(self) -> float:
        """Return the time, s."""
        ...

    def wait(self, until: float, messages: int) -> None:
        """Wait for something to happen.

        Parameters
        ----------
        until
            The latest time to return at, s.
        messages
            How many messages are awaited. The clock may return as soon as one of them can be there, or later if
            it knows that none is missed by it.
        """
        ...


class SystemClock:
    """The computer's own clock; waiting is sleeping in short steps.

    Parameters
    ----------
    poll_seconds
        How long it sleeps at most before the server looks for messages again.
    begun
        The time at which it begins, s: that at which an earlier one stopped.
    """

    def __init__(self, poll_seconds: float = 0.2, begun: float = 0.0) -> None:
        self._start = time.monotonic() - begun
        self._poll_seconds = poll_seconds

    def now(self) -> float:
        """Return the seconds since the clock was made, and those before."""
        return time.monotonic() - self._start

    def wait(self, until: float, messages: int) -> None:
        """Sleep until `until`, or for one step if messages are awaited."""
        remaining = until - self.now()
        if remaining > 0:
            time.sleep(min(remaining, self._poll_seconds) if messages else remaining)


def wait_until(time: float, clock: Clock) -> None:
    """Wait until a time, s, whatever comes before."""
    while clock.now() < time:
        clock.wait(time, 0)
