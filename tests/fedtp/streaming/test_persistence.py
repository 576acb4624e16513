"""Saving and loading: as a whole, checked as a whole, and exactly."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift
from safetensors import safe_open
from safetensors.numpy import save_file

from fedtp.errors import DataError, ModelError
from fedtp.streaming import TPClassifier, TPRegressor, load, persistence
from fedtp.streaming.detector_codecs import decode, encode
from fedtp.streaming.policies import POLICIES
from fedtp.streaming.state import Part

binary = drift.binary
DETECTORS: dict[str, Callable[[], Any]] = {
    "adwin": lambda: drift.ADWIN(delta=0.01, clock=8),
    "page-hinkley": lambda: drift.PageHinkley(threshold=5, mode="up"),
    "page-hinkley both ways": lambda: drift.PageHinkley(threshold=5.0),
    "ddm": binary.DDM,
    "eddm": binary.EDDM,
    "hddm-a": lambda: binary.HDDMA(two_sided_test=True),
    "hddm-w": lambda: binary.HDDMW(two_sided_test=True),
}
MODELS: dict[str, Callable[[], Any]] = {
    "classifier": lambda: TPClassifier(seed=1),
    "two hidden layers, features as they are": lambda: TPClassifier(hidden=[16, 8], lr=0.5, standardize=False, seed=3),
    "regressor": lambda: TPRegressor(hidden=(16,), paces=(1.0, 0.1), seed=1),
    "linear": lambda: TPClassifier(hidden=(), seed=1),
    "momentum": lambda: TPClassifier(hidden=(8,), momentum=0.5, weight_decay=1e-4, seed=1),
}
MODELS |= {name: lambda made=made: TPClassifier(hidden=(8,), detector=made()) for name, made in DETECTORS.items()}
MODELS |= {policy: lambda policy=policy: TPClassifier(hidden=(16, 8), policy=policy, seed=2) for policy in POLICIES}
MODELS |= {
    f"{policy} regressor": lambda policy=policy: TPRegressor(
        hidden=(16,), policy=policy, detector=drift.PageHinkley(threshold=10.0)
    )
    for policy in POLICIES
}
SAVED, SAMPLES = 300, 600


def stream(samples: int = SAMPLES) -> Iterator[tuple[dict[Any, float], Any]]:
    """Features and classes that grow, of every type of name, some of them missing, and drifts."""
    rng = np.random.default_rng(0)
    centres = 2.0 * rng.normal(size=(8, 12))
    features: list[Any] = ["a", "b", 3, 2.5, True, "f", "g", "h", "i", "j", "k", "l"]
    labels: list[Any] = ["x", 1, 2.5, False, "", "é", -7, "last"]
    for i in range(samples):
        known = 1 + (i + 1) * 7 // samples
        label = int(rng.integers(known))
        x = centres[label] + rng.normal(size=12)
        there = [j for j in range(12) if j <= 4 + i * 8 // samples and rng.random() < 0.9]
        turned = label if not 250 <= i < 400 else known - 1 - label
        yield {features[j]: float(x[j]) for j in there}, labels[turned]


def go_on(model: Any, begin: int, end: int) -> list[Any]:
    """Predict and learn a part of the stream; return what was predicted, to the last bit."""
    predicted: list[Any] = []
    regressor = isinstance(model, TPRegressor)
    for number, (x, y) in enumerate(stream()):
        if begin <= number < end:
            if regressor:
                predicted.append(model.predict_one(x).hex())
                model.learn_one(x, float(sum(x.values()) * (1 if number < 250 else -3)))
            else:
                predicted.append([[repr(label), p.hex()] for label, p in model.predict_proba_one(x).items()])
                model.learn_one(x, y)
    return [*predicted, repr(model.drift)]


def can_be_saved(model: Any) -> bool:
    return all(isinstance(part, Part) for part in model._parts().values())


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """What each model predicts that was saved and went on in another process, and what it does if it stayed."""
    folder = tmp_path_factory.mktemp("models")
    stayed = {}
    for number, (name, make) in enumerate(MODELS.items()):
        model = make()
        if can_be_saved(model):
            go_on(model, 0, SAVED)
            model.save(folder / f"{number}.safetensors")
            stayed[name] = go_on(model, SAVED, SAMPLES)
    subprocess.run([sys.executable, __file__, str(folder)], check=True, timeout=300)
    went = {
        name: json.loads((folder / f"{number}.json").read_text())
        for number, name in enumerate(MODELS)
        if name in stayed
    }
    return {name: (went[name], stayed[name]) for name in stayed}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_goes_on_in_another_process_as_if_it_had_never_been_saved(
    name: str, elsewhere: dict[str, tuple[Any, Any]], tmp_path: Path
) -> None:
    model = MODELS[name]()
    if not can_be_saved(model):
        with pytest.raises(ModelError, match=r"cannot be saved: its .* is .*, which has no"):
            model.save(tmp_path / "model.safetensors")
        assert not any(tmp_path.iterdir())
        pytest.skip("something of it has no codec yet")
    went, stayed = elsewhere[name]
    assert went == stayed


def test_a_new_model_can_be_saved(tmp_path: Path) -> None:
    for model in (TPClassifier(seed=1), TPRegressor(seed=1)):
        model.save(tmp_path / "new.safetensors")
        assert go_on(load(tmp_path / "new.safetensors"), 0, 100) == go_on(model, 0, 100)


def test_a_copy_that_was_loaded_is_saved_as_the_same_file(tmp_path: Path) -> None:
    model = TPClassifier(seed=1)
    go_on(model, 0, 200)
    model.save(tmp_path / "one")
    TPClassifier.load(tmp_path / "one").save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("name", DETECTORS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), split=st.integers(0, 400), rate=st.floats(0.05, 0.5))
def test_a_detector_goes_on_exactly(name: str, seed: int, split: int, rate: float) -> None:
    errors = np.random.default_rng(seed).random(600) < np.where(np.arange(600) < 200, rate, 1.0 - rate)
    detector = DETECTORS[name]()
    for error in errors[:split]:
        detector.update(int(error))
    other = decode(json.loads(json.dumps(encode(detector), allow_nan=False)))
    for error in errors[split:]:
        detector.update(int(error))
        other.update(int(error))
        assert detector.drift_detected == other.drift_detected
        assert getattr(detector, "warning_detected", None) == getattr(other, "warning_detected", None)
    assert encode(detector) == encode(other)


def test_other_detectors_are_refused() -> None:
    class Mine(drift.ADWIN):  # type: ignore[misc]
        pass

    for detector in (drift.KSWIN(), drift.NoDrift(), binary.FHDDM(), Mine()):
        with pytest.raises(ModelError, match=f"{type(detector).__name__} cannot be saved: choose one of ADWIN"):
            encode(detector)


def test_adwin_of_another_version_of_river_is_refused_unless_it_may_start_anew() -> None:
    detector = drift.ADWIN(delta=0.5)
    detector.update(1.0)
    record = encode(detector) | {"river": "0.27.0"}
    with pytest.raises(DataError, match=r"saved by River 0\.27\.0.* not 0\.26.*restart_detectors"):
        decode(record)
    anew = decode(record, restart=True)
    assert (anew.delta, anew.width) == (0.5, 0)
    # The others' state is numbers with a meaning.
    record = encode(binary.DDM()) | {"river": "0.27.0"}
    assert decode(record).drift_detected is False


@pytest.mark.parametrize(
    ("made", "change"),
    [
        (drift.ADWIN, {"state": {"_drift_detected": False, "_helper": "00" * 40}}),
        (drift.ADWIN, {"state": {"_drift_detected": False, "_helper": "no hex"}}),
        (drift.ADWIN, {"state": {"_drift_detected": False}}),
        (drift.ADWIN, {"parameters": {"delta": "0.1"}}),
        (drift.ADWIN, {"parameters": {"clock": 7}}),  # the bytes are those of another
        (drift.ADWIN, {"parameters": {"speed": 7}}),
        (drift.PageHinkley, {"parameters": {"mode": "sideways"}}),
        (drift.PageHinkley, {"type": "PageHinkley2"}),
        (binary.DDM, {"parameters": None}),
        (binary.DDM, {"state": {"_drift_detected": 0}}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_detector_is_refused(made: Callable[[], Any], change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        decode(encode(made()) | change)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_bytes_that_are_no_window_of_adwin_are_refused_or_harmless(seed: int) -> None:
    rng = np.random.default_rng(seed)
    detector = drift.ADWIN()
    for value in rng.random(300):
        detector.update(value)
    record = encode(detector)
    state = bytearray.fromhex(record["state"]["_helper"])
    for place in rng.integers(len(state), size=3):
        state[place] = rng.integers(256)
    record["state"]["_helper"] = bytes(state[: rng.integers(len(state), len(state) + 1)]).hex()
    try:
        loaded = decode(record)
    except DataError:
        return
    for value in rng.random(100):
        loaded.update(value)


def tampered(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change what a file holds, and its hash too."""
    with safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        record = json.loads(file.metadata()[persistence.MODELS.key])
    del record["digest"]
    change(record, arrays)
    save_file(arrays, path, persistence.MODELS.described(record, arrays))


