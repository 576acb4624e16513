import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtp.data import DataSet, Gain, Missing, Noise, Offset, Permutation, Stuck, apply
from fedtp.data.concepts.images import levels
from fedtp.errors import DataError

TABLE = [Gain(factor=3), Offset(amount=2), Missing(), Stuck(value=1.5), Noise(sigma=1), Permutation()]


@pytest.fixture
def sequences():
    """Three sequences of up to four steps with two features; what is behind their ends is 0."""
    lengths = np.array([4, 1, 2])
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    x[np.arange(4) >= lengths[:, None]] = 0
    names = tuple(f"frame-{i}-band-{j}" for i in range(4) for j in range(2))
    return DataSet("heard", x.reshape(3, 8), np.zeros(3, np.int64), ("a",), (4, 2), names, lengths=lengths)


def test_gain_of_some_and_of_all_features(sea):
    some = apply(Gain(factor=2, features=("1", 2)), sea)
    assert np.array_equal(some.x, sea.x * np.float32([1, 2, 2]))
    assert some.x.dtype == np.float32
    assert np.array_equal(apply(Gain(factor=0.5), sea).x, sea.x / 2)


def test_gain_of_an_unknown_feature(sea):
    with pytest.raises(DataError, match="'sea' has no feature 'salary': name one of 0, 1, 2"):
        apply(Gain(factor=2, features=["salary"]), sea)


def test_offset_is_in_spreads(sea):
    moved = apply(Offset(amount=-1.5, features=[0]), sea)
    np.testing.assert_allclose(moved.x, sea.x + np.float32([-1.5, 0, 0]), atol=1e-6)


def test_missing_sensors_show_their_ordinary_value(sea):
    missing = apply(Missing(features=["1"]), sea)
    assert (missing.x[:, 1] == 0).all()
    np.testing.assert_array_equal(missing.x[:, [0, 2]], sea.x[:, [0, 2]])


def test_a_share_of_the_readings_is_missing_by_chance(digits_as_table):
    seen = apply(Missing(share=0.3), digits_as_table, 1).x
    gone = (seen == 0) & (digits_as_table.x != 0)
    assert gone.mean() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_array_equal(seen[~gone], digits_as_table.x[~gone])
    assert not np.array_equal(seen, apply(Missing(share=0.3), digits_as_table, 2).x)


def test_stuck_sensors_always_show_the_same(sea):
    stuck = apply(Stuck(value=-2.5, features=[2, 0]), sea)
    assert (stuck.x[:, [0, 2]] == -2.5).all()
    np.testing.assert_array_equal(stuck.x[:, 1], sea.x[:, 1])


def test_noise_has_its_spread_and_comes_from_the_seed(sea):
    noisy = [apply(Noise(sigma=0.5, features=[1]), sea, seed).x - sea.x for seed in (1, 1, 2)]
    assert noisy[0][:, 1].std() == pytest.approx(0.5, rel=0.2)
    assert (noisy[0][:, [0, 2]] == 0).all()
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])


def test_the_noise_of_images_is_a_share_of_their_range(digits):
    noisy = apply(Noise(sigma=0.1), digits).x
    dark, bright = levels(digits)
    assert (noisy >= dark).all()
    assert (noisy <= bright).all()
    inner = abs(digits.x - (dark + bright) / 2) < 0.5
    assert (noisy - digits.x)[inner].std() == pytest.approx(0.1 * (bright - dark)[0], rel=0.02)


def test_stronger_noise_is_the_same_noise(sea):
    """So that noise that grows step by step does not also change."""
    weak, strong = (apply(Noise(sigma=sigma), sea, 3).x - sea.x for sigma in (0.1, 0.4))
    np.testing.assert_allclose(4 * weak, strong, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 2**63 - 1))
def test_a_permutation_is_a_bijection_the_same_for_all_samples(number, seed):
    x = np.tile(np.arange(24, dtype=np.float32), (3, 1))
    table = DataSet("toy", x, np.zeros(3, np.int64), ("a",), (24,), tuple(map(str, range(24))))
    order = apply(Permutation(number=number), table, seed).x.astype(int)
    assert sorted(order[0]) == list(range(24))
    assert (order == order[0]).all()


def test_permutations_differ_by_number_and_seed(digits):
    seen = [apply(Permutation(number=n), digits, seed).x for n, seed in ((0, 1), (1, 1), (0, 2))]
    assert not any(np.array_equal(seen[i], seen[i - 1]) for i in range(3))


@pytest.mark.parametrize("concept", TABLE, ids=lambda concept: concept.kind)
def test_what_is_behind_the_end_of_a_sequence_stays_nothing(sequences, concept):
    x = apply(concept, sequences).x.reshape(3, 4, 2)
    assert (x[1, 1:] == 0).all()
    assert (x[2, 2:] == 0).all()
    assert not np.array_equal(x.reshape(3, 8), sequences.x)


def test_a_feature_of_a_sequence_is_one_of_all_its_steps(sequences):
    x = apply(Stuck(value=9, features=[1]), sequences).x.reshape(3, 4, 2)
    assert (x[0, :, 1] == 9).all()
    assert (x[1, 0, 1], x[2, 1, 1]) == (9, 9)
    np.testing.assert_array_equal(x[..., 0], sequences.x.reshape(3, 4, 2)[..., 0])


@pytest.mark.parametrize("concept", TABLE, ids=lambda concept: concept.kind)
def test_the_data_set_itself_stays_as_it_is(sea, concept):
    before = sea.x.copy()
    seen = apply(concept, sea)
    np.testing.assert_array_equal(sea.x, before)
    assert seen.x.dtype == np.float32
    assert seen.y is sea.y
