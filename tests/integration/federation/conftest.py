"""Federations on this machine: a server and devices as processes of their own, with TLS and keys, and an end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedtp.archive import Archive
from fedtp.federation import DEVICE_FILE, FOLDER_VARIABLE, tool
from server.federation.folder import LEARN, REST, SPEC, ServerFolder
from simulations import Run, Scenario
from simulations.federation.local import make_local, names_of
from simulations.federation.results import run_of

PROGRAMS = "flower-|flwr-|server.federation.link|clients.federation.node"


def find_processes(folder: Path) -> dict[str, list[int]]:
    """Return the Flower processes that work in a folder, by their names."""
    found: dict[str, list[int]] = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(FOLDER_VARIABLE) != str(folder):
                continue
            words = process.cmdline()
        except (psutil.Error, OSError):
            continue
        name = next((Path(word).name for word in words if re.search(PROGRAMS, word)), "")
        found.setdefault(name, []).append(process.pid)
    return found


def wait_until(condition: Callable[[], Any], seconds: float, told: Callable[[], str] = str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.5)


class Federation:
    """Programs of fedtp's in a federation's folder, what they say, and their end.

    Parameters
    ----------
    made
        The folder.
    """

    def __init__(self, made: ServerFolder) -> None:
        self.made = made
        self.path = made.path
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def devices(self) -> list[Path]:
        """The folders of the devices."""
        return sorted((self.path / "devices").iterdir())

    def start(self, *names: str, within: tuple[str, ...] = (), **environment: str) -> None:
        """Start programs, ``"server"`` or a device's name; by default all, and learning.

        ``within`` is a command that starts the command that is given to it.
        """
        for name in names or ("server", *(own.name for own in self.devices)):
            command = ["server", self.path] if name == "server" else ["device", self.path / "devices" / name]
            with self._screen(name).open("ab") as screen:
                self._running[name] = subprocess.Popen(
                    [*within, tool("fedtp"), "federation", *command],
                    env={**os.environ, **environment},
                    stdout=screen,
                    stderr=subprocess.STDOUT,
                )
        if not names:
            self.made.write_wish(LEARN)

    def end(self, *names: str) -> None:
        """End programs, by default all, as Ctrl-C does."""
        ended = [self._running.pop(name) for name in names or list(self._running)]
        for process in ended:
            process.terminate()
        for process in ended:
            assert process.wait(60) == 0

    def said(self, name: str) -> str:
        """Return what a program has told on its screen."""
        return self._screen(name).read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        """Return what the server tells."""
        return {"state": "", "round": 0, "samples": 0, "devices": {}, **self.made.status()}

    def alter(self, name: str, before: str, after: str) -> None:
        """Change the settings of a device, or of the server."""
        path = self.path / SPEC if name == "server" else self.path / "devices" / name / DEVICE_FILE
        text = path.read_text("utf-8")
        assert before in text
        path.write_text(text.replace(before, after), "utf-8")

    def processes(self, folder: Path | None = None) -> dict[str, list[int]]:
        """Return the Flower processes that work in a folder, the server's by default, by their names."""
        return find_processes(folder or self.path)

    def long_lived(self) -> list[tuple[str, psutil.Process]]:
        """Return what runs as long as the federation, by its names: not the process that each order gets."""
        found = [(f"{name}: fedtp", psutil.Process(process.pid)) for name, process in self._running.items()]
        for name, folder in (("server", self.path), *((own.name, own) for own in self.devices)):
            for program, pids in self.processes(folder).items():
                if program not in ("flwr-clientapp", ""):
                    found += [(f"{name}: {program}", psutil.Process(pid)) for pid in pids]
        return found

    def kill(self, folder: Path, name: str) -> bool:
        """Kill the processes of a name that work in a folder, if there are any."""
        there = self.processes(folder).get(name, [])
        for pid in there:
            os.kill(pid, signal.SIGKILL)
        return bool(there)

    def kill_all(self) -> None:
        """Kill everything at once, as when the power fails."""
        for process in self._running.values():
            process.kill()
        for folder in (self.path, *self.devices):
            for name in self.processes(folder):
                self.kill(folder, name)
        for process in self._running.values():
            process.wait()
        self._running = {}

    def assert_nothing_lost(self, run: Run) -> None:
        """Check that the server has heard all that each device has ever learnt from, and once; all are ended."""
        assert 0 < sum(device["samples"] for device in self.status()["devices"].values()) == run.summary["samples"]
        for name, device in self.status()["devices"].items():
            path = self.path / "devices" / name / "state" / "device.safetensors"
            record, _ = Archive("fedtp.device", "state of a device", version=1).read(path)
            # Each order takes so many, and the last report may be on its way.
            assert device["samples"] in (100 * record["reports"], 100 * record["reports"] - 100), self.logs()

    def learn(self, look: Callable[[dict[str, Any]], Any] = lambda _: None) -> Run:
        """Wait until all rounds are done; return what came of it."""
        scenario = Scenario.load(self.path / "scenario.toml")
        self._watch(lambda status: status["state"] == "finished", look, 180 + 2 * scenario.server.round_seconds)
        return run_of(scenario, self.made.events, self.made.model, names_of(scenario), 0.0)

    def learn_for(self, rounds: int, look: Callable[[dict[str, Any]], Any]) -> None:
        """Wait for a number of rounds, and have the server rest."""
        self._watch(lambda status: status["round"] >= rounds, look, 240)
        self.made.write_wish(REST)
        self.until(lambda: self.status()["state"] == "resting", 120)

    def _watch(
        self, over: Callable[[dict[str, Any]], bool], look: Callable[[dict[str, Any]], Any], patience: float
    ) -> None:
        while not over(status := self.status()):

            def moved(before: int = status["round"]) -> bool:
                look(self.status())
                return self.status()["round"] > before or over(self.status())

            self.until(moved, patience)

    def logs(self) -> str:
        """Return the ends of all logs."""
        paths = sorted({*self.path.rglob("*.log"), *self.path.parent.glob("*.screen")})
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)

    def until(self, condition: Callable[[], Any], seconds: float) -> None:
        """Wait for something."""
        wait_until(condition, seconds, lambda: f"{self.status()}\n{self.logs()}")

    def _screen(self, name: str) -> Path:
        return self.path.parent / f"{name}.screen"


@pytest.fixture(scope="session")
def processes_of() -> Callable[[Path], dict[str, list[int]]]:
    return find_processes


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    return wait_until


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Make federations of the devices of `loopback`, with changed settings; what still runs at the end is ended."""
    made: list[Federation] = []

    def make(*settings: str, folder: ServerFolder | None = None, insecure: bool = False) -> Federation:
        path = tmp_path / f"fed-{len(made)}"
        made.append(Federation(folder or make_local(path, Scenario.load("loopback", settings), insecure=insecure)))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.end()
            assert not any(one.processes(folder) for folder in (one.path, *one.devices))
