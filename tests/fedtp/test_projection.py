from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedtp.errors import ModelError
from fedtp.projection import Projection, _log, _normal_quantile, _open_unit, _rows, class_key

KINDS = ["normal", "uniform", "sign", "orthogonal"]
INDEPENDENT_KINDS = ["normal", "uniform", "sign"]


def bits(values):
    return " ".join(f"{word:08x}" for word in values.view(np.uint32).ravel().tolist())


# Golden values. Devices that already learn hold these very bits: a change that moves one of them is a bug,
# even where the new values are as good.


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("normal", "be0f840b bf90155a 3e8bc5b8 bf2c9adf bf760e8e bf868a39 bebddd88 3f9d8e05"),
        ("uniform", "be45b025 bfa3fd8f 3ebeca19 bf5da1b0 bf931b18 bf9cb222 bf003fb6 3fad4a8c"),
        ("sign", "bf800000 bf800000 3f800000 bf800000 bf800000 bf800000 bf800000 3f800000"),
        ("orthogonal", "be55012c bfd5d8d7 3ecf72d6 bf8016d6 bf7b59e3 bf5afa81 bee78c83 3fb97ae0"),
    ],
)
def test_rows_are_the_same_bits_everywhere(kind, expected):
    assert bits(Projection(7, kind=kind, classes=2).rows("hidden", 4)) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("normal", "c792ddf781d3ed3703d5c023fa0063a6"),
        ("uniform", "d9ec4e0c0b3abfe50c1871eaa645ad82"),
        ("sign", "7c63e67ed40811f31ea9b2e62389112e"),
        ("orthogonal", "8a759f2aa52340163d640662dbacbf22"),
    ],
)
def test_digest_is_the_same_everywhere(kind, expected):
    assert Projection(7, kind=kind, classes=3).digest({"hidden": 500, "0": 64}) == expected


def test_open_classes_and_a_long_seed_are_the_same_bits_everywhere():
    projection = Projection(2**200 + 1, classes=["walking", 1, True, 0.5])
    expected = "3f73f137 bee3aa63 3f8738a8 3e91fe15 3f199e10 bf9aab32 bece0684 3fb2cbae"
    assert bits(projection.rows("0", 2)) == expected
    assert projection.digest({"0": 1000}) == "040edecea7bc0110ada1d66c6c76a6ea"


@pytest.mark.parametrize(
    ("word", "expected"),
    [  # the least word, three ever nearer the centre, and the two sides of the middle
        (0, "-0x1.06b48528cea51p+3"),
        (1 << 20, "-0x1.db1d990cf8180p+2"),
        (1 << 40, "-0x1.52dc6e853f1cap+2"),
        (1 << 60, "-0x1.88bc1fbe1dab7p+0"),
        (2**63 - 1, "-0x1.40d931ff62707p-52"),
        (2**63, "0x1.40d931ff62707p-52"),
        (2**64 - 1, "0x1.06b48528cea51p+3"),
    ],
)
def test_normal_values_are_the_same_bits_in_the_centre_and_both_tails(word, expected):
    assert _normal_quantile(_open_unit(np.array([word], dtype=np.uint64)))[0].hex() == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("1", 6089488841514447703),
        (1, 7444630072639622075),
        (1.0, 253168627967530991),
        (True, 16223165159935400121),
        (False, 16132379203260589449),
        (-1, 13620813286810899976),
        ("", 2466367847375744262),
        ("é", 3647819357860072053),
    ],
)
def test_class_key_is_the_same_everywhere(label, expected):
    assert class_key(label) == expected


# Class keys


def test_class_key_of_a_numpy_scalar_is_that_of_its_value():
    for scalar in (np.str_("1"), np.int64(1), np.uint8(1), np.float64(0.1), np.float32(0.1), np.bool_(True)):
        assert class_key(scalar) == class_key(scalar.item())


def test_class_key_does_not_tell_the_sign_of_zero():
    assert class_key(-0.0) == class_key(0.0)


def test_class_key_takes_any_text():
    assert class_key("\udcff") != class_key("\udcfe")  # what `surrogateescape` makes of undecodable bytes


@pytest.mark.parametrize("label", [None, b"1", ("a", 1), float("nan"), np.float32("nan"), 1j])
def test_class_key_refuses_what_is_no_label(label):
    with pytest.raises(ModelError, match="class label"):
        class_key(label)


labels = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans())


@given(labels, labels)
def test_class_key_tells_labels_apart_by_type_and_value(one, other):
    same = type(one) is type(other) and one == other
    assert (class_key(one) == class_key(other)) is same
    assert 0 <= class_key(one) < 2**64


# What a row depends on


