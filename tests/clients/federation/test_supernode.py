from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clients.federation import supernode
from clients.federation.settings import DeviceSpec
from clients.federation.supernode import explain, run_device
from fedtp.data.schema import Schema
from fedtp.errors import DataError, FedtpError
from fedtp.federation import alone

SPEC = DeviceSpec(name="one", server="host:1", data=Schema(features=("a",), classes=("0", "1")))


@pytest.mark.parametrize(
    ("unreachable", "printed", "said"),
    [
        ("nothing listens there", ["Exit Code: 305"], "one is not connected to host:1: nothing listens there"),
        (None, ["ERROR :     Exit Code: 305", "more"], "the server refuses it: it does not know the key"),
        (None, ["Giving up reconnection after 30 seconds", "TLS failed"], "the connection was lost"),
        (None, ["killed"], None),
    ],
)
def test_why_a_supernode_ended(monkeypatch, unreachable: str | None, printed: list[str], said: str | None) -> None:
    monkeypatch.setattr(supernode, "why_not", lambda *_: unreachable)
    found = explain(SPEC, None, printed)
    assert (found is None) == (said is None)
    assert said is None or said in str(found)


def test_a_device_runs_once(tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text(
        'name = "one"\nserver = "127.0.0.1:1"\ninsecure = true\n[data]\nfeatures = ["a"]\nclasses = ["0", "1"]\n'
    )
    stop = threading.Event()
    stop.set()
    with alone(tmp_path, "device one"), pytest.raises(FedtpError, match=r"device one runs in .* already"):
        run_device(tmp_path, stop)
    run_device(tmp_path, stop)
    (tmp_path / "device.toml").write_text('name = "one"\n')
    with pytest.raises(DataError, match="server"):
        run_device(tmp_path, stop)


@pytest.mark.parametrize("module", ["clients.federation.supernode", "server.federation.serve"])
def test_what_runs_all_the_time_is_small(module: str) -> None:
    """On a device memory is what there is least of: the learner is only in the process that carries out an order."""
    code = f"import sys, {module}; assert not {{'torch', 'flwr', 'pandas', 'river'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
