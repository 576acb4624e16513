"""Sweeps that really run: what they find, and that nothing stops them for good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from fedtp.errors import FedtpError
from fedtp.report.comparison.figures import FIGURES
from simulations import Scenario, simulate
from simulations.sweeps.folder import sweep_folder
from simulations.sweeps.plan import Plan
from simulations.sweeps.sweep import Sweep, run_sweep
from simulations.sweeps.workers import Begun, Event, Failed, Finished

pytestmark = pytest.mark.slow

VARY = ["learner.lr=0.1,1"]
COMMAND = "from fedtp.cli import main; main()"


@pytest.fixture(scope="session")
def done(sea: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return run_sweep(Plan.make(sea, VARY, seeds=2), tmp_path_factory.mktemp("sweeps") / "sea", jobs=2)


def written(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in (folder / "runs").rglob("summary.json")}


def test_every_run_is_the_one_that_simulate_makes(done: Sweep, sea: Path) -> None:
    assert len(written(done.folder)) == 4
    for lr in ("0.1", "1"):
        for seed in (1, 2):
            (folder,) = (done.folder / "runs").glob(f"*-lr-{lr}-seed-{seed}")
            summary = json.loads((folder / "summary.json").read_text())
            expected = simulate(Scenario.load(sea, [f"learner.lr={lr}"], seed)).summary
            assert {**summary, "wall_seconds": 0} == {**expected, "wall_seconds": 0}


def test_the_folder_holds_tables_summary_and_report(done: Sweep) -> None:
    names = {path.name for path in done.folder.iterdir()}
    assert names == {"runs", "sweep.json", "sweep.csv", "sweep.parquet", "summary.json", "report.html"}
    assert json.loads((done.folder / "summary.json").read_text()) == done.summary
    table = pl.read_csv(done.folder / "sweep.csv")
    assert table["group"].to_list() == ["lr=0.1", "lr=0.1", "lr=1", "lr=1"]
    assert table["seed"].to_list() == [1, 2, 1, 2]
    assert table["wall_seconds"].min() > 0
    assert set(done.summary["settings"]) == {"lr=0.1", "lr=1"}
    accuracy = done.summary["settings"]["lr=1"]["prequential_accuracy"]
    of = table.filter(group="lr=1")["prequential_accuracy"]
    assert accuracy["mean"] == pytest.approx(of.mean())
    assert accuracy["difference"]["mean"] == pytest.approx(
        (of - table.filter(group="lr=0.1")["prequential_accuracy"]).mean()
    )
    assert {figure.key for figure in FIGURES} <= set(table.columns)


def test_the_same_sweep_has_nothing_left_to_do(done: Sweep, sea: Path) -> None:
    before, events = written(done.folder), list[Event]()
    again = run_sweep(Plan.make(sea, VARY, seeds=2), done.folder, jobs=2, on_event=events.append)
    assert not events
    assert written(done.folder) == before
    assert again.summary == done.summary


@pytest.mark.parametrize(
    ("vary", "seeds", "message"),
    [
        (VARY, 3, "where seeds is [1, 2] instead of [1, 2, 3]: choose another folder with --out"),
        (["learner.lr=0.1,2"], 2, 'where vary."learner.lr" is ["0.1", "1"] instead of ["0.1", "2"]'),
        (["learner.momentum=0,0.5"], 2, 'where vary."learner.lr" is ["0.1", "1"] instead of nothing'),
    ],
)
def test_another_sweep_is_refused(done: Sweep, sea: Path, vary: list[str], seeds: int, message: str) -> None:
    before = written(done.folder)
    with pytest.raises(FedtpError) as refused:
        run_sweep(Plan.make(sea, vary, seeds=seeds), done.folder)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert written(done.folder) == before


def test_a_folder_with_something_else_is_left_alone(sea: Path, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(FedtpError, match="it holds something that is not a sweep"):
            run_sweep(Plan.make(sea), tmp_path, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_two_sweeps_cannot_write_one_folder(sea: Path, tmp_path: Path) -> None:
    plan = Plan.make(sea)
    with sweep_folder(tmp_path / "sweep", plan), pytest.raises(FedtpError, match="by another sweep right now"):  # noqa: SIM117
        with sweep_folder(tmp_path / "sweep", plan, force=True):
            pass


def test_a_run_that_fails_is_named_and_the_others_go_on(sea: Path, tmp_path: Path) -> None:
    """The data set is there when the sweep begins for one of two settings only."""
    vary = [f"data={{name='sea',samples=2000}},{{name='mnist',path='{tmp_path}/nowhere'}}"]
    events: list[Event] = []
    sweep = run_sweep(Plan.make(sea, vary), tmp_path / "sweep", on_event=events.append)
    (name,) = sweep.failed
    assert name.startswith("2-")
    assert "nowhere" in sweep.failed[name]
    assert [type(event) for event in events if isinstance(event, Finished | Failed)] == [Finished, Failed]
    assert len(written(sweep.folder)) == 1
    assert name in (sweep.folder / "failures.txt").read_text()
    assert sweep.summary["failed"] == sweep.failed
    assert name in (sweep.folder / "report.html").read_text()


def test_a_worker_that_is_killed_takes_one_run_with_it(sea: Path, tmp_path: Path) -> None:
    plan = Plan.make(sea, seeds=2)
    killed: list[str] = []

    def kill(event: Event) -> None:
        if isinstance(event, Begun) and not killed:
            killed.append(event.trial.name)
            deadline = time.monotonic() + 20
            while not (workers := _children(os.getpid())) and time.monotonic() < deadline:
                time.sleep(0.02)  # it may have been forked, and not yet have become itself
            (worker,) = workers
            os.kill(worker, signal.SIGKILL)

    sweep = run_sweep(plan, tmp_path / "sweep", on_event=kill)
    assert sweep.failed == {killed[0]: "its process ended by signal 9 (Killed)"}
    assert len(written(sweep.folder)) == 1
    whole = run_sweep(plan, tmp_path / "sweep")
    assert not whole.failed
    assert len(written(sweep.folder)) == 2


def _children(process: int) -> list[int]:
    """The processes of workers; one more keeps account of what they share."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (path / "status").read_text(), (path / "cmdline").read_text()
        except OSError:
            continue
        if f"\nPPid:\t{process}\n" in status and "spawn_main" in command:
            found.append(int(path.name))
    return found


