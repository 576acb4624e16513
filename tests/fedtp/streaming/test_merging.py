"""Averages of models that learnt apart."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift

from fedtp.errors import ModelError
from fedtp.streaming import TPClassifier, TPRegressor, load, merge
from fedtp.streaming.merging import _network

FEATURES, CLASSES, DEVICES = 12, 10, 5


class World:
    """Ten classes in twelve features of very different scales; each class is three clouds."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.centres = 1.5 * self.rng.normal(size=(CLASSES, 3, FEATURES))
        self.scales = 10.0 ** self.rng.uniform(-2, 2, FEATURES)

    def draw(
        self, samples: int, classes: Sequence[int] = range(CLASSES), features: Sequence[int] = range(FEATURES)
    ) -> Iterator[tuple[dict[str, float], str]]:
        for _ in range(samples):
            label = int(self.rng.choice(classes))
            x = (self.centres[label, self.rng.integers(3)] + 0.7 * self.rng.normal(size=FEATURES)) * self.scales
            yield {f"x{j}": float(x[j]) for j in features}, f"class {label}"


def learn(model: Any, samples: Iterator[tuple[dict[str, float], Any]]) -> Any:
    for x, y in samples:
        model.learn_one(x, y)
    return model


def accuracy(model: Any, samples: Sequence[tuple[dict[str, float], str]]) -> float:
    return float(np.mean([model.predict_one(x) == y for x, y in samples]))


def numbers(model: Any) -> dict[str, Any]:
    """All that a model has learnt, by name, whatever the order of features and classes."""
    features = model.features
    columns = np.argsort([str(name) for name in features.names])
    rows = np.argsort([str(key) for key in model._keys()])
    known = {kind: getattr(features, kind)[columns] for kind in ("counts", "means", "variances")}
    known |= {"names": [features.names[i] for i in columns], "keys": [model._keys()[i] for i in rows]}
    state = _network(model).state()
    for name, array in state.arrays.items():
        for axis, order in ((state.features.get(name), columns), (state.classes.get(name), rows)):
            if axis is not None:
                array = np.take(array, order, axis)
        known[name] = array
    if isinstance(model, TPRegressor):
        known |= {f"values {kind}": getattr(model._values, kind) for kind in ("counts", "means", "variances")}
    else:
        known["class_counts"] = np.array(model.class_counts)[rows]
    return known


def assert_same(one: Any, other: Any, *, but: Sequence[str] = ()) -> None:
    found, expected = numbers(one), numbers(other)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        if name in ("names", "keys"):
            assert value == expected[name]
        elif name not in but:
            np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-11, err_msg=name)


def apart(seed: int, count: int, **arguments: Any) -> list[TPClassifier]:
    """Models that have met some features and some classes each, some of them none."""
    world = World(seed)
    models = []
    for _ in range(count):
        classes = world.rng.choice(CLASSES, world.rng.integers(1, 4), replace=False)
        features = world.rng.choice(FEATURES, world.rng.integers(1, 6), replace=False)
        samples = world.draw(int(world.rng.integers(0, 40)), classes, features)
        models.append(learn(TPClassifier(hidden=(6, 4), seed=3, **arguments), samples))
    return models


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), standardize=st.booleans())
def test_the_order_of_models_changes_no_more_than_the_order_of_names(seed: int, standardize: bool) -> None:
    models = apart(seed, 3, standardize=standardize)
    # Where values are taken as they are, nothing is made of what their mean is thought to be.
    but = [] if standardize else ["means"]
    assert_same(merge(models), merge(models[::-1]), but=but)
    weights = [3.0, 1.0, 2.0]
    assert_same(merge(models, weights), merge(models[::-1], weights[::-1]), but=but)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_merging_in_steps_is_merging_at_once(seed: int) -> None:
    a, b, c, d = apart(seed, 4)
    # How many samples ago the last mistake was is a whole number, and is rounded at each step.
    at_once = merge([a, b, c, d])
    assert_same(merge([merge([a, b]), merge([c, d])]), at_once, but=["uncounted"])
    assert_same(merge([merge([merge([a, b]), c]), d]), at_once, but=["uncounted"])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_model_merged_with_itself_stays_what_it_is(seed: int) -> None:
    (model,) = apart(seed, 1)
    assert_same(merge([model]), model)
    assert_same(merge([model, model, model]), model, but=["counts", "class_counts"])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), offset=st.sampled_from([0.0, 1e6]))
