"""The classifier and the regressor as River's users meet them."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from river import checks, datasets, metrics, stream, utils
from river.datasets import synth

from fedtp.errors import DataError, ModelError
from fedtp.streaming import TPClassifier, TPRegressor

MODELS = {"classifier": TPClassifier(seed=1), "regressor": TPRegressor(seed=1)}
CHECKS = [
    pytest.param(model, check, id=f"{name}-{number}-{check.__name__}")
    for name, model in MODELS.items()
    for number, check in enumerate(checks.yield_checks(model))
    if check.__name__ not in model._unit_test_skips()
]


@pytest.mark.parametrize(("model", "check"), CHECKS)
def test_rivers_checks(model: Any, check: Callable[[Any], None]) -> None:
    check(model.clone())


def test_rivers_mini_batch_checks_are_among_them() -> None:
    ids = [parameter.id for parameter in CHECKS]
    for name in ("check_predict_many_matches_predict_one", "check_predict_proba_many_matches_predict_proba_one"):
        assert any(name in str(identity) for identity in ids)


def growing(samples: int = 6000, seed: int = 0) -> Iterator[tuple[dict[str, float], str]]:
    """From 2 to 40 features and from 1 to 12 classes and back; each class has a centre of its own."""
    rng = np.random.default_rng(seed)
    centres = 2.0 * rng.normal(size=(12, 40))
    for i in range(samples):
        size = 1.0 - abs(2.0 * i / samples - 1.0)  # from 0 to 1 and back
        classes, features = 1 + round(11 * size), 2 + round(38 * size)
        label = int(rng.integers(classes))
        x = centres[label] + rng.normal(size=40)
        yield {f"x{j}": float(x[j]) for j in rng.permutation(features)}, f"class {label}"


def test_a_stream_that_grows_and_shrinks_again() -> None:
    model = TPClassifier(seed=1)
    right: list[bool] = []
    for x, y in growing():
        right.append(model.predict_one(x) == y)
        model.learn_one(x, y)
    assert len(model.features) == 40
    assert sorted(model.classes) == sorted(f"class {label}" for label in range(12))
    assert np.mean(right[2500:3500]) > 0.95  # all features and classes
    assert np.mean(right[-500:]) > 0.95  # few again


def test_memory_stays_flat() -> None:
    model, sizes = TPClassifier(seed=1, hidden=(16,)), []
    for i, (x, y) in enumerate(synth.SEA(seed=1).take(200_000)):
        model.predict_one(x)
        model.learn_one(x, y)
        if i in (10_000, 199_999):
            sizes.append(model._raw_memory_usage)
    assert sizes[1] <= sizes[0] + 200


def test_predictions_never_learnt_take_bounded_memory() -> None:
    model = TPClassifier(seed=1, hidden=(4,))
    model.learn_one({"x": 1.0}, True)
    for i in range(5000):
        model.predict_one({"x": float(i)})
    assert model._raw_memory_usage < 1_000_000


def state(model: Any) -> bytes:
    return pickle.dumps(model)


def test_predicting_changes_nothing() -> None:
    asked, left = TPClassifier(seed=1), TPClassifier(seed=1)
    samples = list(datasets.Phishing().take(300))
    for x, y in samples:
        asked.learn_one(x, y)
        left.learn_one(x, y)
        before = state(asked)
        asked.predict_proba_one({**samples[0][0], "never seen": 3.0})
        asked.predict_one(x)
        asked.predict_proba_many(pd.DataFrame([x, samples[1][0]]))
        assert state(asked) == before
    assert state(asked) == state(left)


def test_what_was_learnt_does_not_depend_on_the_order_of_features_or_on_when_it_is_asked() -> None:
    one, other = TPClassifier(seed=1), TPClassifier(seed=1)
    for x, y in growing(400):
        one.predict_one(x)
        one.learn_one(x, y)
        other.learn_one(dict(sorted(x.items(), reverse=True)), y)
    assert state(one) == state(other)


def test_a_new_feature_and_a_new_class_move_nothing() -> None:
    model = TPClassifier(seed=1)
    samples = list(datasets.ImageSegments().take(300))
    for x, y in samples:
        model.learn_one(x, y)
    before = [model.predict_proba_one(x) for x, _ in samples]
    grown = copy.deepcopy(model)
    grown.features.appear({"a feature that sorts first": 0.0})
    grown._network.grow_inputs(["a feature that sorts first"])
    grown._forget()
    for (x, _), was in zip(samples, before, strict=True):
        assert grown.predict_proba_one(x) == pytest.approx(was, rel=1e-12)
    grown._add(["A class that sorts first"])
    old, new = model._network.tables[0], grown._network.tables[0]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(new[:, :7], old[:, :7])
    np.testing.assert_array_equal(new[:, 8:15], old[:, 7:])
    assert not new[:, 7].any()


def test_devices_draw_the_same_weights_whatever_they_met_first() -> None:
    one, other = TPClassifier(seed=3), TPClassifier(seed=3)
    one.learn_one({"a": 0.0, "b": 0.0}, "x")
    one.learn_one({"c": 0.0}, "y")
    other.learn_one({"c": 0.0}, "z")
    other.learn_one({"b": 0.0, "z": 0.0}, "y")

    def drawn(model: TPClassifier, name: str) -> Any:
        column = model.features.names.index(name)
        return model._network.first[:, :, 1 + column]  # type: ignore[attr-defined]

    for name in ("b", "c"):
        np.testing.assert_array_equal(drawn(one, name), drawn(other, name))
    assert not np.array_equal(drawn(one, "b"), drawn(one, "c"))


def test_a_model_is_a_matter_of_its_seed() -> None:
    def learnt(seed: int) -> dict[Any, float]:
        model = TPClassifier(seed=seed)
        for x, y in datasets.Phishing().take(50):
            model.learn_one(x, y)
        return model.predict_proba_one(x)

    assert learnt(1) == learnt(1)
    assert learnt(1) != learnt(2)


FRAMES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "pandas": (pd.DataFrame, pd.Series),
    "polars": (pl.DataFrame, pl.Series),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_mini_batches_learn_from_frames_of_any_kind(kind: str) -> None:
    frame, series = FRAMES[kind]
    model, accuracy = TPClassifier(seed=1), metrics.Accuracy()
    samples = list(datasets.ImageSegments())
    for start in range(0, len(samples), 32):
        xs, ys = zip(*samples[start : start + 32], strict=True)
        X = frame(list(xs))
        predicted = model.predict_many(X)
        assert type(predicted) is type(series(list(ys)))
        for y, guess in zip(ys, predicted, strict=True):
            accuracy.update(y, guess)
        model.learn_many(X, series(list(ys)))
        assert type(model.predict_proba_many(X)) is type(X)
    assert accuracy.get() > 0.8


def test_a_pandas_index_is_kept() -> None:
    model = TPClassifier(seed=1)
    X = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 1.0]}, index=["first", "second"])
    model.learn_many(X, pd.Series([True, False]))
    assert list(model.predict_proba_many(X).index) == ["first", "second"]
    assert list(model.predict_many(X).index) == ["first", "second"]
    assert list(model.predict_proba_many(X).columns) == [True, False]
    regressor = TPRegressor(seed=1)
    regressor.learn_many(X, pd.Series([1.0, 2.0]))
    assert list(regressor.predict_many(X).index) == ["first", "second"]


def test_a_batch_of_one_is_learnt_as_a_sample() -> None:
    one, many = TPClassifier(seed=1, standardize=False), TPClassifier(seed=1, standardize=False)
    for x, y in datasets.Phishing().take(100):
        one.learn_one(x, y)
        many.learn_many(pd.DataFrame([x]), pd.Series([y]))
    assert many.predict_proba_one(x) == pytest.approx(one.predict_proba_one(x), rel=1e-9)


def test_missing_values_count_as_the_mean() -> None:
    model = TPClassifier(seed=1)
    for x, y in datasets.Phishing().take(100):
        model.learn_one(x, y)
    missing = {name: value for name, value in x.items() if name != "ip_in_url"}
    expected = model.predict_proba_one(missing)
    assert model.predict_proba_one({**x, "ip_in_url": math.nan}) == expected
    assert model.predict_proba_one({**x, "ip_in_url": None}) == expected
    mean = model.features.means[model.features.names.index("ip_in_url")]
    assert model.predict_proba_one({**x, "ip_in_url": mean}) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ({"a": "red", "b": 1.0}, True, "feature 'a' is 'red', but must be a number: encode it first"),
        ({"a": math.inf, "b": 1.0}, True, "feature 'a' is infinite"),
        ({"a": 1.0, "new": math.inf}, True, "feature 'new' is infinite"),
        ({"a": 1.0, "b": 1.0}, None, "a class label is None"),
        ({"a": 1.0, "b": 1.0}, math.nan, "a class label is nan"),
        ({"a": 1.0, "b": 1.0}, [1], "a label must be a string"),
    ],
)
def test_what_cannot_be_learnt_changes_nothing(x: dict[str, Any], y: Any, message: str) -> None:
    model = TPClassifier(seed=1)
    model.learn_one({"a": 1.0, "b": 2.0}, False)
    before = state(model)
    with pytest.raises(DataError, match=message.replace("[", r"\[")):
        model.learn_one(x, y)
    assert state(model) == before


def test_frames_that_cannot_be_learnt_change_nothing() -> None:
    model, regressor = TPClassifier(seed=1), TPRegressor(seed=1)
    before = state(model), state(regressor)
    text = pl.DataFrame({"a": [1.0, 2.0], "colour": ["red", "blue"]})
    numbers = pl.DataFrame({"a": [1.0, 2.0]})
    for attempt, message in (
        (lambda: model.learn_many(text, pl.Series([True, False])), r"the columns \['colour'\] do not hold numbers"),
        (lambda: model.learn_many(numbers, pl.Series([True])), "2 samples, but 1 labels"),
        (lambda: model.learn_many(numbers, pl.Series([True, None])), "a class label is None"),
        (lambda: regressor.learn_many(numbers, pl.Series([1.0])), "2 samples, but 1 values"),
        (lambda: regressor.learn_many(numbers, pl.Series([1.0, math.nan])), "must be a finite number"),
        (lambda: regressor.learn_one({"a": 1.0}, math.inf), "must be a finite number"),
        (lambda: regressor.learn_one({"a": 1.0}, "much"), "must be a number"),
    ):
        with pytest.raises(DataError, match=message):
            attempt()
    assert (state(model), state(regressor)) == before


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"lr": math.nan}, {"paces": ()}, {"paces": (1.0, -1.0)}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"{next(iter(settings))} must be greater than 0"):
        TPClassifier(**settings)


def test_a_learning_rate_ten_times_too_large_does_not_ruin_it() -> None:
    def accuracy(lr: float) -> float:
        model, metric = TPClassifier(seed=1, lr=lr), metrics.Accuracy()
        for x, y in synth.RandomRBFDrift(
            seed_model=7,
            seed_sample=7,
            n_classes=4,
            n_features=8,
            n_centroids=15,
            n_drift_centroids=10,
            change_speed=0.001,
        ).take(4000):
            metric.update(y, model.predict_one(x))
            model.learn_one(x, y)
        return metric.get()

    assert accuracy(10.0) > accuracy(1.0) - 0.02


def test_copies_are_judged_by_what_they_said_when_they_were_asked() -> None:
    """Labels that say nothing but what the last ones said mislead a fast copy, if they come late."""
    rng = np.random.default_rng(1)
    labels = np.repeat(rng.integers(2, size=400), 10)
    x = rng.normal(size=(len(labels), 2))
    model = TPClassifier(seed=1)
    delay, right = 30, []
    for i, row in enumerate(x):
        sample = {"a": row[0], "b": row[1] + 0.7 * labels[i]}
        right.append(model.predict_one(sample) == labels[i])
        if i >= delay:
            late = x[i - delay]
            model.learn_one({"a": late[0], "b": late[1] + 0.7 * labels[i - delay]}, int(labels[i - delay]))
    shares = dict(zip(model.paces, model._network._shares, strict=True))  # type: ignore[attr-defined]
    assert shares[0.05] > 0.9
    assert np.mean(right[500:]) > 0.6


def test_a_regressor_learns_a_curve() -> None:
    rng = np.random.default_rng(0)
    model, error = TPRegressor(seed=1), utils.Rolling(metrics.RMSE, window_size=500)
    for x in rng.uniform(-3, 3, 5000):
        y = 1000.0 + 50.0 * math.sin(x)
        error.update(y, model.predict_one({"x": x}))
        model.learn_one({"x": x}, y)
    assert error.get() < 5.0


@pytest.mark.parametrize("settings", [{"loss": "squared"}, {"loss": "squared", "space": "target"}, {"loss": "hinge"}])
def test_probabilities_sum_to_one_whatever_the_loss(settings: dict[str, Any]) -> None:
    model, metric = TPClassifier(seed=1, hidden=(16,), paces=(0.3,), **settings), metrics.Accuracy()
    for x, y in datasets.Phishing().take(400):
        metric.update(y, model.predict_one(x))
        probabilities = model.predict_proba_one(x)
        if probabilities:
            assert min(probabilities.values()) >= 0.0
            assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-9)
            assert probabilities[model.predict_one(x)] == max(probabilities.values())  # type: ignore[index]
        model.learn_one(x, y)
    assert metric.get() > 0.8
    frame = model.predict_proba_many(pl.DataFrame([x, x]))
    np.testing.assert_allclose(frame.sum_horizontal().to_numpy(), 1.0)


def test_works_in_a_pipeline_and_with_sklearns_data() -> None:
    from river import compose, preprocessing
    from sklearn.datasets import load_digits

    model = compose.Pipeline(preprocessing.MinMaxScaler(), TPClassifier(seed=1))
    metric = metrics.Accuracy()
    for x, y in stream.iter_sklearn_dataset(load_digits()):
        metric.update(y, model.predict_one(x))
        model.learn_one(x, y)
    assert metric.get() > 0.8
