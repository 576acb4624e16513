"""One fleet, the same weights: learning inline, in processes, on Ray, behind gateways, and by `flwr run`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from simulations import Run, Scenario, simulate

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5
# Everyone takes part, nothing is lost or late, and every order finds as many samples.
SCENARIO = f"""
title = "Six alike"

[data]
name = "digits"

[partition]
kind = "dirichlet"

[arrival]
samples_per_order = 23

[learner]
hidden = [32]
batch_size = 5

[server]
rounds = {ROUNDS}

[[devices]]
class = "pi"
count = 6
"""


def simulated(*settings: str) -> Run:
    return simulate(Scenario.from_toml(SCENARIO, settings))


@pytest.fixture(scope="session")
def inline() -> Run:
    run = simulated()
    assert run.summary["updates_accepted"] == run.summary["client_rounds"] == 6 * ROUNDS
    assert run.summary["final_accuracy"] > 0.5
    return run


def assert_same(weights: dict[str, np.ndarray], run: Run) -> None:
    expected = run.state_dict()
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(weights[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(["run.devices_per_node=3"], id="gateways"),
        pytest.param(["run.processes=2"], id="processes"),
        pytest.param(["run.processes=2", "run.devices_per_node=2"], id="gateways in processes"),
        pytest.param(["run.executor=ray", "run.processes=2"], id="ray", marks=pytest.mark.slow),
    ],
)
def test_the_same_weights_however_they_learn(inline: Run, settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if "run.executor=ray" in settings:
        ray = pytest.importorskip("ray")
        assert not ray.is_initialized()
    run = simulated(*settings)
    assert_same({name: tensor.numpy() for name, tensor in run.state_dict().items()}, inline)
    if "run.executor=ray" in settings:
        assert not ray.is_initialized()


# --- flwr run -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def superlink(home: Path) -> Iterator[dict[str, str]]:
    """Start a SuperLink that simulates, and give the environment in which `flwr` finds it under the name "own"."""
    port = free_port()
    (home / "config.toml").write_text(f'[superlink.own]\naddress = "127.0.0.1:{port}"\ninsecure = true\n')
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
    }
    command = ["flower-superlink", "--simulation", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "superlink.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while not listening(port):
            assert process.poll() is None, (home / "superlink.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.2)
        yield environment
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def flwr(*arguments: str, environment: dict[str, str]) -> dict:
    done = subprocess.run(
        ["flwr", *arguments, "--format", "json"], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["success"], answer
    return answer


@pytest.mark.slow
def test_flwr_run_gives_the_same_weights(inline: Run, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    home = tmp_path / "flwr"
    home.mkdir()
    with superlink(home) as environment:
        # Rounds take real time here. The first ones are long enough unless this machine has much else to do.
        logs = [run_by_flower(tmp_path, 20, environment)]
        if not everyone_took_part(logs[-1]):
            logs.append(run_by_flower(tmp_path, 40, environment))
    assert everyone_took_part(logs[-1]), logs[-1]
    assert_same(load_file(tmp_path / "model.safetensors"), inline)


def run_by_flower(folder: Path, round_seconds: int, environment: dict[str, str]) -> str:
    """Let Flower run the app of `pyproject.toml` on the six devices, and return the run's log."""
    scenario = Scenario.from_toml(SCENARIO)
    (folder / "six.toml").write_text(SCENARIO)
    own = {"learner.hidden", "learner.batch_size", "learner.seed"}
    config = {
        **{key: value for key, value in scenario.learner.to_config().items() if key in own},
        "scenario": str(folder / "six.toml"),
        "settings": "",
        "model": str(folder / "model.safetensors"),
        "server.rounds": ROUNDS,
        "server.round_seconds": float(round_seconds),
    }
    settings = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
    size = "num-supernodes=6 client-resources-num-cpus=1"
    started = flwr("run", ".", "own", "-c", settings, "--federation-config", size, environment=environment)
    number = str(started["run-id"])
    until = time.monotonic() + ROUNDS * round_seconds + 90
    time.sleep(ROUNDS * round_seconds)
    while (status := run_status(number, environment)) in ("pending", "starting", "running"):
        assert time.monotonic() < until, status
        time.sleep(2)
    log = subprocess.run(["flwr", "log", number, "own", "--show"], env=environment, capture_output=True, text=True)
    assert status == "finished:completed", log.stdout
    return log.stdout


def run_status(number: str, environment: dict[str, str]) -> str:
    runs = flwr("ls", "own", environment=environment)["runs"]
    return next(str(run["status"]) for run in runs if str(run["run-id"]) == number)


def everyone_took_part(log: str) -> bool:
    return log.count("6 orders, 6 replies") == ROUNDS
