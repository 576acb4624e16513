"""What a new user does first: ``fedtp federation up``, and the lines of docs/federation.md."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtp.federation import free_port, tool
from server.federation.folder import ServerFolder
from simulations import Run, Scenario, simulate

DOCS = Path(__file__).resolve().parents[3] / "docs" / "federation.md"


# Rounds so long that everyone answers in time on a machine that is busy with other tests.
FEW = ["server.rounds=3", "server.round_seconds=30", "drift.0.at_seconds=30"]


@pytest.mark.parametrize(
    ("devices", "settings"),
    [pytest.param(2, FEW, marks=pytest.mark.slow), pytest.param(4, [], marks=pytest.mark.federation)],
)
def test_up_learns_what_a_simulation_learns_and_leaves_nothing_running(
    tmp_path: Path, processes_of: Callable[[Path], dict[str, list[int]]], devices: int, settings: list[str]
) -> None:
    folder = tmp_path / "fed"
    given = [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(
        [tool("fedtp"), "federation", "up", "--dir", folder, "--devices", str(devices), *given],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    logs = "\n".join(path.read_text()[-3000:] for path in sorted(folder.rglob("*.log")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert not processes_of(folder)
    assert not any(processes_of(own) for own in (folder / "devices").iterdir())
    run = Run.load(folder / "run")
    simulated = simulate(Scenario.load("loopback", [f"devices.0.count={devices}", *settings]))
    for name, weights in simulated.weights.items():
        np.testing.assert_allclose(run.weights[name], weights, rtol=1e-4, atol=1e-6)
    for key in ("rounds", "samples", "prequential_accuracy", "final_accuracy", "drifts_detected", "updates_accepted"):
        assert run.summary[key] == pytest.approx(simulated.summary[key]), key
    assert "<h1>Four boards on a table</h1>" in (folder / "run" / "report.html").read_text()


@pytest.mark.federation
def test_the_rehearsal_in_the_docs(
    tmp_path: Path, until: Callable[..., None], processes_of: Callable[[Path], dict[str, list[int]]]
) -> None:
    """The lines of docs/federation.md, one after the other in one folder; those that end in & go on."""
    (block,) = [found for found in re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL) if " init " in found]
    rng = np.random.default_rng(1)
    rows = "".join(f"{a:.3f},{b:.3f},{'wet' if a > b else 'dry'}\n" for a, b in rng.normal(size=(400, 2)))
    (tmp_path / "rows.csv").write_text(f"light,rain,state\n{rows}")
    garden, running = tmp_path / "garden", []

    def status() -> dict[str, Any]:
        return {"samples": 0, "state": "", **ServerFolder(garden).status()}

    try:
        for line in block.splitlines():
            words = line.removesuffix(" &").replace("fedtp", tool("fedtp"), 1).split()
            if " init " in line:
                words += ["--port", str(free_port())]
            if line.endswith(" &"):
                running.append(subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL))
                continue
            if " status " in line:
                until(lambda: status()["samples"] >= 800, 120)
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            if " init " in line:
                for own in (garden / "devices").iterdir():
                    (own / "data" / "today.csv").write_text(f"light,rain,state\n{rows}nothing\n")
        # The next round finds that it shall rest.
        for own in (garden / "devices").iterdir():
            (bad,) = (own / "quarantine" / "rows.jsonl").read_text().splitlines()
            assert json.loads(bad)["row"] == "nothing"
        assert status()["correct"] > 500
        until(lambda: status()["state"] == "resting", 120)
    finally:
        for process in running:
            process.terminate()
        codes = [process.wait(60) for process in running]
    assert codes == [0, 0, 0]
    assert not processes_of(garden)
