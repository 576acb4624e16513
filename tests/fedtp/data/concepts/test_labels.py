import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtp.data import Generator, LabelSwap, apply, load
from fedtp.errors import DataError


def test_label_swap_by_index_and_by_name(digits):
    swapped = apply(LabelSwap(swaps=((1, 2), ("3", 4))), digits)
    assert np.array_equal(swapped.y == 1, digits.y == 2)
    assert np.array_equal(swapped.y == 4, digits.y == 3)
    assert np.array_equal(swapped.y == 7, digits.y == 7)
    assert swapped.x is digits.x
    assert apply(LabelSwap(swaps=[("normal", "anomaly")]), load("shuttle")).y.sum() == 49097 - 3511


@pytest.mark.parametrize("swaps", [[(1, 1)], [(1, 2), (2, 3)], [(1, 2), ("2", 3)]])
def test_a_class_in_two_swaps(digits, swaps):
    with pytest.raises(DataError, match="more than once"):
        apply(LabelSwap(swaps=swaps), digits)


@pytest.mark.parametrize("label", [10, -1, "ten"])
def test_swap_of_an_unknown_class(digits, label):
    with pytest.raises(DataError, match=r"has no class .*: name one of 0, 1,.* or its index from 0 to 9"):
        apply(LabelSwap(swaps=[(1, label)]), digits)


@given(st.permutations(range(10)), st.integers(1, 5))
def test_a_swap_twice_is_none(order, pairs):
    digits = load("digits")
    swap = LabelSwap(swaps=tuple(zip(order[0:10:2], order[1:10:2], strict=True))[:pairs])
    once = apply(swap, digits)
    assert not np.array_equal(once.y, digits.y)
    np.testing.assert_array_equal(apply(swap, once).y, digits.y)


def test_generator(sea):
    other = apply(Generator(parameters={"variant": 3}), sea)
    assert other.y.sum() < sea.y.sum()
    assert other.classes == sea.classes