def _put(where: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(record: dict[str, Any], arrays: dict[str, Any]) -> None:
        *path, last = where.split(".")
        for name in path:
            record = record[name]
        record[last] = value

    return change


def _fill(name: str, value: float) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(record: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays[name].flat[0] = value

    return change


def _reshape(record: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["network/0.weight"] = arrays["network/0.weight"][:, 1:].copy()


def _single(record: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["network/0.weight"] = arrays["network/0.weight"].astype(np.float32)


def _one_feature_less(record: dict[str, Any], arrays: dict[str, Any]) -> None:
    record["parts"]["features"]["names"].pop()
    for kind in ("counts", "means", "variances"):
        arrays[f"features/{kind}"] = arrays[f"features/{kind}"][:-1].copy()


TAMPERED: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "later format": (_put("version", 99), "format 99.*install a later one"),
    "no version": (_put("version", "1"), "not of a model"),
    "unknown class": (_put("class", "Path"), "holds a Path"),
    "function for a class": (_put("class", "merge"), "holds a merge"),
    "unknown argument": (_put("arguments.depth", 3), "takes no arguments .*depth"),
    "argument of another type": (_put("arguments.lr", "fast"), "refuses the arguments"),
    "argument out of range": (_put("arguments.lr", -1.0), "lr must be greater than 0"),
    "argument that is a dict": (_put("arguments.lr", {"import": "os"}), "which nothing writes"),
    "unknown policy": (_put("arguments.policy", {"policy": "as_policy", "settings": {}}), "no policy as_policy"),
    "unknown detector": (_put("arguments.detector", {"detector": {"type": "os"}}), "none of those"),
    "enormous network": (_put("arguments.hidden", {"list": [10**9, 10**9]}), "too small"),
    "another network": (_put("arguments.hidden", {"list": [32]}), "'network|'0.bias' is .* not float64"),
    "hidden no numbers": (_put("arguments.hidden", {"list": ["a"]}), "not whole numbers"),
    "names twice": (_put("parts.features.names", ["a", "a"]), "feature is there twice"),
    "names that are one as keys": (_put("parts.features.names", [1, True]), "feature is there twice"),
    "names no list": (_put("parts.features.names", "ab"), "not a list"),
    "a name of a list": (_put("parts.features.names", [["a"], "b"]), "not a list of strings"),
    "labels twice": (_put("model.classes", ["x", "x"]), "label is there twice"),
    "negative counts of classes": (_put("model.class_counts", [-1] * 5), "samples of classes"),
    "too few counts of classes": (_put("model.class_counts", []), "samples of classes"),
    "a drift that is none": (_put("model.drift", {"sample": -1}), "no report"),
    "inputs": (_put("parts.network.inputs", -1), "'inputs' is -1"),
    "more inputs": (_put("parts.network.inputs", 99), "at least|whole number|is float64"),
    "enormous room": (_put("parts.network.width", 10**9), "room for"),
    "paces": (_put("parts.network.paces", [1.0]), "paces"),
    "paces of text": (_put("parts.network.paces", ["a", "b", "c"]), "paces"),
    "a part too few": (lambda record, arrays: record["parts"].pop("network"), "but such a model has"),
    "a part too many": (_put("parts.engine", {}), "but such a model has"),
    "a part that is none": (_put("parts.network", 3), "but such a model has"),
    "no parts": (_put("parts", []), "no parts"),
    "NaN in weights": (_fill("network/0.weight", np.nan), "'0.weight' holds numbers that are not finite"),
    "infinite mean": (_fill("features/means", np.inf), "not finite"),
    "negative count": (_fill("features/counts", -1.0), "counts of values"),
    "half a sample": (_fill("features/counts", 0.5), "counts of values"),
    "negative variance": (_fill("features/variances", -1.0), "variances above 0"),
    "negative mistakes": (_fill("network/mistakes", -1.0), "counted from 0"),
    "wrong shape": (_reshape, "'0.weight' is float64"),
    "wrong precision": (_single, "'0.weight' is float32"),
    "missing array": (lambda record, arrays: arrays.pop("network/0.bias"), "'0.bias' is missing"),
    "array too many": (lambda record, arrays: arrays.update({"network/x": np.zeros(1)}), "made of other arrays"),
    "array of nobody": (lambda record, arrays: arrays.update({"x": np.zeros(1)}), "belongs to nothing"),
    "parts that do not fit": (_one_feature_less, "not made for its features and classes"),
    "classes that do not fit": (_put("model.classes", []), "samples of classes|not made for"),
}


@pytest.fixture(scope="module")
def model() -> TPClassifier:
    model = TPClassifier(seed=1)
    go_on(model, 0, 200)
    return model


@pytest.mark.parametrize("name", TAMPERED)
def test_what_no_model_can_have_is_refused(name: str, model: TPClassifier, tmp_path: Path) -> None:
    change, message = TAMPERED[name]
    model.save(tmp_path / "model.safetensors")
    tampered(tmp_path / "model.safetensors", change)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "model.safetensors")
    assert str(tmp_path / "model.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_and_foreign_files_are_refused(model: TPClassifier, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="cannot be read as a safetensors file"):
            load(path)
    for place in range(200, len(whole), len(whole) // 50):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError):
            load(path)
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(DataError, match="holds no model"):
        load(path)
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path)


def test_loading_and_saving_never_unpickle(
    model: TPClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("unpickled")

    model = TPClassifier(detector=drift.ADWIN()) if can_be_saved(TPClassifier(detector=drift.ADWIN())) else model
    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    model.save(tmp_path / "model")
    load(tmp_path / "model")


def test_what_cannot_be_saved_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model"
    tuples, infinite = TPClassifier(), TPClassifier()
    tuples.learn_one({("a", 1): 1.0}, True)
    infinite.learn_one({"a": 1.0}, float("inf"))
    for model, message in ((tuples, r"feature \('a', 1\) cannot be saved"), (infinite, "label inf cannot be saved")):
        with pytest.raises(ModelError, match=message):
            model.save(path)

    class Mine(TPClassifier):
        pass

    with pytest.raises(ModelError, match=r"Mine cannot be saved: only the classes of fedtp\.streaming"):
        Mine().save(path)
    odd = TPClassifier()
    odd.notes = {"anything": 1}  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="nothing says how 'notes' is"):
        odd.save(path)
    assert not any(tmp_path.iterdir())


def test_numpy_labels_are_read_as_the_values_they_are(tmp_path: Path) -> None:
    model = TPClassifier()
    for i in range(20):
        model.learn_one({np.str_("a"): i % 2}, np.int64(i % 2))
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert [type(label) for label in loaded.classes] == [int, int]
    loaded.learn_one({"a": 1}, np.int64(1))
    assert loaded.classes == [0, 1]


def test_a_file_is_written_as_a_whole(model: TPClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    model.save(path)
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(DataError, match=r"cannot write .*disk full"):
            TPClassifier(seed=5).save(path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]
    TPClassifier(seed=5).save(path)  # an earlier save may be replaced
    assert load(path).seed == 5


def test_no_other_file_is_replaced(model: TPClassifier, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    save_file({"weight": np.zeros(3)}, tmp_path / "weights")
    for name in ("notes.txt", "weights"):
        with pytest.raises(DataError, match="is there already and not a saved model"):
            model.save(tmp_path / name)
    for path in (tmp_path, tmp_path / "none" / "model", tmp_path / "notes.txt" / "model"):
        with pytest.raises(DataError):
            model.save(path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_class_is_the_file_s(model: TPClassifier, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    assert type(TPClassifier.load(tmp_path / "model")) is TPClassifier
    with pytest.raises(DataError, match="holds a TPClassifier, not a TPRegressor"):
        TPRegressor.load(tmp_path / "model")


def build(inputs: int, outputs: int) -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(inputs, 6), nn.ReLU(), nn.Linear(6, outputs))


def test_functions_are_given_again(tmp_path: Path, model: TPClassifier) -> None:
    made = TPClassifier(hidden=build, seed=1)
    if not can_be_saved(made):
        pytest.skip("networks of PyTorch have no codec yet")
    go_on(made, 0, 100)
    made.save(tmp_path / "model")
    with pytest.raises(DataError, match=r"hidden was a function, build, .*load\(\.\.\., hidden="):
        load(tmp_path / "model")
    assert go_on(TPClassifier.load(tmp_path / "model", hidden=build), 100, 150) == go_on(made, 100, 150)
    model.save(tmp_path / "plain")
    with pytest.raises(DataError, match="hidden was no function"):
        load(tmp_path / "plain", hidden=build)


if __name__ == "__main__":  # in another process
    for file in Path(sys.argv[1]).glob("*.safetensors"):
        file.with_suffix(".json").write_text(json.dumps(go_on(load(file), SAVED, SAMPLES)))
