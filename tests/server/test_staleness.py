from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.staleness import Staleness, staleness_weight

KINDS = Staleness.__args__


@pytest.mark.parametrize("kind", KINDS)
@given(a=st.floats(0, 100), b=st.floats(0, 50), staleness=st.integers(0, 10_000))
def test_a_fresh_update_counts_whole_and_an_older_one_never_more(kind, a: float, b: float, staleness: int) -> None:
    weight = staleness_weight(kind, a, b)
    assert weight(0) == 1.0
    assert 0 <= weight(staleness + 1) <= weight(staleness) <= 1


def test_the_functions_are_those_of_the_paper() -> None:
    constant, polynomial, hinge = (staleness_weight(kind, 2.0, 3.0) for kind in ("constant", "polynomial", "hinge"))
    for t in range(10):
        assert constant(t) == 1.0
        assert polynomial(t) == pytest.approx(1 / (t + 1) ** 2)
        assert hinge(t) == pytest.approx(1.0 if t <= 3 else 1 / (2 * (t - 3) + 1))


def test_fedbuffs_is_one_by_the_root_of_one_plus_staleness() -> None:
    weight = staleness_weight("polynomial", 0.5, 0.0)
    assert [weight(t) for t in (0, 3, 8)] == pytest.approx([1 / math.sqrt(1 + t) for t in (0, 3, 8)])
