"""A run that breaks off between any two rounds goes on from its folder, and ends like one that did not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from fedtp.errors import DataError, FedtpError
from simulations import Run, Scenario, simulate
from simulations.checkpoint import Checkpoint
from simulations.checkpoints import INTERVAL_SECONDS, Checkpoints
from simulations.results import CHECKPOINT, RUNS
from simulations.run_folder import RunFolder, scenario_of

DRIFT = """
[[drift]]
kind = "sudden"
concept = "turned"
at_seconds = 120
"""
ROUNDS = 6
BUFFERED = ("server.mode=buffered", "server.interval_seconds=20", "server.buffer_size=3")
LATE = ("arrival.label_delay_seconds=80", "arrival.label_delay=exponential", "arrival.buffer=15")
ADAPTING = ("adaptation.policy=window-retrain", "learner.detector=hddm-w", "learner.lr=0.3", "arrival.rate=2")
SCENARIOS = {
    "synchronous": ("learner.momentum=0.9",),
    "late labels": (*LATE, "learner.momentum=0.5"),
    "adapting": (*ADAPTING, "arrival.label_delay_seconds=20"),
    "own readouts": (*ADAPTING, "learner.readout=learnt", "adaptation.policy=keep-own"),
    "buffered": (*BUFFERED, *ADAPTING, "learner.momentum=0.9"),
    "gateways": (*BUFFERED, *LATE, "run.devices_per_node=2"),
    "bursts": ("arrival.kind=bursts", "partition.kind=dirichlet", "partition.quantity_sigma=1", "server.fraction=0.6"),
    "ddm": ("learner.detector=ddm", "learner.lr=0.3", "arrival.rate=2", "learner.method=backprop"),
}


class BreakOffError(Exception):
    """A run breaks off."""


@pytest.fixture(scope="module")
def make(small) -> Callable[..., Scenario]:
    def make(name: str, *settings: str) -> Scenario:
        common = (f"server.rounds={ROUNDS}", "run.checkpoint_rounds=1", "devices.0.loss_probability=0.2")
        return small(*common, *SCENARIOS[name], *settings, toml=DRIFT)

    return make


@pytest.fixture(scope="module")
def unbroken(make) -> Callable[[str], Run]:
    return cache(lambda name: simulate(make(name)))


def break_off(scenario: Scenario, folder: Path, after: int, checkpoints: Checkpoints | None = None) -> Path:
    def on_round(progress) -> None:
        if progress.round >= after:
            raise BreakOffError

    with pytest.raises(BreakOffError):
        simulate(scenario, on_round, checkpoints=checkpoints or Checkpoints(folder))
    return folder


def latest(folder: Path) -> Checkpoints:
    return Checkpoints(folder, latest=Checkpoint.load(folder, scenario_of(folder)))


def resumed(folder: Path) -> Run:
    return simulate(scenario_of(folder), checkpoints=latest(folder))


def assert_same(found: Run, expected: Run) -> None:
    assert {**found.summary, "wall_seconds": 0} == {**expected.summary, "wall_seconds": 0}
    for name in ("rounds", "devices", "events"):
        assert_frame_equal(getattr(found, name), getattr(expected, name))
    for name, packed in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], packed)


@pytest.mark.parametrize("number", [1, 4, ROUNDS])
@pytest.mark.parametrize("name", SCENARIOS)
def test_it_ends_like_one_that_did_not_break_off(make, unbroken, name: str, number: int, tmp_path: Path) -> None:
    folder = break_off(make(name), tmp_path / "run", number)
    assert sorted(path.name for path in folder.iterdir()) == [CHECKPOINT, "scenario.toml"]
    run = resumed(folder)
    assert_same(run, unbroken(name))
    run.save(folder)
    assert not (folder / CHECKPOINT).exists()
    assert_same(Run.load(folder), unbroken(name))


def test_the_scenarios_of_these_tests_do_what_they_are_meant_to(unbroken) -> None:
    """Else they would prove nothing."""
    for name in ("adapting", "own readouts", "buffered", "ddm"):
        assert unbroken(name).rounds["detections"][:4].sum(), name
    assert unbroken("late labels").summary["samples_dropped"]
    assert unbroken("synchronous").summary["updates_lost"]


def test_it_may_break_off_again_and_again(make, unbroken, tmp_path: Path) -> None:
    folder = break_off(make("buffered"), tmp_path / "run", 2)
    for number in (3, 5):
        break_off(make("buffered"), folder, number, latest(folder))
    run = resumed(folder)
    assert_same(run, unbroken("buffered"))
    assert run.summary["wall_seconds"] > 0


def test_the_time_before_is_counted(make, tmp_path: Path) -> None:
    folder = break_off(make("synchronous"), tmp_path / "run", ROUNDS)
    found = Checkpoint.load(folder, scenario_of(folder))
    found.states["watch"].record["seconds"] = 1000.0
    run = simulate(found.scenario, checkpoints=Checkpoints(folder, latest=found))
    assert 1000 < run.summary["wall_seconds"] < 1200


def test_nothing_is_saved_before_it_is_due(small, make, tmp_path: Path) -> None:
    with pytest.raises(BreakOffError):
        simulate(small(), lambda _: (_ for _ in ()).throw(BreakOffError), checkpoints=Checkpoints(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    break_off(make("ddm", "run.checkpoint_rounds=3"), tmp_path / "run", 2 * 2)
    assert Checkpoint.load(tmp_path / "run", scenario_of(tmp_path / "run")).round == 3


def test_by_the_clock_it_is_due_seldom(monkeypatch: pytest.MonkeyPatch, make, tmp_path: Path) -> None:
    now = [0.0]
    monkeypatch.setattr("simulations.checkpoints.time.perf_counter", lambda: now[0])
    checkpoints = Checkpoints(tmp_path / "run")
    assert not checkpoints.due(1, 0)
    assert [checkpoints.due(number, 3) for number in (2, 3)] == [False, True]
    now[0] = INTERVAL_SECONDS
    assert checkpoints.due(2, 0)

    def take() -> Checkpoint:
        now[0] += 7
        return Checkpoint(make("ddm"), 2, {})

    checkpoints.save(take)
    now[0] += 7 * 20 - 1
    assert not checkpoints.due(3, 0)
    now[0] += 1
    assert checkpoints.due(3, 0)


def test_an_unfinished_run_is_no_run_yet_and_not_replaced_unless_by_force(make, unbroken, tmp_path: Path) -> None:
    folder = break_off(make("ddm"), tmp_path / "run", 2)
    assert RUNS.unfinished(folder)
    with pytest.raises(DataError, match=rf"{folder}: this run is not finished: .*fedtp simulate --resume {folder}"):
        RunFolder(folder)
    with pytest.raises(FedtpError, match=r"run that is not finished: .*--resume .*, or replace it with --force"):
        simulate(make("ddm", "run.seed=2"), checkpoints=Checkpoints(folder))
    assert Checkpoint.load(folder, make("ddm")).round == 2
    break_off(make("ddm", "run.seed=2"), folder, 1, Checkpoints(folder, force=True))
    assert scenario_of(folder).run.seed == 2
    with pytest.raises(FedtpError, match="holds a run that is not finished"):
        unbroken("ddm").save(folder)  # another run's
    unbroken("ddm").save(folder, force=True)
    assert scenario_of(folder).run.seed == 1
    with pytest.raises(FedtpError, match="holds a run already"):
        simulate(make("ddm"), checkpoints=Checkpoints(folder))


def test_what_cannot_be_gone_on_with_is_begun_anew_where_that_is_wanted(make, tmp_path: Path) -> None:
    folder, scenario = break_off(make("ddm"), tmp_path / "run", 2), make("ddm")
    found = Checkpoints.of(scenario, folder).latest
    assert found is not None
    assert found.round == 2
    assert Checkpoints.of(make("ddm", "run.seed=2"), folder).latest is None
    assert Checkpoints.of(scenario, tmp_path / "none").latest is None
    (folder / CHECKPOINT).write_bytes(b"no")
    assert Checkpoints.of(scenario, folder).latest is None


@pytest.mark.parametrize("name", ["server", "grid", "devices", "recorder", "watch"])
def test_all_parts_must_be_there(make, name: str, tmp_path: Path) -> None:
    folder = break_off(make("ddm"), tmp_path / "run", 2)
    found = Checkpoint.load(folder, scenario_of(folder))
    states = {key: state for key, state in found.states.items() if key != name}
    with pytest.raises(DataError, match=f"of another version: {name} is not in both"):
        simulate(found.scenario, checkpoints=Checkpoints(folder, latest=Checkpoint(found.scenario, 2, states)))


def test_completing_can_be_begun_again(make, unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = break_off(make("ddm"), tmp_path / "run", ROUNDS)
    shutil.copytree(folder, tmp_path / "kept")
    (folder / f".{CHECKPOINT}.12ab.new").write_text("half")  # of a process that was killed
    (folder / ".rest.34cd.new").mkdir()
    real, moved = Path.replace, []

    def replace(path: Path, target: Path) -> Path:
        if target.name == "summary.json":
            raise OSError(28, "No space left on device")
        moved.append(target.name)
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(FedtpError, match="No space left on device"):
            unbroken("ddm").save(folder)
    assert "rounds.parquet" in moved
    assert RUNS.unfinished(folder)
    assert_same(resumed(folder), unbroken("ddm"))
    unbroken("ddm").save(folder)
    whole = unbroken("ddm").save(tmp_path / "whole").parent
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert json.loads((folder / "summary.json").read_text())["rounds"] == ROUNDS
