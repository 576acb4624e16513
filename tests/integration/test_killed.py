"""`kill -9` at any moment: `fedtp simulate --resume` ends with what an unbroken run ends with."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from simulations import Run, Scenario, simulate
from simulations.results import CHECKPOINT, RUNS

pytestmark = pytest.mark.slow

ROUNDS = 8
SCENARIO = f"""
name = "sea"
title = "Five that may be killed"

[run]
checkpoint_rounds = 1

[data]
name = "sea"
samples = 6000

[arrival]
rate = 2.0
label_delay_seconds = 30

[concepts.turned]
kind = "label-swap"
swaps = [[0, 1]]

[[drift]]
kind = "sudden"
concept = "turned"
at_seconds = 100

[learner]
hidden = [8]
lr = 0.3
momentum = 0.5
batch_size = 5
detector = "adwin"

[adaptation]
policy = "window-retrain"
samples = 1000

[server]
rounds = {ROUNDS}
deadline_seconds = 40

[[devices]]
class = "pi"
count = 3

[[devices]]
class = "mcu"
count = 2
up_mbps = 0.00008
plan = "whole"
loss_probability = 0.2
"""
#: So that an order is often on its way between two rounds.
BUFFERED = ["server.mode=buffered", "server.interval_seconds=20", "server.buffer_size=2", "run.processes=2"]
FEDTP = "from fedtp.cli import main; main()"
#: Kills itself at the nth call of a function.
KILLED = """
import importlib, os, signal, sys
module, name, function, when, number = sys.argv[1:6]
del sys.argv[1:6]
from simulations import checkpoint, recorder, simulation
owner = importlib.import_module(module)
owner = getattr(owner, name) if name else owner
real, calls = getattr(owner, function), 0

def killed(*arguments, **named):
    global calls
    calls += 1
    if calls == int(number) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **named)
    if calls == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, function, killed)
"""
#: While it computes a round, writes a checkpoint, has written it, puts it in place; completes the folder.
MOMENTS = {
    "in a round": ("simulations.recorder", "Recorder", "round", "before", 4),
    "as a round ends": ("simulations.recorder", "Recorder", "round", "after", 5),
    "while the first checkpoint is written": ("pathlib", "Path", "replace", "before", 1),
    "while one is written": ("os", "", "fsync", "before", 5),
    "when one has been written": ("pathlib", "Path", "replace", "before", 4),
    "when one is in its place": ("pathlib", "Path", "replace", "after", 5),
    "after the last round": ("simulations.world", "World", "held_out_accuracy", "before", 1),
    "while the folder is completed": ("pathlib", "Path", "replace", "before", ROUNDS + 4),
    "when the summary is in its place": ("pathlib", "Path", "unlink", "before", ROUNDS + 1),
}


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "sea.toml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture(scope="session")
def unbroken(file: Path) -> Callable[..., Run]:
    @cache
    def run(*settings: str) -> Run:
        return simulate(Scenario.load(file, settings))

    return run


#: Has imported what every run does, so that each of many begins at once.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["simulations.simulation", "simulations.cli", "simulations.checkpoints", "river.datasets"]
)
RUN = """
import os, sys
for number, path in ((1, {out!r}), (2, {errors!r})):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.argv = {argv!r}
exec({code!r}, {{"__name__": "run"}})
"""


def fedtp(folder: Path, *arguments: str | Path, moment: str = "") -> str:
    """Run the command to its end, or until it kills itself; return what it printed."""
    kill = [str(part) for part in MOMENTS[moment]] if moment else []
    process = begun(folder, [*kill, *arguments], KILLED if moment else "")
    process.join()
    assert process.exitcode == (-signal.SIGKILL if moment else 0), (folder / "stderr").read_text()
    return (folder / "stdout").read_text()


def begun(folder: Path, arguments: Sequence[str | Path], first: str = "") -> Any:
    """Begin the command in a process of its own, after some other code; what it prints goes to files in a folder."""
    out, errors = str(folder / "stdout"), str(folder / "stderr")
    argv = ["-c", *map(str, arguments)]
    process = SERVER.Process(target=exec, args=(RUN.format(out=out, errors=errors, argv=argv, code=first + FEDTP),))
    process.start()
    return process


def begin(file: Path, folder: Path, settings: list[str], moment: str) -> None:
    fedtp(
        folder.parent,
        "simulate",
        file,
        "--out",
        folder,
        *(part for one in settings for part in ("--set", one)),
        moment=moment,
    )


def assert_same(folder: Path, expected: Run) -> None:
    found = Run.load(folder)
    assert {**found.summary, "wall_seconds": 0} == {**expected.summary, "wall_seconds": 0}
    for name in ("rounds", "devices", "events"):
        assert_frame_equal(getattr(found, name), getattr(expected, name))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_scenario_of_these_tests_does_what_it_is_meant_to(unbroken) -> None:
    for settings in ([], BUFFERED):
        run = unbroken(*settings)
        assert run.rounds["detections"][:4].sum()
        assert run.summary["label_delay_seconds"]
        assert run.summary["updates_lost"]
    assert unbroken().rounds["late"].sum()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_a_run_goes_on(file: Path, unbroken, moment: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    begin(file, folder, [], moment)
    if "first" in moment:
        assert not folder.exists()
        begun = ["simulate", file, "--out", folder]
    else:
        assert RUNS.unfinished(folder) == ("summary" not in moment)
        begun = ["simulate", "--resume", folder]
    assert fedtp(tmp_path, *begun)
    assert_same(folder, unbroken())


def test_in_processes_too_and_killed_twice(file: Path, unbroken, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    begin(file, folder, BUFFERED, "in a round")
    fedtp(tmp_path, "simulate", "--resume", folder, moment="when one has been written")
    assert RUNS.unfinished(folder)
    summary = json.loads(fedtp(tmp_path, "simulate", "--resume", folder, "--json"))
    assert summary == json.loads((folder / "summary.json").read_text())
    assert_same(folder, unbroken(*BUFFERED))


def test_killed_by_another_again_and_again(file: Path, unbroken, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments: list[str | Path] = ["simulate", file, "--out", folder]
    kills = 0
    while not (folder / "summary.json").exists() and kills < 30:
        before = (folder / CHECKPOINT).stat().st_mtime_ns if folder.exists() else 0
        process = begun(tmp_path, arguments)
        while process.is_alive():
            path = folder / CHECKPOINT
            if path.exists() and path.stat().st_mtime_ns > before:
                time.sleep(0.02 * kills % 0.07)
                process.kill()
                process.join()
                kills += 1
            time.sleep(0.005)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), (tmp_path / "stderr").read_text()
        arguments = ["simulate", "--resume", folder]
    assert kills >= 2
    assert_same(folder, unbroken())
