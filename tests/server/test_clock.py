from __future__ import annotations

import time

from server.clock import SystemClock


def test_it_begins_at_zero_and_goes_on() -> None:
    clock = SystemClock()
    first = clock.now()
    time.sleep(0.01)
    assert 0 <= first < 0.5
    assert clock.now() >= first + 0.01


def test_it_waits_until_a_time_if_nothing_is_awaited() -> None:
    clock = SystemClock(poll_seconds=0.001)
    clock.wait(0.05, 0)
    assert clock.now() >= 0.05


def test_it_looks_again_soon_if_messages_are_awaited() -> None:
    clock = SystemClock(poll_seconds=0.01)
    clock.wait(60.0, 1)
    assert 0.01 <= clock.now() < 10


def test_it_does_not_wait_for_the_past() -> None:
    clock = SystemClock()
    clock.wait(-1.0, 0)
    clock.wait(0.0, 3)
    assert clock.now() < 1
