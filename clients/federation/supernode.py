"""Flower's SuperNode: the process that connects a device with the server, and why it may not."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

from clients.federation.settings import DeviceSpec
from fedtp.errors import FedtpError
from fedtp.federation import CA, DEVICE_KEY, alone, flower_environment, tool
from fedtp.supervision import Program, log

#: Seconds between two looks at the process.
_LOOK = 0.5

#: What Flower prints when it ends, and what it means.
_REASONS = (
    (
        r"CERTIFICATE_VERIFY_FAILED.*expired|certificate has expired",
        "the server's certificate has ended: renew it there",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|unable to get local issuer",
        "the server's certificate is not signed by the authority in ca.crt, or not for this address: copy ca.crt from "
        "the server, and compare the address in device.toml with the one it was made for",
    ),
    (
        r"WRONG_VERSION_NUMBER|wrong version number|record layer failure|Server disconnected without sending",
        "the server does not speak TLS, and this device does not speak without: look for insecure in both their files",
    ),
    (
        r"(?i)timestamp|clock",
        "the server refuses the device's signature for its time: set this device's clock right",
    ),
    (
        r"(?i)no longer|already|ACTIVE|is online",
        "the server thinks that the device is still connected, as it does for a minute after a crash",
    ),
    (
        r"(?i)unauthenticated|not registered|public key|\b305\b|forbidden|unauthorized",
        "the server does not know this device's key: its public half must be in server/keys there",
    ),
    (r"(?i)connection refused|ConnectError|failed to connect|timed out", "the server cannot be reached"),
)


def explain(spec: DeviceSpec, printed: Sequence[str]) -> str | None:
    """Return why the SuperNode ended, in a sentence, from the last lines that it printed."""
    text = "\n".join(printed)
    for pattern, sentence in _REASONS:
        if re.search(pattern, text):
            return f"{spec.name} is not connected to {spec.server}: {sentence}"
    return None


def run_device(folder: Path, stop: threading.Event) -> None:
    """Keep a device connected until it is told to stop.

    Parameters
    ----------
    folder
        The device's.
    stop
        Set to end it.

    Raises
    ------
    FedtpError
        If another process does so already, or its file or its key cannot be used.
    """
    folder = folder.resolve()
    spec = DeviceSpec.read(folder)
    if not spec.insecure:
        for name in (CA, DEVICE_KEY):
            if not (folder / name).is_file():
                raise FedtpError(f"{folder / name} is missing: copy the device's whole folder from the server's host")
    home = folder / "flower"
    home.mkdir(mode=0o700, exist_ok=True)
    secure = ["--root-certificates", str(folder / CA), "--auth-supernode-private-key", str(folder / DEVICE_KEY)]
    with alone(folder, f"device {spec.name}"):
        if spec.insecure:
            log.warning("INSECURE: whoever is between this device and %s can read and change everything", spec.server)
        program = Program(
            "supernode",
            [
                tool("flower-supernode"),
                *(["--insecure"] if spec.insecure else secure),
                *("--superlink", spec.server),
                # The port on which its own processes talk to it, on this host alone.
                *("--host", "127.0.0.1", "--port", str(_free_port())),
            ],
            folder / "logs",
            flower_environment(home, folder),
            folder=folder,
            explain=lambda printed: explain(spec, printed),
        )
        log.info("device %s, of the server at %s", spec.name, spec.server)
        try:
            while not stop.wait(_LOOK):
                program.step()
        finally:
            program.stop()
            log.info("stopped")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
