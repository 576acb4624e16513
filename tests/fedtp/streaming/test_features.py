"""Standardised features against NumPy's means and variances, and what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtp.errors import DataError
from fedtp.streaming import fast
from fedtp.streaming.features import LARGEST, Features


@pytest.fixture(params=["numpy", "numba"], autouse=True)
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is tested holds of NumPy's steps and of compiled ones."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr(fast, "enabled", request.param == "numba")


def learn(features: Features, x: dict[Any, Any]) -> np.ndarray:
    """Learn a sample as the learners do, and return what it was standardised to."""
    features.appear(x)
    values = features.vector(x)
    standardized = features.standardized(values)
    features.learn(values)
    return standardized


def learn_frame(features: Features, columns: list[Hashable], values: np.ndarray) -> None:
    features.appear_many(columns, values)
    features.learn_many(features.matrix(columns, values))


def assert_knows(features: Features, columns: dict[Any, list[float]]) -> None:
    """Assert that counts, means and variances are those of the values seen of each feature, NaN for none."""
    assert set(features.names) == set(columns)
    for column, name in enumerate(features.names):
        seen = np.array([value for value in columns[name] if value == value])
        assert features.counts[column] == len(seen)
        if len(seen):
            assert features.means[column] == pytest.approx(seen.mean(), rel=1e-9, abs=1e-9)
            assert features.variances[column] == pytest.approx(seen.var(), rel=1e-7, abs=1e-9)


NUMBERS = st.one_of(st.floats(-1e3, 1e3), st.just(float("nan")), st.none(), st.integers(-5, 5), st.booleans())


@settings(max_examples=100, deadline=None)
@given(
    stream=st.lists(st.dictionaries(st.sampled_from("abcd"), NUMBERS), max_size=30),
    batches=st.lists(st.integers(0, 7), max_size=30),
)
def test_means_and_variances_are_those_of_the_values(stream: list[dict[str, Any]], batches: list[int]) -> None:
    features, seen = Features(), {}
    for step, x in enumerate(stream):
        for name, value in x.items():
            seen.setdefault(name, []).append(float("nan") if value is None else float(value))
        size = batches[step] if step < len(batches) else 0
        if not size:
            assert np.isfinite(learn(features, x)).all()
        else:  # the same sample, so many times
            values = np.array([[float("nan") if v is None else float(v) for v in x.values()]] * size).reshape(size, -1)
            for name, value in zip(x, values[0], strict=True):
                seen[name] += [value] * (size - 1)
            learn_frame(features, list(x), values)
    assert_knows(features, seen)


def test_dense_streams() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 4)) * [1.0, 1e-3, 1e4, 5.0] + [0.0, 1.0, -1e4, 3.0]
    one, many = Features(), Features()
    for row in rows:
        learn(one, dict(zip("dcba", row, strict=True)))
    for part in np.split(rows, [10, 11, 300]):
        learn_frame(many, list("dcba"), part)
    for features in (one, many):
        assert features.names == list("abcd")
        assert_knows(features, dict(zip("dcba", rows.T, strict=True)))


def test_a_value_is_standardised_as_the_next_that_is_learnt() -> None:
    features = Features()
    for value in (1.0, 4.0, 1.0):
        learn(features, {"a": value})
    # Of 1, 4, 1 and 8 the variance is 9.25 - 2.25; about the mean of the first three, 8 is 6 away.
    expected = 6.0 / np.sqrt(2.0 + 6.0**2 / 4.0)
    assert features.standardized(np.array([8.0])) == pytest.approx([expected])
    assert features.standardized(np.array([[8.0], [2.0]])) == pytest.approx(np.array([[expected], [0.0]]))
    assert (features.counts, features.means) == (3.0, 2.0)  # nothing was learnt


def test_names_are_sorted_within_a_sample_and_never_again() -> None:
    features = Features()
    assert features.appear({"b": 1.0, "a": 1.0, 2: 1.0, 1: 1.0, ("t", 1): 0.0, None: 0.0}) == [
        None, 1, 2, "a", "b", ("t", 1)
    ]  # fmt: skip
    assert features.appear({"b": 1.0}) == []
    assert features.appear_many(["B", "A", "a"], np.zeros((2, 3))) == ["A", "B"]
    assert features.names == [None, 1, 2, "a", "b", ("t", 1), "A", "B"]
    assert features.vector({"B": 8.0, 1: 2.0}).tolist()[7] == 8.0
    assert len(features) == 8


def test_the_order_of_a_sample_does_not_matter() -> None:
    one, other = Features(), Features()
    for value in (1.0, 3.0, 7.0):
        learn(one, {"a": value, "b": -value})
        learn(other, {"b": -value, "a": value})
    np.testing.assert_array_equal(one.means, other.means)


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, "absent"])
def test_what_is_missing_counts_as_the_mean_and_is_not_learnt(missing: Any) -> None:
    features = Features()
    for value in (1.0, 2.0, 6.0):
        learn(features, {"a": value, "b": value})
    x = {"a": 2.0} if missing == "absent" else {"a": 2.0, "b": missing}
    assert np.isnan(features.vector(x)).tolist() == [False, True]
    standardized = learn(features, x)
    assert standardized[1] == 0.0
    assert standardized[0] != 0.0
    assert features.counts.tolist() == [4.0, 3.0]
    assert features.means.tolist() == [2.75, 3.0]


def test_names_that_are_not_known_are_left_out() -> None:
    features = Features()
    learn(features, {"a": 1.0})
    assert features.vector({"a": 3.0, "new": 4.0}).tolist() == [3.0]
    assert features.matrix(["new", "a"], np.array([[4.0, 3.0]])).tolist() == [[3.0]]
    assert Features().vector({"new": 1.0}).shape == (0,)
    assert Features().standardized(Features().vector({})).shape == (0,)


@pytest.mark.parametrize("bad", ["text", "3", b"3", float("inf"), -np.inf, 1j, [1.0], [1.0, 2.0], {}, 10**400])
@pytest.mark.parametrize("where", ["known", "new", "both"])
def test_what_is_no_number_is_refused_by_name(bad: Any, where: str) -> None:
    features = Features()
    for value in (1.0, 2.0):
        learn(features, {"a": value, "b": value})
    before = copy.deepcopy(features)
    x = {"known": {"a": 1.0, "b": bad}, "new": {"a": 1.0, "c": bad}, "both": {"b": bad, "c": 1.0}}[where]
    name = "c" if where == "new" else "b"
    with pytest.raises(DataError, match=f"feature '{name}' is"):
        learn(features, x)
    assert features.names == before.names
    for attribute in ("counts", "means", "variances"):
        np.testing.assert_array_equal(getattr(features, attribute), getattr(before, attribute))


def test_all_values_of_a_sample_may_not_be_lists() -> None:
    features = Features()
    learn(features, {"a": 1.0, "b": 2.0})
    with pytest.raises(DataError, match="feature 'a' is"):
        features.vector({"a": [1.0], "b": [2.0]})


def test_infinite_columns_are_refused_by_name() -> None:
    features = Features()
    values = np.array([[1.0, 2.0], [3.0, np.inf]])
    with pytest.raises(DataError, match="feature 'a' is infinite"):
        features.appear_many(["b", "a"], values)
    assert features.names == []
    features.appear({"a": 1.0})
    with pytest.raises(DataError, match="feature 'a' is infinite"):
        features.appear_many(["b", "a"], values)
    assert features.names == ["a"]
    with pytest.raises(DataError, match="feature 'a' is infinite"):
        features.matrix(["b", "a"], values)


@pytest.mark.parametrize(
    "number", [3, True, np.float32(3), np.int64(3), np.bool_(True), np.array(3.0)], ids=lambda n: type(n).__name__
)
def test_numbers_of_any_kind_are_taken(number: Any) -> None:
    features = Features()
    learn(features, {"a": 0.0, "b": 0.0})
    assert features.vector({"a": number, "b": 1}).tolist() == [float(number), 1.0]
    assert features.vector({"a": number}).tolist()[0] == float(number)


@pytest.mark.filterwarnings("error")
def test_large_numbers_leave_the_state_finite() -> None:
    features = Features()
    for value in (1e200, -1e308, 1e150, 1e75, 1.0):
        assert np.isfinite(learn(features, {"a": value, "b": 1.0})).all()
        learn_frame(features, ["a", "b"], np.array([[value, 1.0], [1.0, 1.0], [-value, 1.0]]))
    assert np.isfinite(features.variances).all()
    assert features.vector({"a": -1e300, "b": 1.0}).tolist() == [-LARGEST, 1.0]


def test_constant_features_are_zero() -> None:
    features = Features()
    for step in range(100):
        assert learn(features, {"a": 0.1, "b": float(step)})[0] == 0.0
    learn_frame(features, ["a", "b"], np.array([[0.1, 0.0], [0.1, 5.0]]))
    assert features.variances[0] < 1e-30
    assert np.isfinite(features.standardized(np.array([0.2, 0.0]))).all()


def test_the_first_value_of_a_feature_is_its_mean() -> None:
    features = Features()
    learn(features, {"a": 5.0})
    features.appear({"late": 1e6, "a": 5.0})
    assert features.standardized(features.vector({"a": 5.0, "late": 1e6})).tolist() == [0.0, 0.0]


def test_without_standardising_values_stay_as_they_are() -> None:
    features = Features(standardize=False)
    for value in (1.0, 5.0):
        assert learn(features, {"a": value, "b": None}).tolist() == [value, 0.0]
    learn_frame(features, ["a"], np.array([[3.0]]))
    assert features.counts.tolist() == [0.0, 0.0]
    assert features.standardized(np.array([[3.0, np.nan]])).tolist() == [[3.0, 0.0]]


def test_pickles_go_on_as_they_were() -> None:
    features = Features()
    for step in range(5):
        learn(features, {"a": step**1.5, "b": 1.0})
    loaded = pickle.loads(pickle.dumps(features))
    for each in (features, loaded):
        learn(each, {"b": 2.0, "c": 1.0})
        learn(each, {"a": 2.0, "b": 7.0, "c": 3.0})
    assert loaded.names == features.names
    for attribute in ("counts", "means", "variances"):
        np.testing.assert_array_equal(getattr(features, attribute), getattr(loaded, attribute))


def test_compiled_features_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    both = []
    for enabled in (True, False):
        monkeypatch.setattr(fast, "enabled", enabled)
        both.append(Features())
    rng = np.random.default_rng(0)
    for step in range(300):
        x = {name: float(rng.normal()) for name in "abc" if step < 100 or rng.random() < 0.8}
        if step > 50:
            x["late"] = float(rng.normal(3.0))
        np.testing.assert_allclose(*(learn(features, x) for features in both), rtol=1e-9, atol=1e-12)
    for attribute in ("counts", "means", "variances"):
        np.testing.assert_allclose(getattr(both[0], attribute), getattr(both[1], attribute), rtol=1e-12)