def test_means_and_variances_are_those_of_all_samples(seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    samples = [
        ({name: float(rng.normal() + offset) for name in "abc" if rng.random() < 0.7}, float(rng.normal()))
        for _ in range(90)
    ]
    parts = [learn(TPRegressor(hidden=(4,)), iter(samples[begin::3])) for begin in range(3)]
    whole = learn(TPRegressor(hidden=(4,)), iter(samples))
    merged = merge(parts)
    order = [whole.features.names.index(name) for name in merged.features.names]
    for mine, its, places in ((merged.features, whole.features, order), (merged._values, whole._values, [0])):
        assert mine.counts.tolist() == its.counts[places].tolist()
        np.testing.assert_allclose(mine.means, its.means[places], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(mine.variances, its.variances[places], rtol=1e-6)


def test_weights_are_of_those_who_have_learnt_something_about_them() -> None:
    world = World(1)
    one = learn(TPClassifier(seed=3, hidden=(6,)), world.draw(50, [0, 1], [0, 1]))
    other = learn(TPClassifier(seed=3, hidden=(6,)), world.draw(150, [1, 2], [1, 2]))
    merged = merge([one, other])
    assert merged.features.names == ["x0", "x1", "x2"]
    assert set(merged.classes) == {"class 0", "class 1", "class 2"}
    assert merged.classes[:2] == one.classes
    found, mine, its = (_network(model).state().arrays for model in (merged, one, other))
    weight = found["0.weight"]
    np.testing.assert_allclose(weight[..., 0], mine["0.weight"][..., 0])
    np.testing.assert_allclose(weight[..., 1], 0.25 * mine["0.weight"][..., 1] + 0.75 * its["0.weight"][..., 0])
    np.testing.assert_allclose(weight[..., 2], its["0.weight"][..., 1])
    np.testing.assert_allclose(found["0.bias"], 0.25 * mine["0.bias"] + 0.75 * its["0.bias"])
    row, counts = merged.classes.index, [model.class_counts[model.classes.index("class 1")] for model in (one, other)]
    for name in ("0.readout", "2.weight"):
        for label, model, arrays in (("class 0", one, mine), ("class 2", other, its)):
            np.testing.assert_allclose(found[name][:, row(label)], arrays[name][:, model.classes.index(label)])
        both = [arrays[name][:, model.classes.index("class 1")] for model, arrays in ((one, mine), (other, its))]
        np.testing.assert_allclose(found[name][:, row("class 1")], np.average(both, 0, counts))
    assert sum(merged.class_counts) == 200


def test_without_scaling_names_alone_tell_what_was_met() -> None:
    world = World(1)
    one = learn(TPClassifier(standardize=False, hidden=(6,)), world.draw(50, [0, 1], [0]))
    other = learn(TPClassifier(standardize=False, hidden=(6,)), world.draw(50, [0, 1], [1]))
    merged = merge([one, other], [1.0, 9.0])
    for model, column in ((one, 0), (other, 1)):
        found = _network(merged).state().arrays["0.weight"][..., column]
        np.testing.assert_allclose(found, _network(model).state().arrays["0.weight"][..., 0])


def test_in_place() -> None:
    world = World(1)
    one = learn(TPClassifier(seed=3), world.draw(50, [0, 1]))
    other = learn(TPClassifier(seed=3), world.draw(150, [1, 2]))
    before, merged, weighted = pickle.dumps(other), merge([one, other]), merge([one, other], [1.0, 0.5])
    mine = copy.deepcopy(one)
    assert mine.merge(other) is None  # type: ignore[func-returns-value]
    assert_same(mine, merged)
    one.merge(other, weight=0.5)
    assert_same(one, weighted)
    assert pickle.dumps(other) == before
    learn(one, world.draw(20))
    assert pickle.dumps(other) == before


def test_what_was_handed_out_is_counted_once() -> None:
    world = World(2)
    shared = merge([learn(TPClassifier(seed=1), world.draw(100, [0, 1])) for _ in range(3)])
    devices = [copy.deepcopy(shared) for _ in range(3)]
    assert_same(merge(devices), shared)
    samples = [[*world.draw(30 * (1 + number), [number])] for number in range(3)]
    for device, own in zip(devices, samples, strict=True):
        learn(device, iter(own))
    merged = merge(devices)
    whole = learn(copy.deepcopy(shared), (sample for own in samples for sample in own))
    assert sum(merged.class_counts) == 300 + 180 == merged.features.counts[0]
    np.testing.assert_allclose(merged.features.means, whole.features.means, rtol=1e-9)
    np.testing.assert_allclose(merged.features.variances, whole.features.variances, rtol=1e-9)
    # Only one has learnt class 2 since, however many had met the others before.
    arrays = [_network(model).state().arrays["2.weight"] for model in (merged, devices[2])]
    row = [model.classes.index("class 2") for model in (merged, devices[2])]
    np.testing.assert_allclose(arrays[0][:, row[0]], arrays[1][:, row[1]])


def test_a_model_that_was_handed_out_as_a_file_is_known_again(tmp_path: Path) -> None:
    world = World(2)
    shared = merge([learn(TPClassifier(seed=1), world.draw(100, [0, 1])) for _ in range(2)])
    shared.save(tmp_path / "shared")
    devices = [learn(load(tmp_path / "shared"), world.draw(10)) for _ in range(4)]
    assert sum(merge(devices).class_counts) == 240


def test_devices_that_see_three_of_ten_classes_know_all_of_them_together() -> None:
    for seed in range(2):
        world = World(seed)
        held_out = [*world.draw(300)]
        classes = [[(2 * device + i) % CLASSES for i in range(3)] for device in range(DEVICES)]
        # Two features are missing at each.
        features = [[j for j in range(FEATURES) if j % DEVICES != device or j >= 10] for device in range(DEVICES)]
        devices = [TPClassifier(seed=1) for _ in range(DEVICES)]
        history = []
        for _ in range(6):
            for device, own_classes, own_features in zip(devices, classes, features, strict=True):
                learn(device, world.draw(200, own_classes, own_features))
            alone = [accuracy(device, held_out) for device in devices]
            merged = merge(devices)
            history.append(accuracy(merged, held_out))
            assert history[-1] > max(alone)
            devices = [copy.deepcopy(merged) for _ in devices]
        assert len(merged.classes) == CLASSES
        assert max(alone) < 0.65
        assert history[-1] > history[0] + 0.15
        assert history[-1] > 0.7
        assert merged.features.counts.max() <= 6 * 200 * DEVICES


def test_regressors() -> None:
    rng = np.random.default_rng(0)

    def draw(samples: int, low: float) -> Iterator[tuple[dict[str, float], float]]:
        for x in rng.uniform(low, low + 1.0, samples):
            yield {"x": float(x)}, float(np.sin(3.0 * x))

    devices = [learn(TPRegressor(seed=1), draw(400, low)) for low in (-1.0, 0.0)]
    for _ in range(5):
        merged = merge(devices)
        devices = [learn(copy.deepcopy(merged), draw(200, low)) for low in (-1.0, 0.0)]
    merged = merge(devices)
    held_out = [*draw(100, -1.0), *draw(100, 0.0)]

    def error(model: TPRegressor) -> float:
        return float(np.mean([abs(model.predict_one(x) - y) for x, y in held_out]))

    alone = [error(learn(TPRegressor(seed=1), draw(1400, low))) for low in (-1.0, 0.0)]
    assert error(merged) < 0.8 * min(alone)


def test_detectors_and_policies_start_anew() -> None:
    world = World(1)
    models = [
        learn(TPClassifier(hidden=(6,), detector=drift.ADWIN(), policy="boost-lr"), world.draw(200)) for _ in range(2)
    ]
    merged = merge(models)
    assert merged._watch is not None
    assert merged._watch.detector.width == 0
    assert merged.policy == "boost-lr"
    learn(merged, world.draw(50))


def test_what_cannot_be_averaged_is_refused() -> None:
    def build(inputs: int, outputs: int) -> Any:
        raise NotImplementedError

    one = TPClassifier(seed=1)
    for other, message in (
        (TPRegressor(seed=1), "a TPClassifier and a TPRegressor cannot be merged"),
        (TPClassifier(seed=2), "models with seed=1 and seed=2 cannot be merged"),
        (TPClassifier(seed=1, hidden=(32,)), r"hidden=\(64,\) and hidden=\(32,\)"),
        (TPClassifier(seed=1, paces=(1.0,)), "paces="),
        (TPClassifier(seed=1, standardize=False), "standardize=True and standardize=False"),
        (TPClassifier(seed=1, loss="squared"), "loss="),
    ):
        with pytest.raises(ModelError, match=message):
            merge([one, other])
    with pytest.raises(ModelError, match="no models"):
        merge([])
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(ModelError, match="weights"):
            merge([one, TPClassifier(seed=1)], weights)
    merge([TPClassifier(seed=1, hidden=[64], lr=0.5), one])  # how fast they learn may differ
    new = merge([TPClassifier(seed=1), TPClassifier(seed=1)])
    assert new.predict_one({"x": 1.0}) is None