@given(
    seed=st.integers(0, 2**80),
    kind=st.sampled_from(KINDS),
    classes=st.integers(1, 4),
    block=st.text(),
    features=st.integers(4, 40),
)
def test_same_arguments_give_the_same_bits(seed, kind, classes, block, features):
    first = Projection(seed, kind=kind, classes=classes)
    rows, digest = first.rows(block, features), first.digest({block: features})
    _rows.cache_clear()
    again = Projection(seed, kind=kind, classes=classes)
    assert rows.shape == (classes, features)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert rows.tobytes() == again.rows(block, features).tobytes()
    assert digest == again.digest({block: features})


@given(
    kind=st.sampled_from(INDEPENDENT_KINDS),
    classes=st.lists(labels, min_size=1, max_size=6, unique_by=class_key),
    data=st.data(),
)
def test_row_of_a_class_does_not_depend_on_the_other_classes(kind, classes, data):
    others = data.draw(st.permutations(classes))[: data.draw(st.integers(1, len(classes)))]
    rows = Projection(3, kind=kind, classes=classes).rows("b", 5)
    fewer = Projection(3, kind=kind, classes=others).rows("b", 5)
    keys = [class_key(label) for label in classes]
    for label, row in zip(others, fewer, strict=True):
        assert row.tobytes() == rows[keys.index(class_key(label))].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_more_fixed_classes_redraw_nothing(kind):
    few, many = (Projection(3, kind=kind, classes=n).rows("b", 30) for n in (4, 9))
    np.testing.assert_array_equal(few, many[:4])


@pytest.mark.parametrize("kind", INDEPENDENT_KINDS)
def test_more_features_redraw_nothing(kind):
    projection = Projection(3, kind=kind, classes=4)
    np.testing.assert_array_equal(projection.rows("b", 10), projection.rows("b", 25)[:, :10])


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_blocks_and_classes_differ(kind):
    rows = [
        Projection(seed, kind=kind, classes=2).rows(block, 64)
        for seed in (0, 1, 256, 2**64, 2**64 + 1)
        for block in ("", "0", "00", "hidden")
    ]
    assert len({row.tobytes() for pair in rows for row in pair}) == 2 * len(rows)


def test_different_streams_are_uncorrelated():
    rows = [Projection(seed, classes=3).rows(block, 5000) for seed in (0, 1) for block in ("0", "2")]
    correlations = np.corrcoef(np.concatenate(rows))
    assert np.abs(correlations - np.eye(12)).max() < 5 / np.sqrt(5000)


# Distributions. The values are fixed, so these either always pass or never do.


@pytest.fixture(scope="module")
def sample():
    def draw(kind):
        return Projection(11, kind=kind, classes=10).rows("layer", 20_000).astype(np.float64).ravel()

    return draw


@pytest.mark.parametrize(("kind", "fourth_moment"), [("normal", 3.0), ("uniform", 1.8), ("sign", 1.0)])
def test_moments(sample, kind, fourth_moment):
    values = sample(kind)
    assert abs(values.mean()) < 4 / np.sqrt(values.size)
    assert values.var() == pytest.approx(1.0, abs=0.01)
    assert (values**3).mean() == pytest.approx(0.0, abs=0.04)
    assert (values**4).mean() == pytest.approx(fourth_moment, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "distribution"),
    [("normal", stats.norm()), ("uniform", stats.uniform(-np.sqrt(3), 2 * np.sqrt(3)))],
)
def test_values_follow_their_distribution(kind, distribution):
    # One sample's p-value may be small by chance; over many samples the p-values must themselves be uniform.
    projections = (Projection(seed, kind=kind, classes=10).rows("layer", 500) for seed in range(100))
    p_values = [stats.kstest(rows.ravel(), distribution.cdf).pvalue for rows in projections]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001
    assert min(p_values) > 0.001 / len(p_values)


def test_uniform_stays_within_its_bounds(sample):
    assert np.sqrt(3) - 1e-4 < np.abs(sample("uniform")).max() < np.sqrt(3)


def test_sign_is_one_or_minus_one(sample):
    assert set(sample("sign")) == {-1.0, 1.0}


def test_normal_quantile_agrees_with_scipy():
    powers = 2.0 ** -np.arange(2.0, 53.0)
    u = np.concatenate([_open_unit(np.random.Philox(key=1).random_raw(100_000)), powers, 1 - powers])
    np.testing.assert_allclose(_normal_quantile(u), stats.norm.ppf(u), rtol=1e-13)


def test_log_agrees_with_numpy():
    x = np.concatenate([np.linspace(1e-3, 0.5, 10_001), 2.0 ** -np.arange(1.0, 60.0)])
    np.testing.assert_allclose(_log(x), np.log(x), rtol=1e-15)


@pytest.mark.filterwarnings("error")
def test_extreme_words_give_finite_values():
    u = _open_unit(np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], dtype=np.uint64))
    assert ((u > 0) & (u < 1)).all()
    assert np.abs(_normal_quantile(u)).max() < 9


# Orthogonal rows


