"""The Flower app in buffered mode on a real SuperLink, with two SuperNodes, each a process of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CONFIG = (
    'server.mode="buffered" server.buffer_size=2 server.rounds=3 server.round_seconds=20.0 '
    'settings="arrival.samples_per_order=20 drift=[]"'
)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Deployment:
    """Processes of Flower's in a folder, with logs there, and an end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        home = folder / "home"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "test"\n[superlink.test]\naddress = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
        }

    def start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.append(process)

    def wait_for_superlink(self, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        pytest.fail(f"the SuperLink does not listen:\n{self.logs()}")

    def flwr(self, *arguments: str) -> str:
        done = subprocess.run(
            ["flwr", *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-6000:] for path in sorted(self.folder.glob("*.log")))

    def end(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path)
    try:
        deployment.start(
            "superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", f"{deployment.port}"
        )
        deployment.wait_for_superlink()
        for partition in range(2):
            deployment.start(
                f"supernode-{partition}",
                *("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{deployment.port}"),
                *("--host", "127.0.0.1", "--port", f"{free_port()}"),
                *("--node-config", f"partition-id={partition} num-partitions=2"),
            )
        yield deployment
    finally:
        deployment.end()


@pytest.mark.federation
def test_buffered_aggregation_on_a_real_superlink(deployment: Deployment) -> None:
    deployment.flwr("run", str(ROOT), "test", "-c", CONFIG)
    deadline = time.monotonic() + 120
    status = ""
    while not status.startswith("finished") and time.monotonic() < deadline:
        time.sleep(2)
        (run,) = json.loads(deployment.flwr("ls", "test", "--format", "json"))["runs"]
        status = run["status"]
    assert status == "finished:completed", deployment.logs()
    log = deployment.flwr("log", str(run["run-id"]), "test", "--show")
    periods = re.findall(r"round (\d+): (\d+) orders, (\d+) replies, (\S+) aggregations", log)
    assert [int(number) for number, *_ in periods] == list(range(1, 4)), deployment.logs()
    orders, replies, aggregations = (sum(float(period[i]) for period in periods) for i in (1, 2, 3))
    assert orders >= replies >= 2
    assert aggregations == replies // 2, log
