"""A run that was saved is read back as it was, or refused with a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from fedtp.errors import DataError
from simulations import Run, simulate
from simulations.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(small) -> Run:
    return simulate(small("server.rounds=2"))


@pytest.fixture(scope="module")
def saved(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.save(tmp_path_factory.mktemp("runs") / "run").parent


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "copy")


def test_it_is_what_was_saved(run: Run, saved: Path) -> None:
    loaded = Run.load(saved)
    assert loaded.scenario == run.scenario
    assert loaded.summary == run.summary
    for name in ("rounds", "devices", "events"):
        assert_frame_equal(getattr(loaded, name), getattr(run, name))
    assert loaded.weights.keys() == run.weights.keys()
    for name, packed in run.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], packed)
    assert loaded.learner.digest == run.learner.digest
    assert loaded.report() == run.report()


def test_a_convolutional_one_is_read_too(small, tmp_path: Path) -> None:
    run = simulate(small("server.rounds=1", "learner.network=cnn", "learner.channels=[4]", "learner.readout=shared"))
    assert Run.load(run.save(tmp_path / "run").parent).learner.digest == run.learner.digest


def test_it_can_be_saved_again(saved: Path, tmp_path: Path) -> None:
    again = Run.load(saved).save(tmp_path / "again").parent
    assert RunFolder(again).model()[1] == RunFolder(saved).model()[1]
    for path in saved.iterdir():
        if path.suffix != ".safetensors":  # whose header has its entries in any order
            assert (again / path.name).read_bytes() == path.read_bytes()


def _summary(folder: Path, **changes: object) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _model(folder: Path, change: Callable[[dict], None], **metadata: str) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    _, told = RunFolder(folder).model()
    change(tensors)
    save_file(tensors, path, metadata={**told, **metadata})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "there is no such folder"),
        (lambda f: (shutil.rmtree(f), f.write_text("")), "this is a file, and a run is a folder"),
        (lambda f: (f / "summary.json").unlink(), "holds no run, for there is no summary.json in it"),
        (lambda f: (f / "scenario.toml").write_text("title = 3"), "title is 3, but must be text"),
        (lambda f: (f / "summary.json").write_text('{"rounds": '), "summary.json is damaged: Expecting value"),
        (lambda f: (f / "summary.json").write_text("[]"), "it holds no figures by name"),
        (lambda f: _summary(f, seed=5), "seed is 1 in scenario.toml and 5 in summary.json"),
        (lambda f: _summary(f, rounds=7), "it has 2 rounds, not 7"),
        (lambda f: (f / "rounds.parquet").write_bytes(b"PAR1"), "rounds.parquet is damaged"),
        (lambda f: (f / "devices.parquet").unlink(), "devices.parquet is damaged"),
        (lambda f: pl.DataFrame({"a": [1]}).write_parquet(f / "events.parquet"), "events lacks device"),
        (lambda f: (f / "model.safetensors").write_bytes(b"{}"), "model.safetensors is damaged"),
        (lambda f: _model(f, lambda t: t.pop("0.bias")), "model.safetensors is damaged"),
        (lambda f: _model(f, lambda t: None, digest="0"), "is not the model of the scenario beside it"),
        (lambda f: _model(f, lambda t: None, classes="many"), "does not say of what shape samples are"),
    ],
)
def test_what_is_damaged_is_refused(folder: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(folder)
    with pytest.raises(DataError) as refused:
        Run.load(folder)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "copy" in str(refused.value)
