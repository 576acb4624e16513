"""A real federation on this machine: a SuperLink and SuperNodes as processes, TLS, keys, and whatever may happen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtp.federation import FOLDER_VARIABLE, free_port
from server.federation.folder import ServerFolder
from simulations import Run, Scenario, simulate
from simulations.federation.local import learn, make_local

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "federation.md"
TWO = ["devices.0.count=2"]


def processes_of(folder: Path) -> dict[str, list[int]]:
    """Return the Flower processes that work in a folder, by their names."""
    found: dict[str, list[int]] = {}
    mark = f"{FOLDER_VARIABLE}={folder}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdecimal() or mark not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        name = next((Path(word).name for word in words if re.search("flower-|flwr-|server.federation.link", word)), "")
        found.setdefault(name, []).append(int(entry.name))
    return found


def kill(folder: Path, name: str) -> bool:
    """Kill the processes of a name that work in a folder, if there are any."""
    there = processes_of(folder).get(name, [])
    for pid in there:
        os.kill(pid, signal.SIGKILL)
    return bool(there)


def assert_same_weights(one: Run, other: Run) -> None:
    for name, weights in other.weights.items():
        np.testing.assert_allclose(one.weights[name], weights, rtol=1e-4, atol=1e-6)


def test_up_learns_what_a_simulation_learns_and_leaves_nothing_running(tmp_path: Path) -> None:
    # Rounds so long that everyone answers in time on a machine that is busy with other tests.
    settings = [*TWO, "server.rounds=3", "server.round_seconds=30", "drift.0.at_seconds=30"]
    folder = tmp_path / "fed"
    given = [part for setting in settings[1:] for part in ("--set", setting)]
    code = "from fedtp.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "federation", "up", "--dir", str(folder), "--devices", "2", *given],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + _logs(folder)
    assert not processes_of(folder)
    assert not any(processes_of(own) for own in (folder / "devices").iterdir())
    run, simulated = Run.load(folder / "run"), simulate(Scenario.load("loopback", settings))
    assert_same_weights(run, simulated)
    for key in ("rounds", "samples", "prequential_accuracy", "final_accuracy", "drifts_detected", "updates_accepted"):
        assert run.summary[key] == pytest.approx(simulated.summary[key]), key
    assert "<h1>Four boards on a table</h1>" in (folder / "run" / "report.html").read_text()


@pytest.mark.federation
def test_whatever_dies_the_federation_goes_on(tmp_path: Path) -> None:
    """ServerApp, SuperLink, SuperNode and ClientApp are killed, one after the other."""
    long = ["server.rounds=12", "server.round_seconds=20"]
    made = make_local(tmp_path / "fed", Scenario.load("loopback", [*TWO, *long]))
    one, two = sorted((made.path / "devices").iterdir())
    left = [
        (2, made.path, "flwr-serverapp"),
        (4, made.path, "server.federation.link"),
        (6, one, "flower-supernode"),
        (8, two, "flwr-clientapp"),
    ]

    def watch(status: dict[str, Any]) -> None:
        if left and status.get("round", 0) >= left[0][0] and kill(*left[0][1:]):
            left.pop(0)

    run = learn(made, watch)
    assert not left
    assert run.summary["rounds"] == 12
    # A round in flight is lost at each death, and for the minute in which Flower thinks that a device is still there.
    assert run.summary["updates_accepted"] >= 12, _logs(made.path)
    assert run.summary["final_accuracy"] > 0.6
    assert "the ServerApp died; a new one goes on from the last checkpoint" in _logs(made.path)
    _assert_nothing_lost(made, run)


@pytest.mark.federation
def test_after_all_died_at_once_it_goes_on(tmp_path: Path) -> None:
    made = make_local(tmp_path / "fed", Scenario.load("loopback", [*TWO, "server.rounds=6"]))

    class Died(Exception):  # noqa: N818
        pass

    def die(status: dict[str, Any]) -> None:
        if status.get("round", 0) >= 3:
            for folder in (made.path, *(made.path / "devices").iterdir()):
                for name in processes_of(folder):
                    kill(folder, name)
            raise Died

    with pytest.raises(Died):
        learn(made, die)
    before = made.status()["round"]
    assert before >= 3
    run = learn(made)
    assert run.summary["rounds"] == 6
    numbers = run.rounds["round"].to_list()
    assert numbers == sorted(numbers)
    _assert_nothing_lost(made, run)


@pytest.mark.federation
def test_the_rehearsal_in_the_docs(tmp_path: Path) -> None:
    """The lines of docs/federation.md, one after the other in one folder; those that end in & go on."""
    (block,) = [found for found in re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL) if " init " in found]
    rng = np.random.default_rng(1)
    rows = "".join(f"{a:.3f},{b:.3f},{'wet' if a > b else 'dry'}\n" for a, b in rng.normal(size=(400, 2)))
    (tmp_path / "rows.csv").write_text(f"light,rain,state\n{rows}")
    running, tool = [], str(Path(sys.executable).with_name("fedtp"))
    try:
        for line in block.splitlines():
            words = line.removesuffix(" &").replace("fedtp", tool, 1).split()
            if " init " in line:
                words += ["--port", str(free_port())]
            if line.endswith(" &"):
                running.append(subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL))
                continue
            if " status " in line:
                until(lambda: status_of(tmp_path)["samples"] >= 800, 120)
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            if " init " in line:
                for own in (tmp_path / "garden" / "devices").iterdir():
                    (own / "data" / "today.csv").write_text(f"light,rain,state\n{rows}nothing\n")
        # The next round finds that it shall rest.
        for own in (tmp_path / "garden" / "devices").iterdir():
            (bad,) = (own / "quarantine" / "rows.jsonl").read_text().splitlines()
            assert json.loads(bad)["row"] == "nothing"
        assert status_of(tmp_path)["correct"] > 500
        until(lambda: status_of(tmp_path)["state"] == "resting", 120)
    finally:
        for process in running:
            process.terminate()
        codes = [process.wait(60) for process in running]
    assert codes == [0, 0, 0]
    assert not processes_of(tmp_path / "garden")


def status_of(folder: Path) -> dict[str, Any]:
    return {"samples": 0, "state": "", **ServerFolder(folder / "garden").status()}


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def _assert_nothing_lost(made: ServerFolder, run: Run) -> None:
    """Each device numbers its reports, and the server has heard all but the one that may be on its way."""
    heard = {name: one["samples"] for name, one in made.status()["devices"].items()}
    assert sum(heard.values()) == run.summary["samples"]
    assert all(samples % 100 == 0 for samples in heard.values())


def _logs(folder: Path) -> str:
    paths = sorted(folder.rglob("*.log"))
    return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)
