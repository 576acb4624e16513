"""What a drift report says, and what each policy does to the weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from river import base, checks, drift
from river.datasets import synth

from fedtp.errors import ModelError
from fedtp.streaming import TPClassifier, TPRegressor
from fedtp.streaming.drift import LONG, RECENT, DriftReport, DriftWatch
from fedtp.streaming.policies import (
    POLICIES,
    BoostLR,
    Ensemble,
    FreezeAdaptor,
    Managed,
    ResetFromBlock,
    ResetHead,
    WindowRetrain,
)

ACTIVE = {name: policy for name, policy in POLICIES.items() if policy is not None}
CHECKS = [
    pytest.param(model, check, id=f"{type(model).__name__}-{model.policy}-{number}-{check.__name__}")
    for model in [*(TPClassifier(policy=name, seed=1) for name in ACTIVE), TPRegressor(policy="ensemble", seed=1)]
    for number, check in enumerate(checks.yield_checks(model))
    if check.__name__ not in model._unit_test_skips()
]


class At(base.DriftDetector):
    """Flags one drift, after so many samples; it is told nothing by what it sees."""

    def __init__(self, sample: int = 100) -> None:
        super().__init__()
        self.sample = sample
        self.seen: list[float] = []

    @property
    def estimation(self) -> float:
        return float(len(self.seen))  # as if errors had become worse

    def update(self, x: float) -> None:
        self.seen.append(x)
        self._drift_detected = len(self.seen) == self.sample


@pytest.mark.parametrize(("model", "check"), CHECKS)
def test_rivers_checks(model: Any, check: Callable[[Any], None]) -> None:
    check(model.clone())


def blobs(samples: int, seed: int = 0, classes: int = 3) -> Iterator[tuple[dict[str, float], int]]:
    rng = np.random.default_rng(seed)
    centres = 2.0 * rng.normal(size=(classes, 5))
    for _ in range(samples):
        label = int(rng.integers(classes))
        yield dict(zip("abcde", (centres[label] + rng.normal(size=5)).tolist(), strict=True)), label


def learnt(model: Any, samples: int = 100, seed: int = 0) -> Any:
    """Let a model learn until the detector flags a drift, with labels that are renamed before it does."""
    for position, (x, y) in enumerate(blobs(samples, seed)):
        model.learn_one(x, y if position < samples - 20 else (y + 1) % 3)
    return model


def network(model: Any) -> Any:
    return model._network.network if isinstance(model._network, Managed) else model._network


def weights(model: Any) -> dict[str, Any]:
    """Copy the weights and the readouts, by block."""
    net = network(model)
    parts = {"0": net.first[:, :, : 1 + net.inputs]}
    for number, table in enumerate(net.tables):
        following = table.shape[1] - net.outputs
        parts[net.blocks[number + 1]] = table[:, :following]
        parts[f"{net.blocks[number]} readout"] = table[:, following:]
    return {name: part.copy() for name, part in parts.items()}


def changed(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {name for name in one if not np.array_equal(one[name], other[name])}


def make(policy: Any, sample: int = 100, **more: Any) -> Any:
    return TPClassifier(hidden=(8, 6), policy=policy, detector=At(sample), seed=1, **more)


@pytest.mark.parametrize("policy", [None, *ACTIVE])
def test_nothing_happens_without_a_detection(policy: str | None) -> None:
    plain, model = TPClassifier(hidden=(8, 6), seed=1), make(policy, sample=10**6)
    for x, y in blobs(200):
        assert model.predict_proba_one(x) == plain.predict_proba_one(x)
        model.learn_one(x, y)
        plain.learn_one(x, y)
    assert model.drift is None
    assert not changed(weights(model), weights(plain))


def test_without_policy_and_detector_nobody_watches() -> None:
    model = TPClassifier(seed=1)
    assert model._watch is None
    assert learnt(model).drift is None


def test_a_detector_alone_reports_and_does_nothing() -> None:
    plain, model = learnt(TPClassifier(hidden=(8, 6), seed=1)), learnt(make(None))
    assert model.drift.sample == 100
    assert list(model.drift.blocks) == ["0", "2", "4"]
    assert not changed(weights(model), weights(plain))


def test_the_detector_is_cloned() -> None:
    detector = At()
    models = [learnt(TPClassifier(policy="reset-head", detector=detector, seed=1)) for _ in range(2)]
    assert all(model.drift is not None and model.detector is detector for model in models)
    assert detector.seen == []


def test_the_detector_sees_what_was_predicted_before_learning() -> None:
    model, errors = make(None), []
    for x, y in blobs(50):
        guess = model.predict_one(x)
        errors.append(float(guess is not None and guess != y))
        model.learn_one(x, y)
    # A class that appears with its sample cannot have been predicted, but it can be the answer that was drawn for it.
    assert model._watch.detector.seen[5:] == errors[5:]
    assert 0.0 < sum(errors) < 40.0


def test_of_a_late_label_the_detector_sees_the_prediction_that_was_made() -> None:
    prompt = make(None)
    samples = list(blobs(60))
    for x, y in samples[:30]:
        prompt.learn_one(x, y)
    late = copy.deepcopy(prompt)
    guesses = [late.predict_one(x) for x, _ in samples[30:]]
    for x, y in samples[30:]:
        late.learn_one(x, (y + 1) % 3)
    assert late._watch.detector.seen[30:] == [
        float(guess != (y + 1) % 3) for guess, (_, y) in zip(guesses, samples[30:], strict=True)
    ]


def test_fewer_errors_are_no_drift() -> None:
    for detector in (drift.ADWIN(), drift.PageHinkley(mode="both"), drift.KSWIN(seed=1)):
        watch = DriftWatch(detector, ["0"], classes=True)
        labels = np.eye(2)
        flags = [
            watch.observe(float(wrong), labels[[int(wrong)]], labels[0])
            for wrong in np.random.default_rng(0).random(1200) < np.repeat([0.5, 0.05], 600)
        ]
        assert not any(flags)


@pytest.mark.parametrize("detector", [drift.binary.DDM(), drift.binary.HDDMA(), drift.binary.EDDM(), drift.ADWIN()])
@pytest.mark.parametrize("kind", [TPClassifier, TPRegressor])
def test_detectors_of_rights_and_wrongs_too(detector: Any, kind: Any) -> None:
    model = kind(policy="boost-lr", detector=detector, seed=1)
    for position, (x, y) in enumerate(blobs(1200)):
        model.learn_one(x, y if position < 800 else (5 if position % 2 else -5))
    assert model.drift is not None
    assert model.drift.sample > 800


def test_reports_are_new_and_frozen() -> None:
    model = TPClassifier(detector=drift.ADWIN(), seed=1)
    reports: list[DriftReport] = []
    for position, (x, y) in enumerate(blobs(2000)):
        model.learn_one(x, y if position % 1000 < 500 else int(np.random.default_rng(position).integers(3)))
        if model.drift is not None and (not reports or model.drift is not reports[-1]):
            reports.append(model.drift)
    assert len(reports) >= 2
    assert 500 < reports[0].sample < 700
    assert abs(reports[0].sample - reports[0].since - 500) < 30
    with pytest.raises(AttributeError):
        reports[0].sample = 3  # type: ignore[misc]


def drifting(how: str, seed: int) -> Iterator[tuple[dict[int, float], Any]]:
    generators = [
        synth.RandomRBF(seed_model=50 + seed, seed_sample=seed, n_classes=4, n_features=10, n_centroids=20),
        synth.Waveform(seed=seed),
        synth.LED(seed=seed, noise_percentage=0.05, irrelevant_features=True),
    ]
    rng = np.random.default_rng(seed)
    samples = list(generators[seed % 3].take(2600))
    order = rng.permutation(len(samples[0][0]))
    labels = sorted({y for _, y in samples})
    for position, (x, y) in enumerate(samples):
        values = np.array([float(value) for value in x.values()])
        if position >= 2000:
            values = values[order] if how == "inputs" else values
            y = labels[(labels.index(y) + 1) % len(labels)] if how == "labels" else y
        yield dict(enumerate(values.tolist())), y


@pytest.mark.parametrize(("how", "block"), [("inputs", "0"), ("labels", "4")])
def test_input_drift_shows_low_and_label_drift_high(how: str, block: str) -> None:
    reports = []
    for seed in range(9):
        model = TPClassifier(hidden=(64, 32), detector=drift.ADWIN(), seed=seed)
        for x, y in drifting(how, seed):
            model.learn_one(x, y)
            if model.drift is not None and model.drift.sample > 2000:
                reports.append(model.drift)
                break
    assert len(reports) >= 6  # from some, the network is back before they can be flagged
    assert sum(report.from_block == block for report in reports) >= len(reports) - 1
    low, _, high = np.median([list(report.blocks.values()) for report in reports], 0)
    assert high > 0.5
    assert low > 0.7 * high if how == "inputs" else low < 0.2 * high


@pytest.mark.parametrize(("how", "block"), [("inputs", "0"), ("labels", "4")])
def test_blocks_of_a_regressor(how: str, block: str) -> None:
    model = TPRegressor(hidden=(32, 16), detector=drift.ADWIN(), seed=1)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    for position in range(3300):
        x = rng.normal(size=6)
        y = x[0] + np.sin(2 * x[1]) + x[2] * x[3]
        if position >= 3000:
            x, y = (turn @ x, y) if how == "inputs" else (x, 3 - 2 * y)
        model.learn_one(dict(enumerate(x.tolist())), y)
        if model.drift is not None and model.drift.sample > 3000:
            break
    assert model.drift.from_block == block


def test_a_watch_needs_no_more_memory_the_longer_it_watches() -> None:
    watch = DriftWatch(drift.NoDrift(), ["0", "2"], classes=True)
    sizes = []
    for position in range(3 * LONG):
        watch.observe(float(position % 7 == 0), np.eye(2), np.eye(2)[0])
        if position in (2 * RECENT, 3 * LONG - 1):
            sizes.append(len(pickle.dumps(watch)))
    assert abs(sizes[1] - sizes[0]) < 64


def test_reset_head_starts_the_last_block_anew_and_no_other() -> None:
    plain, model = weights(learnt(make(None))), learnt(make("reset-head"))
    assert changed(weights(model), plain) == {"4"}
    assert not weights(model)["4"].any()


@pytest.mark.parametrize(
    ("block", "reset"),
    [
        ("0", {"0", "0 readout", "2", "2 readout", "4"}),
        ("2", {"2", "2 readout", "4"}),
        ("4", {"4"}),
    ],
)
def test_reset_from_block_starts_it_and_all_above_anew(block: str, reset: set[str]) -> None:
    plain, model = learnt(make(None)), learnt(make("reset-from-block", sample=10**6))
    report = DriftReport(100, 20, dict.fromkeys(["0", "2", "4"], 1.0), block)
    model._react(report)
    assert changed(weights(model), weights(plain)) == reset
    new = make(None)
    for (x, _), y in zip(blobs(3), range(3), strict=True):
        new._appear(x)
        new._add([y])
    order = [new.classes.index(label) for label in model.classes]
    fresh = weights(new)
    for name in reset - {"4"}:
        expected = fresh[name][:, order] if name.endswith("readout") else fresh[name]
        assert np.array_equal(weights(model)[name], expected)


def test_boost_learns_faster_for_a_while_and_then_exactly_as_before() -> None:
    model = learnt(make(BoostLR(factor=3.0, samples=30)))
    paces = np.array(model.paces)
    assert np.array_equal(network(model).paces, 3.0 * paces)
    for x, y in blobs(29, seed=2):
        model.learn_one(x, y)
    assert np.array_equal(network(model).paces, 3.0 * paces)
    model.learn_one(x, y)
    assert np.array_equal(network(model).paces, paces)


def test_a_boosted_step_goes_so_many_times_as_far() -> None:
    model, plain = learnt(make(BoostLR(factor=3.0))), learnt(make(None))
    before = weights(plain)["4"]
    x, y = next(blobs(1, seed=5))
    model.learn_one(x, y)
    plain.learn_one(x, y)
    assert np.allclose(weights(model)["4"] - before, 3.0 * (weights(plain)["4"] - before))


def test_window_retrain_is_what_a_new_network_learns_from_the_window() -> None:
    model = learnt(make(WindowRetrain(window=40, epochs=2)))
    window = list(model._network.window)
    assert len(window) == 40
    fresh = model._fresh()
    for _ in range(2):
        for x, target in window:
            fresh.forward(x)
            fresh.learn(target)
    assert np.array_equal(fresh.first, network(model).first)
    assert all(np.array_equal(a, b) for a, b in zip(fresh.tables, network(model).tables, strict=True))


def test_a_window_from_before_a_feature_and_a_class_appeared() -> None:
    model = make(WindowRetrain(window=60, epochs=1), sample=100)
    for position, (x, y) in enumerate(blobs(100)):
        x = x if position > 80 else {name: x[name] for name in "ab"}
        model.learn_one(x, y if position > 90 else min(y, 1))
    assert model.drift is not None
    assert network(model).inputs == 5
    assert network(model).outputs == 3


def test_frozen_units_only_scale_and_shift() -> None:
    model = learnt(make(FreezeAdaptor(samples=20)))
    before = weights(model)
    for x, y in blobs(20, seed=3):
        model.learn_one(x, y)
    after = weights(model)
    assert changed(before, after) == {"0", "2", "4"}  # and no readout
    for block in ("0", "2", "4"):
        old, new = before[block][:, :, 1:], after[block][:, :, 1:]
        lengths = np.linalg.norm(old, axis=2) * np.linalg.norm(new, axis=2)
        assert np.allclose(np.abs((old * new).sum(2)), lengths)
        assert not np.allclose(old, new)
    model.learn_one(x, y)
    assert "0 readout" in changed(after, weights(model))


def test_frozen_for_good() -> None:
    model = learnt(make(FreezeAdaptor(samples=None)))
    before = weights(model)
    for x, y in blobs(300, seed=3):
        model.learn_one(x, y)
    assert "0 readout" not in changed(before, weights(model))


def test_the_reactive_network_starts_at_the_drift_and_takes_over() -> None:
    model = learnt(make(Ensemble(least=30, trial=400), sample=101))
    rng = np.random.default_rng(0)
    assert model._network.reactive is None
    stable = model._network.network
    x, y = next(blobs(1))
    model.learn_one(x, (y + 1) % 3)
    reactive = model._network.reactive
    assert not reactive.tables[-1][:, : reactive.outputs].any()
    # What the stable network knows is spoilt, so that the reactive one is better.
    for table in stable.tables:
        table[...] = rng.normal(size=table.shape)
    stable.paces[:] = 1e-6
    stable._arrange()
    for x, y in blobs(200, seed=0):
        model.learn_one(x, y)
    assert model._network.network is reactive
    assert model._network.reactive is None


def test_a_reactive_network_that_is_no_better_is_given_up() -> None:
    model = learnt(make(Ensemble(least=50, trial=60, margin=0.01)))
    for x, y in blobs(59, seed=2):
        model.learn_one(x, y)
    stable = model._network.network
    assert model._network.reactive is not None
    model.learn_one(x, y)
    assert model._network.reactive is None
    assert model._network.network is stable


@pytest.mark.parametrize("policy", ACTIVE)
def test_copies_pickles_and_runs_go_on_alike(policy: str) -> None:
    model, other = learnt(make(policy)), learnt(make(policy))
    assert model.drift == other.drift
    loaded, copied = pickle.loads(pickle.dumps(model)), copy.deepcopy(model)
    for x, y in blobs(150, seed=4):
        answers = [one.predict_proba_one(x) for one in (model, other, loaded, copied)]
        assert answers == answers[:1] * 4
        for one in (model, other, loaded, copied):
            one.learn_one(x, y)
    assert not changed(weights(model), weights(loaded))


@pytest.mark.parametrize("policy", ACTIVE)
def test_state_goes_on_alike(policy: str) -> None:
    model, loaded = learnt(make(policy)), make(policy)
    loaded.features, loaded.class_counts = copy.deepcopy(model.features), list(model.class_counts)
    loaded._name(list(model.classes))
    loaded._network.load_state(model._network.state())
    for x, y in blobs(100, seed=4):
        assert model.predict_proba_one(x) == loaded.predict_proba_one(x)
        model.learn_one(x, y)
        loaded.learn_one(x, y)


def test_a_watch_goes_on_alike() -> None:
    rng = np.random.default_rng(0)
    watches = [DriftWatch(drift.ADWIN(), ["0", "2"], classes=True) for _ in range(2)]
    found: list[list[DriftReport]] = [[], []]
    for position in range(1500):
        answers, label = np.eye(3)[rng.integers(3, size=2)], np.eye(3)[int(rng.integers(3))]
        error = float(rng.random() < (0.1 if position < 1000 else 0.6))
        if position == 700:
            watches[1].load_state(watches[0].state())
        for number, watch in enumerate(watches[: 1 if position < 700 else 2]):
            report = watch.observe(error, answers, label)
            if report is not None:
                found[number].append(report)
    assert found[0] == found[1] != []


@pytest.mark.parametrize("policy", ACTIVE)
def test_many_at_once(policy: str) -> None:
    frame = pd.DataFrame([x for x, _ in blobs(400)])
    labels = pd.Series([y if position < 300 else (y + 1) % 3 for position, (_, y) in enumerate(blobs(400))])
    model = make(policy, sample=330)
    for begin in range(0, 400, 25):
        part = slice(begin, begin + 25)
        model.predict_many(frame[part])
        model.learn_many(frame[part], labels[part])
    assert model.drift.sample == 330
    assert model.predict_many(frame[375:]).notna().all()


@pytest.mark.parametrize("policy", ACTIVE)
def test_features_and_classes_still_appear_after_a_drift(policy: str) -> None:
    model = learnt(make(policy))
    for position, (x, y) in enumerate(blobs(60, seed=6)):
        model.predict_one(x)
        model.learn_one(x | {"new": 1.0 * position}, f"class {y}" if position > 10 else y)
    assert len(model.classes) == 6
    assert sum(model.predict_proba_one(x).values()) == pytest.approx(1.0)


@pytest.mark.parametrize("policy", ACTIVE.values(), ids=ACTIVE)
def test_settings_are_kept_as_they_were_given(policy: Any) -> None:
    model = TPClassifier(policy=policy)
    assert model.policy is policy
    assert model.clone().policy == policy
    assert eval(repr(policy)) == policy
    assert repr(policy) in " ".join(repr(model).split())
    with pytest.raises(AttributeError):
        policy.factor = 2


def test_memory_of_an_ensemble_is_counted() -> None:
    model = learnt(make("ensemble", sample=101))
    before = model._raw_memory_usage
    x, y = next(blobs(1))
    model.learn_one(x, y)
    assert model._raw_memory_usage > before + network(model).first.nbytes


@pytest.mark.parametrize("kind", [TPClassifier, TPRegressor])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "reset-tail"}, "There is no policy 'reset-tail'; choose one of none, boost-lr"),
        ({"policy": 3}, "There is no policy 3"),
        ({"policy": ResetHead}, "There is no policy <class"),
        ({"detector": "adwin"}, "detector must be one of River's drift detectors, such as ADWIN"),
        ({"detector": drift.ADWIN}, "detector must be one of River's"),
    ],
)
def test_what_is_no_policy_or_no_detector(kind: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        kind(**arguments)


@pytest.mark.parametrize(
    "make_one",
    [
        lambda: BoostLR(factor=0.0),
        lambda: BoostLR(samples=0),
        lambda: WindowRetrain(window=0),
        lambda: WindowRetrain(epochs=0),
        lambda: FreezeAdaptor(samples=0),
        lambda: Ensemble(fading=1.0),
        lambda: Ensemble(least=10, trial=5),
    ],
)
def test_settings_that_cannot_be(make_one: Callable[[], Any]) -> None:
    with pytest.raises(ModelError):
        make_one()


def test_a_policy_named_none_does_nothing() -> None:
    assert TPClassifier(policy="none")._watch is None
    assert repr(ResetFromBlock()) == "ResetFromBlock()"