@pytest.mark.parametrize(("classes", "features"), [(1, 1), (3, 4), (10, 300), (64, 64)])
def test_orthogonal_rows(classes, features):
    rows = Projection(5, kind="orthogonal", classes=classes).rows("b", features).astype(np.float64)
    np.testing.assert_allclose(rows @ rows.T / features, np.eye(classes), atol=2e-7)
    assert (rows**2).mean() == pytest.approx(1.0, abs=1e-6)


def test_first_orthogonal_row_points_where_the_normal_one_does():
    orthogonal, normal = (Projection(5, kind=kind, classes=3).rows("b", 50)[0] for kind in ("orthogonal", "normal"))
    np.testing.assert_allclose(orthogonal / np.linalg.norm(orthogonal), normal / np.linalg.norm(normal), atol=1e-6)


def test_orthogonal_rows_need_as_many_features_as_classes():
    projection = Projection(5, kind="orthogonal", classes=10)
    message = "block 'narrow' has 9 features, too few for 10 orthogonal rows"
    with pytest.raises(ModelError, match=message):
        projection.rows("narrow", 9)
    with pytest.raises(ModelError, match=message):
        projection.digest({"narrow": 9})


def test_orthogonal_rows_need_fixed_classes():
    with pytest.raises(ModelError, match="needs a fixed number of classes"):
        Projection(5, kind="orthogonal", classes=["a", "b"])


# The object


def test_keys_are_indices_of_fixed_classes_and_hashes_of_labels():
    assert Projection(0, classes=3).keys == (0, 1, 2)
    assert Projection(0, classes=["a", 2]).keys == (class_key("a"), class_key(2))


def test_a_stream_may_begin_without_classes():
    assert Projection(0, classes=[]).rows("b", 4).shape == (0, 4)


def test_equal_projections_share_their_rows():
    one, other = (Projection(9, classes=["a", "b"]) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one.rows("b", 6) is other.rows("b", 6)
    assert one != Projection(9, classes=["b", "a"])
    assert Projection(9, classes=[1]) != Projection(9, classes=[True])


def test_rows_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        Projection(9, classes=2).rows("b", 6)[0, 0] = 1.0


def test_a_projection_is_not_changed_by_its_list_of_labels():
    classes = ["a"]
    projection = Projection(9, classes=classes)
    classes.append("b")
    assert projection == Projection(9, classes=projection.classes)
    assert projection.rows("b", 6).shape == (1, 6)


def test_a_projection_survives_pickling_and_copying():
    projection = Projection(9, kind="sign", classes=["a", "b"])
    assert pickle.loads(pickle.dumps(projection)) == projection == copy.deepcopy(projection)


def test_digest_does_not_depend_on_the_order_of_the_blocks():
    projection = Projection(9, classes=2)
    assert projection.digest({"0": 4, "2": 8}) == projection.digest({"2": 8, "0": 4})


def test_digest_tells_every_difference():
    blocks = {"0": 40, "2": 8}
    digests = {Projection(9, kind=kind, classes=2).digest(blocks) for kind in KINDS} | {
        Projection(10, classes=2).digest(blocks),
        Projection(9, classes=3).digest(blocks),
        Projection(9, classes=[0, 1]).digest(blocks),
        Projection(9, classes=2).digest({"0": 40}),
        Projection(9, classes=2).digest({"0": 40, "3": 8}),
        Projection(9, classes=2).digest({"0": 40, "2": 9}),
        Projection(9, classes=2).digest({}),
    }
    assert len(digests) == len(KINDS) + 7


def test_numpy_integers_count_as_whole_numbers():
    assert Projection(np.uint32(9), classes=np.int64(2)) == Projection(9, classes=2)
    projection = Projection(9, classes=2)
    assert projection.rows("b", np.int64(6)) is projection.rows("b", 6)


@pytest.mark.parametrize("seed", [-1, 1.0, "1", None, True])
def test_bad_seed(seed):
    with pytest.raises(ModelError, match=r"the seed is .*: give a whole number, at least 0"):
        Projection(seed, classes=2)


def test_bad_kind():
    with pytest.raises(ModelError, match="'gauss': choose one of normal, uniform, sign, orthogonal"):
        Projection(1, kind="gauss", classes=2)


@pytest.mark.parametrize("classes", [0, -3, True])
def test_bad_number_of_classes(classes):
    with pytest.raises(ModelError, match=r"the number of classes is .*: give a whole number, at least 1"):
        Projection(1, classes=classes)


@pytest.mark.parametrize("classes", ["ab", None, 2.0, {"a", "b"}])
def test_bad_classes(classes):
    with pytest.raises(ModelError, match="give their number, or the list of their labels"):
        Projection(1, classes=classes)


@pytest.mark.parametrize("classes", [["a", "a"], [0.0, -0.0]])
def test_repeated_label(classes):
    with pytest.raises(ModelError, match="appears twice"):
        Projection(1, classes=classes)


@pytest.mark.parametrize("features", [0, -1, 2.5, True])
def test_bad_features(features):
    with pytest.raises(ModelError, match="the number of features of block 'b' is"):
        Projection(1, classes=2).rows("b", features)
