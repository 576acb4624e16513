import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtp.data import DataSet
from fedtp.errors import DataError


def table(y, ordered=False, test_rows=0):
    y = np.asarray(y, dtype=np.int64)
    x = np.arange(2 * len(y), dtype=np.float32).reshape(-1, 2)
    return DataSet("toy", x, y, ("a", "b", "c"), (2,), ("u", "v"), ordered=ordered, test_rows=test_rows)


@given(st.lists(st.integers(0, 2), min_size=10, max_size=200), st.floats(0.2, 0.6), st.integers(0, 9))
def test_split_is_complete_disjoint_and_stratified(y, fraction, seed):
    data = table(y)
    try:
        train, test = data.split_rows(fraction, seed)
    except DataError:
        assert round(max(np.bincount(y)) * fraction) == 0
        return
    assert sorted([*train, *test]) == list(range(len(y)))
    for label in set(y):
        of_class = y.count(label)
        held_out = np.count_nonzero(data.y[test] == label)
        assert abs(held_out - fraction * of_class) <= 0.5 or (held_out == of_class - 1)
        assert held_out < of_class


def test_split_depends_on_the_seed_alone():
    data = table([0, 1, 2] * 20)
    assert np.array_equal(data.split(0.25, 1)[0].x, data.split(0.25, 1)[0].x)
    assert not np.array_equal(data.split(0.25, 1)[0].x, data.split(0.25, 2)[0].x)


def test_ordered_data_is_held_out_from_the_end():
    train, test = table([0, 1, 2, 0, 1], ordered=True).split_rows(0.4, seed=3)
    assert train.tolist() == [0, 1, 2]
    assert test.tolist() == [3, 4]


def test_own_test_set_is_used_unless_a_fraction_is_asked_for():
    data = table([0, 1] * 10, test_rows=4)
    train, test = data.split_rows()
    assert sorted(test) == [16, 17, 18, 19]
    assert len(train) == 16
    assert len(data.split(0.5)[1]) == 10
    assert data.split()[0].test_rows == 0
    assert len(table([0, 1] * 10).split()[1]) == 4


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_fraction_out_of_range(fraction):
    with pytest.raises(DataError, match="test_fraction is"):
        table([0, 1]).split(fraction)


@pytest.mark.parametrize("ordered", [False, True])
def test_too_few_samples_to_split(ordered):
    with pytest.raises(DataError, match="only 2 samples"):
        table([0, 1], ordered).split(0.1)


def test_parts_have_to_fit():
    with pytest.raises(DataError, match="does not fit together"):
        DataSet("toy", np.zeros((3, 2), np.float32), np.zeros(2, np.int64), ("a",), (2,), ("u", "v"))
    with pytest.raises(DataError, match="class indices from 0 to 5, but 3 classes"):
        table([0, 5])


def test_rows_of_a_drawn_data_set_cannot_be_drawn_again():
    part = table([0, 1, 2]).rows(slice(1, 3))
    assert part.y.tolist() == [1, 2]
    assert part.x.tolist() == [[2, 3], [4, 5]]
    assert part.generate is None
