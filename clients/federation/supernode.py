"""Flower's SuperNode: the process that connects a device with the server, and why it may not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from clients.federation import node
from clients.federation.connection import why_not
from clients.federation.place import Place
from clients.federation.settings import DeviceSpec
from clients.sources.mqtt import Subscriber
from fedtp.errors import FedtpError
from fedtp.federation import CA, DEVICE_KEY, alone, flower_environment, free_port
from fedtp.supervision import Program, log

#: Seconds between two looks at the process.
_LOOK = 0.5

#: Seconds between two looks at whether the server can be reached.
_PROBE = 15.0

#: What Flower prints when it ends though the server can be reached: the first is the same for two reasons.
_REFUSED, _GAVE_UP = "Exit Code: 305", "Giving up reconnection"
_WHY = (
    "the server refuses it: it does not know the key, whose public half must be in server/keys there, or thinks that "
    "the device is still connected, as it does for a minute after a crash"
)


def explain(spec: DeviceSpec, authority: Path | None, printed: Sequence[str]) -> str | None:
    """Return why the SuperNode ended, in a sentence, from the last lines that it printed."""
    sentence = why_not(spec.server, authority)
    if sentence is None and any(_REFUSED in line for line in printed):
        sentence = _WHY
    if sentence is None and any(_GAVE_UP in line for line in printed):
        sentence = "the connection was lost, and Flower gave it up"
    return sentence and f"{spec.name} is not connected to {spec.server}: {sentence}"


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
    authority = None if spec.insecure else folder / CA
    home = folder / "flower"
    home.mkdir(mode=0o700, exist_ok=True)
    secure = ["--root-certificates", str(folder / CA), "--auth-supernode-private-key", str(folder / DEVICE_KEY)]
    with alone(folder, f"device {spec.name}"):
        if spec.insecure:
            log.warning("INSECURE: whoever is between this device and %s can read and change everything", spec.server)
        program = Program(
            "supernode",
            [
                *(sys.executable, "-P", "-m", node.__name__),
                *(["--insecure"] if spec.insecure else secure),
                *("--superlink", spec.server),
                # The port on which its own processes talk to it, on this host alone.
                *("--host", "127.0.0.1", "--port", str(free_port())),
            ],
            folder / "logs",
            flower_environment(home, folder),
            folder=folder,
            explain=lambda printed: explain(spec, authority, printed),
        )
        log.info("device %s, of the server at %s", spec.name, spec.server)
        subscriber = None
        if spec.source.kind == "mqtt":
            subscriber = Subscriber(spec.source, folder / spec.source.path, spec.name, Place(folder).reading)
            subscriber.start()
        said, probed = None, 0.0
        try:
            while not stop.wait(_LOOK):
                program.step()
                if time.monotonic() - probed > _PROBE:
                    probed, before, said = time.monotonic(), said, why_not(spec.server, authority)
                    if said != before:
                        log.warning("%s", f"{spec.server}: {said}" if said else f"{spec.server} can be reached again")
        finally:
            if subscriber is not None:
                subscriber.stop()
            program.stop()
            log.info("stopped")
