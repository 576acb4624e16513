"""The network is cut, hosts are apart, a clock is wrong: it is said, and the federation gets over it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtp.federation import free_port, tool
from server.federation.folder import ServerFolder

pytestmark = pytest.mark.federation

TWO = "devices.0.count=2"
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


class Cable:
    """Carries connections to a port of this host, unless it is cut: then nothing comes through, and nobody is told."""

    def __init__(self, port: int) -> None:
        self.whole = threading.Event()
        self.whole.set()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.whole.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                self.whole.wait()
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cable() -> Iterator[Callable[[int], Cable]]:
    made: list[Cable] = []

    def make(port: int) -> Cable:
        made.append(Cable(port))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_after_the_network_was_cut_for_90_seconds_it_goes_on(
    federation: Callable[..., Any], cable: Callable[[int], Cable]
) -> None:
    fed = federation(TWO, "server.rounds=16", "server.round_seconds=20")
    port = fed.made.spec().network.port
    one = cable(port)
    for own in fed.devices:
        fed.alter(own.name, f":{port}", f":{one.port}")
    fed.start()
    fed.until(lambda: fed.status()["round"] >= 3, 180)
    one.whole.clear()
    time.sleep(90)
    heard = fed.status()["samples"]
    one.whole.set()
    fed.until(lambda: fed.status()["samples"] > heard, 120)
    run = fed.learn()
    assert run.summary["rounds"] == 16
    assert run.summary["updates_accepted"] >= 12, fed.logs()
    for own in fed.devices:
        said = fed.said(own.name)
        assert re.search("it cannot be reached: .*timed out", said)
        assert "can be reached again" in said
    fed.end()
    fed.assert_nothing_lost(run)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def host() -> Iterator[tuple[str, str, str]]:
    """Another host, a network namespace: its name, this one's address as it sees it, and this one's cable to it."""
    number = os.getpid()
    name, near, far, net = f"fedtp{number}", f"ft{number}", f"fd{number}", f"10.79.{number % 250}"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no right to make a network namespace: {error}")
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        _ip("link", "set", far, "netns", name)
        _ip("addr", "add", f"{net}.1/24", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", name, "addr", "add", f"{net}.2/24", "dev", far)
        for end in ("lo", far):
            _ip("-n", name, "link", "set", end, "up")
        yield name, f"{net}.1", near
    finally:
        _ip("netns", "delete", name)  # and the cable with it


def test_devices_on_another_host_whose_cable_is_pulled_for_90_seconds(
    tmp_path: Path, federation: Callable[..., Any], host: tuple[str, str, str]
) -> None:
    """The way of docs/federation.md for several hosts; rows that come in the meantime are learnt from afterwards."""
    name, address, cable = host
    rng = np.random.default_rng(1)
    rows = [f"{a:.3f},{b:.3f},{'wet' if a > b else 'dry'}\n" for a, b in rng.normal(size=(600, 2))]
    sample, folder = tmp_path / "rows.csv", tmp_path / "garden"
    sample.write_text("light,rain,state\n" + "".join(rows))
    init = [tool("fedtp"), "federation", "init", folder, "--like", sample, "--label", "state", "--address", address]
    subprocess.run([*map(str, init), "--port", str(free_port())], check=True, capture_output=True)
    fed = federation(folder=ServerFolder.of(folder))
    fed.alter("server", "[trust]", "[server]\nround_seconds = 15.0\n\n[trust]")
    files = [own / "data" / "today.csv" for own in fed.devices]

    def give(some: list[str]) -> None:
        for file in files:
            with file.open("a") as end:
                end.writelines(some)

    def learnt(count: int) -> bool:
        return [one.get("samples") for one in fed.status()["devices"].values()] == [count, count]

    give(["light,rain,state\n", *rows[:200]])
    fed.start("server")
    fed.start("device-1", "device-2", within=("ip", "netns", "exec", name))
    fed.made.write_wish("learn")
    fed.until(lambda: learnt(200), 180)
    _ip("link", "set", cable, "down")
    give(rows[200:400])
    time.sleep(90)
    assert learnt(200)
    _ip("link", "set", cable, "up")
    fed.until(lambda: learnt(400), 240)
    give(rows[400:])
    fed.until(lambda: learnt(600), 120)
    for own in fed.devices:
        assert f"{address}:{fed.made.spec().network.port}: it cannot be reached" in fed.said(own.name)
        assert "can be reached again" in fed.said(own.name)


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian's faketime)")
def test_a_device_whose_clock_is_an_hour_off_says_so_and_comes_back(
    tmp_path: Path, federation: Callable[..., Any]
) -> None:
    fed = federation(TWO, "server.rounds=1000", "server.round_seconds=10")
    off, right = (own.name for own in fed.devices)
    clock = tmp_path / "clock"
    clock.write_text("+1h\n")
    # Where libfaketime leaves the monotonic clock alone, as whoever sets a clock does, it breaks `time.sleep`.
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time\ntime.sleep = lambda seconds: threading.Event().wait(seconds)\n"
    )
    fed.alter("server", "min_devices = 2", "min_devices = 1")
    fed.start("server", right)
    fed.start(
        off,
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_CACHE_DURATION="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        PYTHONPATH=str(tmp_path),
    )
    fed.made.write_wish("learn")
    fed.until(lambda: re.search("this device's clock is 3,60. s ahead of the server's", fed.said(off)), 120)
    fed.until(lambda: fed.status()["devices"].get(right, {}).get("samples"), 120)
    assert off not in fed.status()["devices"]
    clock.write_text("+0\n")
    fed.until(lambda: fed.status()["devices"].get(off, {}).get("samples"), 240)
    fed.until(lambda: "can be reached again" in fed.said(off), 30)
