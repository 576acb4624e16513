"""Recurrent estimators: they remember, and streams that are interleaved do not mix."""

import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from river import checks
from torch import nn

from fedtp import Recurrent
from fedtp.errors import DataError, ModelError
from fedtp.streaming import TPClassifier, TPRegressor, TPSequenceClassifier, TPSequenceRegressor, load
from fedtp.streaming.policies import ResetHead
from fedtp.streaming.sequences import RecurrentNetworks, Streams

Samples = list[tuple[dict[Any, Any], Any]]


def parity(samples: int, keys: int = 1, seed: int = 1) -> Iterator[tuple[dict[Any, Any], int]]:
    """Yield bits of a few sensors, each with the parity of it and the bit before it of the same sensor."""
    drawn = random.Random(seed)
    before = dict.fromkeys(range(keys), 0)
    for _ in range(samples):
        sensor, bit = drawn.randrange(keys), drawn.randrange(2)
        yield {"sensor": f"sensor {sensor}", "bit": bit}, bit ^ before[sensor]
        before[sensor] = bit


def bits(samples: Samples) -> Samples:
    return [({"bit": x["bit"]}, y) for x, y in samples]


def accuracy(model: Any, samples: Samples) -> float:
    """Return how much of the second half is predicted right."""
    right = []
    for x, y in samples:
        right.append(model.predict_one(x) == y)
        model.learn_one(x, y)
    return float(np.mean(right[len(right) // 2 :]))


def small(**settings: Any) -> TPSequenceClassifier:
    return TPSequenceClassifier(**{"hidden": (8,), "paces": (1.0, 0.3), "seed": 1, **settings})


def build(inputs: int, outputs: int) -> nn.Sequential:
    layers = Recurrent(nn.GRU(inputs, 12), "last"), nn.LayerNorm(12), nn.Linear(12, 8), nn.Tanh()
    return nn.Sequential(*layers, nn.Linear(8, outputs))


@pytest.mark.parametrize("settings", [{"cell": "gru"}, {"cell": "lstm"}, {"cell": "rnn"}, {"hidden": build}])
def test_it_remembers_what_the_label_depends_on(settings: dict[str, Any]) -> None:
    samples = list(parity(600))
    assert accuracy(TPSequenceClassifier(**{"hidden": (16,), "key": "sensor", "seed": 1, **settings}), samples) > 0.8
    assert accuracy(TPClassifier(seed=1), bits(samples)) < 0.6


def test_interleaved_streams_do_not_mix() -> None:
    samples = list(parity(1000, keys=5))
    by_name, by_function = small(key="sensor"), small(key=lambda x: x["sensor"])
    assert accuracy(by_name, samples) > 0.9
    assert accuracy(small(), bits(samples)) < 0.65
    stripped = [({"bit": x["bit"]}, x["sensor"], y) for x, y in samples[:100]]
    by_name = small(key="sensor")
    for x, sensor, y in stripped:
        by_name.learn_one({**x, "sensor": sensor}, y)
    by_function = small(key=lambda x: x["sensor"] > 0)
    for x, sensor, y in stripped[:20]:
        by_function.learn_one({**x, "sensor": len(sensor)}, y)
    assert by_name.features.names == ["bit"]
    assert by_function.features.names == ["bit", "sensor"]


def test_each_stream_goes_on_as_if_it_were_alone() -> None:
    trained = small(key="sensor", paces=(1.0,))
    accuracy(trained, list(parity(50, keys=3)))
    trained._network.set_paces(np.zeros(1))  # type: ignore[attr-defined]
    trained.standardize = trained.features.standardize = False
    one, other = list(parity(20, seed=2)), list(parity(20, seed=3))
    answers = []
    for interleaved in (False, True):
        model = pickle.loads(pickle.dumps(trained))
        found = []
        for (x, y), (rest, label) in zip(one, other, strict=True):
            found.append(model.predict_proba_one({**x, "sensor": "new"}))
            model.learn_one({**x, "sensor": "new"}, y)
            if interleaved:
                model.predict_one({**rest, "sensor": "another"})
                model.learn_one({**rest, "sensor": "another"}, label)
        answers.append(found)
    assert answers[0] == [pytest.approx(answer) for answer in answers[1]]


def test_predicting_moves_no_state() -> None:
    model = small(key="sensor")
    accuracy(model, list(parity(50, keys=3)))
    before = pickle.dumps(model)
    answers = [model.predict_proba_one({"sensor": s, "bit": 1}) for s in ("sensor 1", "unknown", "sensor 1")]
    frame = pd.DataFrame({"sensor": ["sensor 1", "unknown", "sensor 1"], "bit": [1, 1, 1]})
    many = model.predict_proba_many(frame)
    assert answers[0] == answers[2] != answers[1]
    assert [pytest.approx(row) for row in many.to_dict("records")] == answers
    assert model._streams.numbers.keys() == {"sensor 0", "sensor 1", "sensor 2"}
    model._streams.at_hand = pickle.loads(before)._streams.at_hand
    assert pickle.dumps(model) == before


def test_a_stream_that_is_reset_begins_anew() -> None:
    model = small(key="sensor")
    accuracy(model, list(parity(50, keys=3)))
    fresh = model.predict_proba_one({"sensor": "unknown", "bit": 1})
    assert model.predict_proba_one({"sensor": "sensor 0", "bit": 1}) != fresh
    model.reset("sensor 0")
    model.reset("never there")
    assert model.predict_proba_one({"sensor": "sensor 0", "bit": 1}) == fresh
    assert model.predict_proba_one({"sensor": "sensor 1", "bit": 1}) != fresh


def test_memory_stays_flat_however_many_streams_there_are() -> None:
    model = small(key="sensor", max_keys=5)
    sizes = []
    for step in range(40):
        model.learn_one({"sensor": step, "bit": step % 2}, step % 3 == 0)
        model.learn_one({"sensor": "always there", "bit": step % 2}, step % 3 == 0)
        sizes.append(model._network.nbytes)  # type: ignore[attr-defined]
    assert len(set(sizes[10:])) == 1
    assert [*model._streams.numbers] == [36, 37, 38, 39, "always there"]
    assert all(len(states) == 5 for states in model._network.states)  # type: ignore[attr-defined]


def test_features_and_classes_come_and_states_stay() -> None:
    model = small(key="sensor", paces=(1.0,))
    accuracy(model, list(parity(60, keys=2)))
    before = model.predict_proba_one({"sensor": "sensor 0", "bit": 1})
    model.features.appear({"another": 0.0})
    model._network.grow_inputs(["another"])
    model._forget()
    assert model.predict_proba_one({"sensor": "sensor 0", "bit": 1}) == pytest.approx(before)
    model._add(["a class"])
    after = model.predict_proba_one({"sensor": "sensor 0", "bit": 1})
    assert after[0] / after[1] == pytest.approx(before[0] / before[1])
    model.learn_one({"sensor": "sensor 0", "bit": 1, "more": 3.0}, "one more")


@pytest.mark.parametrize("kind", [(pd.DataFrame, pd.Series), (pl.DataFrame, pl.Series)], ids=["pandas", "polars"])
def test_rows_of_a_frame_are_time_steps(kind: tuple[Callable[..., Any], Callable[..., Any]]) -> None:
    frame, series = kind
    samples = list(parity(1200, keys=6))
    by_row = small(key="sensor")
    for x, y in samples[:4]:
        by_row.learn_one(x, y)
    model = small(key="sensor")
    right = []
    for start in range(0, len(samples), 10):
        xs, ys = zip(*samples[start : start + 10], strict=True)
        model.learn_many(frame(list(xs)), series(list(ys)))
        if start > 900:
            x, y = samples[start + 10] if start + 10 < len(samples) else samples[-1]
            right.append(model.predict_many(frame([x]))[0] == y)
    assert np.mean(right) > 0.8
    assert model._streams.numbers.keys() == {f"sensor {n}" for n in range(6)}
    with pytest.raises(DataError, match="2 samples, but 1 labels"):
        model.learn_many(frame(list(xs[:2])), series(list(ys[:1])))


def test_one_row_is_learnt_as_a_sample() -> None:
    one, many = (small(key="sensor", standardize=False) for _ in range(2))
    for x, y in parity(30, keys=2):
        one.learn_one(x, y)
        many.learn_many(pd.DataFrame([x]), pd.Series([y]))
    assert many.predict_proba_one(x) == pytest.approx(one.predict_proba_one(x))


def test_labels_that_come_late_judge_what_was_said_then() -> None:
    model = small(key="sensor")
    accuracy(model, list(parity(30, keys=2)))
    model.predict_one({"sensor": "sensor 0", "bit": 1})
    model.predict_one({"sensor": "sensor 1", "bit": 1})
    model.predict_one({"sensor": "sensor 0", "bit": 0})
    assert len(model._late) == 2  # the same values, but of two streams


def test_a_regressor_tells_what_comes_next() -> None:
    errors = {}
    for name, hidden in (("remembers", (16,)), ("guesses", ())):
        model: Any = TPSequenceRegressor(hidden=hidden, key="sensor", seed=1) if hidden else TPRegressor(seed=1)
        found = []
        for step in range(800):
            phase = 0.3 * step + 2.0 * (step % 2)
            x = {"wave": np.sin(phase)} | ({"sensor": step % 2} if hidden else {})
            y = float(np.sin(phase + 0.6))
            found.append(abs(model.predict_one(x) - y))
            model.learn_one(x, y)
        errors[name] = np.mean(found[400:])
    assert errors["remembers"] < 0.3 * errors["guesses"]


def test_drifts_are_watched_and_blocks_reset() -> None:
    model = small(key="sensor", policy=ResetHead())
    for x, y in parity(400, keys=2):
        model.learn_one(x, y)
    for x, y in parity(150, keys=2, seed=2):
        model.learn_one(x, 1 - y)
    assert model.drift is not None
    model.learn_many(pd.DataFrame([x, x]), pd.Series([y, y]))
    with pytest.raises(ModelError, match="window-retrain"):
        small(policy="window-retrain")


@pytest.mark.parametrize("policy", [None, "ensemble"])
def test_a_model_is_saved_with_the_states_of_its_streams(tmp_path: Any, policy: Any) -> None:
    model = small(key="sensor", momentum=0.5, policy=policy)
    accuracy(model, list(parity(60, keys=3)))
    model.save(tmp_path / "model.safetensors")
    copies = [load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model))]
    for x, y in parity(20, keys=4, seed=2):
        expected = model.predict_proba_one(x)
        model.learn_one(x, y)
        for copy in copies:
            assert copy.predict_proba_one(x) == expected
            copy.learn_one(x, y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "transformer"}, "There is no cell"),
        ({"hidden": ()}, "at least one recurrent layer"),
        ({"max_keys": 0}, "max_keys"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TPSequenceClassifier(**settings)


def test_what_has_no_memory_is_refused_and_what_has_one_sent_here() -> None:
    model = TPSequenceClassifier(hidden=lambda inputs, outputs: nn.Sequential(nn.Linear(inputs, outputs)))
    with pytest.raises(ModelError, match="Recurrent layers"):
        model.learn_one({"a": 1.0}, True)
    with pytest.raises(ModelError, match="TPSequenceClassifier"):
        TPClassifier(hidden=build).learn_one({"a": 1.0}, True)
    with pytest.raises(DataError, match="hashable"):
        small(key="sensor").learn_one({"sensor": [1], "a": 1.0}, True)


def test_copies_of_numpys_seed_draw_the_same_weights_in_any_order() -> None:
    streams = Streams(1)
    one, other = (RecurrentNetworks((4,), [1.0], "squared", 1, cell="gru", streams=streams) for _ in range(2))
    one.grow_inputs(["a", "b"])
    one.grow_outputs(["y"])
    other.grow_outputs(["y"])
    other.grow_inputs(["b"])
    other.grow_inputs(["a"])
    np.testing.assert_allclose(one.weights()[0], other.weights()[0][:, ::-1])


# The check of flat memory takes a long stream; above is one of our own.
CHECKS = [
    (model, check)
    for model in (TPSequenceClassifier(paces=(1.0,)), TPSequenceRegressor(paces=(1.0,)))
    for check in checks.yield_checks(model)
    if check.__name__ not in {*model._unit_test_skips(), "check_bounded_memory_growth"}
]


@pytest.mark.parametrize(("model", "check"), CHECKS, ids=lambda part: getattr(part, "__name__", type(part).__name__))
def test_it_passes_rivers_checks(model: Any, check: Callable[[Any], None]) -> None:
    check(model.clone())
