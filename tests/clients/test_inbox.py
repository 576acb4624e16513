"""A device's buffer, against a slow reference that looks at one sample at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.inbox import Inbox
from fedtp.data.stream import Samples


def samples(seconds, label_seconds=None, first: int = 0) -> Samples:
    """Samples whose input is their number."""
    x = np.arange(first, first + len(seconds), dtype=np.float32)[:, None]
    labels = None if label_seconds is None else np.array(label_seconds, np.float64)
    return Samples(x, np.arange(first, first + len(seconds)) % 3, np.array(seconds, np.float64), labels)


def numbers(found: Samples | None) -> list[int]:
    return [] if found is None else found.x.ravel().astype(int).tolist()


def guess(found: Samples, now: float) -> np.ndarray:
    """A prediction that tells when it was made, and of what."""
    return (1000 * now + found.x.ravel()).astype(np.int64)


def test_what_comes_with_its_label_passes_through_untouched() -> None:
    inbox, arrived = Inbox(), samples([1.0, 2.0])
    delivery = inbox.take(arrived, 5.0)
    assert delivery.samples is arrived
    assert delivery.predicted is delivery.unlabelled is None
    assert (delivery.dropped, delivery.never_labelled, delivery.label_delay_seconds) == (0, 0, 0.0)
    assert inbox.state().arrays == {}


def test_a_full_buffer_drops_the_oldest() -> None:
    inbox = Inbox(3)
    assert inbox.take(samples([1.0, 2.0, 3.0]), 5.0).dropped == 0
    delivery = inbox.take(samples([6.0, 7.0, 8.0, 9.0, 9.5]), 10.0)
    assert numbers(delivery.samples) == [2, 3, 4]
    assert delivery.dropped == 2


def test_a_late_label_is_scored_by_the_prediction_of_the_first_look() -> None:
    inbox = Inbox()
    first = inbox.take(samples([1.0, 2.0, 3.0], [1.0, 12.0, math.inf]), 5.0)
    assert numbers(first.samples) == [0]
    assert first.predicted.tolist() == [-1]
    assert numbers(first.unlabelled) == [1, 2]
    assert first.never_labelled == 1
    inbox.note(first.unlabelled, guess(first.unlabelled, 5))
    second = inbox.take(samples([6.0], [7.0], first=3), 10.0)
    assert numbers(second.samples) == [3]
    assert second.unlabelled is None
    third = inbox.take(samples([11.0], [11.0], first=4), 15.0)
    assert numbers(third.samples) == [4, 1]  # in the order of their labels
    assert third.predicted.tolist() == [-1, 5001]
    assert third.label_delay_seconds == pytest.approx((0 + 10) / 2)
    assert numbers(inbox.take(samples([], []), 1e9).samples) == []


def test_samples_that_wait_for_labels_take_up_the_buffer() -> None:
    inbox = Inbox(2)
    first = inbox.take(samples([1.0, 2.0], [50.0, 50.0]), 5.0)
    inbox.note(first.unlabelled, guess(first.unlabelled, 5))
    second = inbox.take(samples([6.0], [6.0], first=2), 10.0)
    assert (numbers(second.samples), second.dropped) == ([2], 1)
    third = inbox.take(samples([], []), 60.0)
    assert numbers(third.samples) == [1]
    assert third.predicted.tolist() == [5001]


def test_a_label_that_comes_with_its_sample_is_known_whatever_the_rounding() -> None:
    after = np.nextafter(10.0, 11.0)
    assert numbers(Inbox().take(samples([after], [after]), 10.0).samples) == [0]


@pytest.mark.parametrize("capacity", [0, 1, 5])
@given(
    gaps=st.lists(st.tuples(st.floats(0.1, 5), st.one_of(st.floats(0, 30), st.just(math.inf))), max_size=30),
    every=st.floats(3, 20),
)
def test_every_sample_has_one_fate(capacity: int, gaps, every: float) -> None:
    seconds = np.cumsum([gap for gap, _ in gaps])
    labels = seconds + [delay for _, delay in gaps]
    inbox, held, seen, taken = Inbox(capacity), [], {}, 0
    scored: list[int] = []
    for now in np.arange(1, 12) * every:
        here = (seconds <= now) & (np.arange(len(seconds)) >= taken)
        delivery = inbox.take(samples(seconds[here], labels[here], first=taken), now)

        dropped = 0
        for number in range(taken, taken + int(here.sum())):
            held.append(number)
            if capacity and len(held) > capacity:
                held.pop(0)
                dropped += 1
        taken += int(here.sum())
        ready = sorted((n for n in held if labels[n] <= now), key=lambda n: (labels[n], n))
        assert numbers(delivery.samples) == ready
        assert delivery.dropped == dropped
        assert numbers(delivery.unlabelled) == [n for n in held if n not in ready and n not in seen]
        assert delivery.predicted.tolist() == [seen.get(n, -1) for n in ready]
        assert delivery.never_labelled == sum(math.isinf(labels[n]) for n in numbers(delivery.unlabelled))
        if delivery.unlabelled is not None:
            told = guess(delivery.unlabelled, now)
            seen.update(zip(numbers(delivery.unlabelled), told.tolist(), strict=True))
            inbox.note(delivery.unlabelled, told)
        held = [n for n in held if n not in ready and math.isfinite(labels[n])]
        scored += ready
        state, inbox = inbox.state(), Inbox(capacity)
        inbox.load_state(state)
        assert numbers(inbox.waiting) == held
    assert len(set(scored)) == len(scored)
