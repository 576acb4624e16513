"""A real federation's folders, and the environment of the Flower processes that work in them.

::

    DIR/                 on the server's host
      federation.toml    what is learnt, and where the server is
      server/            keys, database, checkpoints, model, logs: it stays there
      devices/NAME/      to be copied to the device's host: its key, device.toml; later its state and its logs
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from fedtp.errors import FedtpError

#: File names that server and devices share.
CA, DEVICE_KEY, DEVICE_FILE = "ca.crt", "device.key", "device.toml"
#: By which Flower's processes tell the apps in them where their folder is.
FOLDER_VARIABLE = "FEDTP_FOLDER"

_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # By itself it lets a message wait for up to a second; more often costs a small device's processor too much.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
}


def flower_environment(home: Path, folder: Path) -> dict[str, str]:
    """Return the environment of Flower's processes: nothing phones home or is downloaded.

    Parameters
    ----------
    home
        Flower's own folder, theirs alone.
    folder
        Of the federation, or of the device.
    """
    tools = str(Path(sys.executable).parent)
    # Each trains a small network in a process of its own: threads would only wait for each other.
    threads = {name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    path = f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"
    own = {"FLWR_HOME": str(home), "PATH": path, "PYTHONUNBUFFERED": "1", FOLDER_VARIABLE: str(folder)}
    return {**os.environ, **_QUIET, **threads, **own}


def tool(name: str) -> str:
    """Return the path of a command that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Let no other process do the same in a folder meanwhile.

    Raises
    ------
    FedtpError
        If one does already.
    """
    path = folder / "lock"
    try:
        file = path.open("a+")
    except OSError as error:
        raise FedtpError(f"cannot write {path}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise FedtpError(f"{what} runs in {folder} already, as process {file.read().strip() or '?'}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def holder(folder: Path) -> int | None:
    """Return the id of the process that is `alone` in a folder, if there is one."""
    try:
        with (folder / "lock").open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                text = file.read().strip()
                return int(text) if text.isdecimal() else None
    except OSError:
        pass
    return None


@contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set, instead of what they do otherwise."""
    event = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda *_: event.set())
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to(path: Path, logger: str = "fedtp", *, screen: bool = True) -> None:
    """Have what a logger is told written to a file of limited size, with the time, and to the screen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger(logger)
    root.setLevel(logging.INFO)
    root.propagate = not screen
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    file = RotatingFileHandler(path, maxBytes=2_000_000, backupCount=3, encoding="utf-8")
    handlers: list[logging.Handler] = [file, *([logging.StreamHandler()] if screen else [])]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        root.addHandler(handler)


def free_port() -> int:
    """Return a port of this host that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