def _start(folder: Path, sea: Path, *more: str) -> subprocess.Popen[str]:
    arguments = ["sweep", str(sea), "--vary", VARY[0], "--seeds", "2", "--out", str(folder), *more]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "120"},
    )


def _wait_for_a_run(folder: Path, process: subprocess.Popen[str]) -> None:
    while not list((folder / "runs").glob("[0-9]*/report.html")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def _wait_for_end_of(workers: list[int]) -> None:
    end = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end, "workers live on"
        time.sleep(0.05)


def test_kill_9_and_the_same_command_again(done: Sweep, sea: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    process = _start(folder, sea)
    _wait_for_a_run(folder, process)
    workers = _children(process.pid)
    process.kill()
    process.wait()
    _wait_for_end_of(workers)
    (folder / "runs" / ".half.1234.new").mkdir()  # as if killed while a run was written
    kept = written(folder)
    assert 1 <= len(kept) < 4
    again = _start(folder, sea, "--jobs", "2")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    now = written(folder)
    assert {name: now[name] for name in kept} == kept
    assert len(now) == 4
    assert not list((folder / "runs").glob(".*"))
    assert json.loads((folder / "summary.json").read_text()) == done.summary


def test_ctrl_c_ends_the_workers_and_says_how_to_go_on(sea: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    process = _start(folder, sea)
    _wait_for_a_run(folder, process)
    workers = _children(process.pid)
    assert workers
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate()
    assert process.returncode == 130
    assert "of 4 runs are finished; the same command goes on" in errors
    assert "Traceback" not in errors
    assert out == ""
    _wait_for_end_of(workers)
    assert not list((folder / "runs").glob(".*"))
