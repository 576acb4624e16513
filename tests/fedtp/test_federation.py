from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedtp.errors import DataError, FedtpError
from fedtp.federation import FOLDER_VARIABLE, alone, flower_environment, holder, until_signalled
from fedtp.settings_file import read_settings
from server.federation.spec import NetworkSpec

HOLD = "import sys, time, pathlib; from fedtp.federation import alone\nwith alone(pathlib.Path(sys.argv[1]), 'it'): "
HOLD += "print('on', flush=True); time.sleep(60)"


def test_only_one_process_works_in_a_folder(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        assert holder(tmp_path) == other.pid
        said = f"the server runs in .* already, as process {other.pid}"
        with pytest.raises(FedtpError, match=said), alone(tmp_path, "the server"):
            pass
    finally:
        other.kill()
        other.communicate()
    assert holder(tmp_path) is None
    with alone(tmp_path, "the server"):
        assert holder(tmp_path) == os.getpid()


def test_signals_set_the_event_and_nothing_else() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with until_signalled() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_flowers_processes_stay_by_themselves(tmp_path: Path) -> None:
    environment = flower_environment(tmp_path / "home", tmp_path)
    assert environment["FLWR_HOME"] == str(tmp_path / "home")
    assert environment[FOLDER_VARIABLE] == str(tmp_path)
    assert environment["FLWR_TELEMETRY_ENABLED"] == environment["FLWR_DISABLE_UPDATE_CHECK"].replace("1", "0")
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file"),
        ("port = ", "cannot be read"),
        ("port = 80443", "port is 80443, but must be"),
        ('prot = 1\naddress = "a b"', "did you mean"),
        ("\x00", "cannot be read"),
    ],
)
def test_a_file_of_settings_says_what_is_wrong(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "some.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=said) as raised:
        read_settings(NetworkSpec, path)
    assert all(line.startswith(str(path)) for line in str(raised.value).splitlines())


def test_a_file_of_settings_is_read(tmp_path: Path) -> None:
    (tmp_path / "some.toml").write_text('\ufeffport = 80\naddress = "::1"\n', "utf-8")
    assert read_settings(NetworkSpec, tmp_path / "some.toml") == NetworkSpec(port=80, address="::1")
