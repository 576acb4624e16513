from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from fedtp.errors import FedtpError
from simulations import Run, Scenario, simulate
from simulations.world import World

FILES = {
    "scenario.toml",
    "rounds.parquet",
    "devices.parquet",
    "events.parquet",
    "summary.json",
    "model.safetensors",
    "report.html",
}
DRIFT = """
[[drift]]
kind = "sudden"
concept = "turned"
at_seconds = 120
fraction = 0.4
"""


@pytest.fixture(scope="module")
def run(small) -> Run:
    return simulate(small("learner.hidden=[20, 12]", "learner.lr=0.3", "server.rounds=6", toml=DRIFT))


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.save(tmp_path_factory.mktemp("runs") / "a" / "run").parent


def test_a_runs_folder_holds_all_of_it(run: Run, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    assert all(path.stat().st_size for path in folder.iterdir())
    for frame in ("rounds", "devices", "events"):
        assert_frame_equal(pl.read_parquet(folder / f"{frame}.parquet"), getattr(run, frame))
    assert json.loads((folder / "summary.json").read_text()) == run.summary
    assert run.scenario.title in (folder / "report.html").read_text()


def test_its_scenario_can_be_run_again(run: Run, folder: Path) -> None:
    again = Scenario.load(folder / "scenario.toml")
    assert again == run.scenario
    other = simulate(again)
    assert {**other.summary, "wall_seconds": 0} == {**run.summary, "wall_seconds": 0}


def test_its_model_is_an_ordinary_one(run: Run, folder: Path) -> None:
    """A plain network, loaded from the file, is as accurate as the summary says."""
    model = nn.Sequential(nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 12), nn.Tanh(), nn.Linear(12, 10))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    world = World(run.scenario)
    right = []
    for name, share in (("initial", 0.6), ("turned", 0.4)):
        data = world.concepts[name]
        with torch.no_grad():
            predicted = model(torch.tensor(data.x[world.held_out])).argmax(1).numpy()
        right.append(share * np.mean(predicted == data.y[world.held_out]))
    assert sum(right) == pytest.approx(run.summary["final_accuracy"])
    assert sum(right) > 0.3


def test_its_model_says_where_its_projections_come_from(run: Run, folder: Path) -> None:
    with safe_open(folder / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["digest"] == run.learner.digest
    assert metadata["seed"] == "1"
    assert json.loads(metadata["learner"])["hidden"] == [20, 12]


def test_a_state_dict_is_a_copy(run: Run) -> None:
    before = {name: packed.copy() for name, packed in run.weights.items()}
    first = run.state_dict()
    for tensor in first.values():
        tensor.zero_()
    assert any(tensor.any() for tensor in run.state_dict().values())
    for name, packed in run.weights.items():
        np.testing.assert_array_equal(packed, before[name])
    assert list(first) == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]


def test_a_run_does_not_replace_another_unless_it_is_told_to(run: Run, folder: Path) -> None:
    before = (folder / "summary.json").stat().st_mtime_ns
    with pytest.raises(FedtpError, match="holds a run already"):
        run.save(folder)
    assert (folder / "summary.json").stat().st_mtime_ns == before
    assert run.save(folder, force=True) == folder / "report.html"
    assert {path.name for path in folder.iterdir()} == FILES


def test_a_run_that_cannot_be_written_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simulations.run.save_model", fail)
    with pytest.raises(FedtpError, match="No space left"):
        run.save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
