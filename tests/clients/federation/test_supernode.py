from __future__ import annotations

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
