"""Messages of an MQTT broker, appended to files in the folder that the device reads: `clients.sources.directory`.

A message is acknowledged once it is on disk. So the broker keeps what a device that is away has missed, as long as the
broker keeps sessions; and what comes twice, since a device died between the two, is dropped the second time. What the
broker retains and tells at every subscription anew is no new row, and left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.sources.settings import SourceSpec
from fedtp.errors import FedtpError

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

log = logging.getLogger("fedtp.federation")

#: Bytes after which a file is closed and the next one begun, and of how many of the latest messages it is known that
#: they are on disk. Files are the smaller the less may wait: what has been read is removed file by file.
_FILE_BYTES, _REMEMBERED = 4_000_000, 1_000
#: Seconds between two looks at whether there is room again.
_WAIT = 0.5


class Subscriber:
    """A subscription that fills a folder.

    Parameters
    ----------
    spec
        The broker, the topic, and how much may wait in the folder.
    folder
        Where files of lines go, ``mqtt-*.jsonl``. Other files there are left alone.
    name
        The device's: its session at the broker has that name.
    reading
        Returns the name of the file that the device reads now; older ones of ours are removed.
    """

    def __init__(self, spec: SourceSpec, folder: Path, name: str, reading: Callable[[], str]) -> None:
        self.received = 0
        self._spec = spec
        self._folder = folder
        self._name = name
        self._reading = reading
        self._stop = threading.Event()
        self._file: RawIOBase | None = None
        self._file_bytes = min(_FILE_BYTES, spec.capacity_mb * 1e6 / 4)
        #: Ids and contents of messages that are on disk; and the content of the one, of an earlier process, of which it
        #: is not known whether it was acknowledged: the last.
        self._known: deque[tuple[int, bytes]] = deque(maxlen=_REMEMBERED)
        self._last: bytes | None = None
        self._client: Client | None = None

    def start(self) -> None:
        """Connect, and go on connecting whenever the connection is lost.

        Raises
        ------
        FedtpError
            If paho-mqtt is not installed, or the settings cannot be used.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if files := self._files():
            self._last = _mark(files[-1].read_bytes().rstrip(b"\n").rpartition(b"\n")[2])
        self._client = self._made()
        self._client.connect_async(self._spec.host, self._spec.port)
        self._client.loop_start()

    def stop(self) -> None:
        """Leave the broker; it keeps what comes meanwhile."""
        self._stop.set()
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _made(self) -> Client:
        try:
            from paho.mqtt import client as mqtt
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise FedtpError('source.kind is "mqtt", which needs paho-mqtt: pip install "fedtp[mqtt]"') from None
        spec = self._spec
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"fedtp-{self._name}",
            clean_session=False,
            manual_ack=True,
        )
        try:
            if spec.user:
                password = Path(spec.password_file).read_text("utf-8").strip() if spec.password_file else None
                client.username_pw_set(spec.user, password)
            if spec.ca_file:
                client.tls_set(spec.ca_file, spec.cert_file or None, spec.key_file or None)
        except (OSError, ValueError) as error:
            raise FedtpError(f"the broker's password or certificate cannot be read: {error}") from None
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_message = self._came
        return client

    def _connected(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        where = f"{self._spec.host}:{self._spec.port}"
        if reason.is_failure:
            log.warning("the broker %s refuses this device: %s", where, reason)
            return
        log.info("connected to the broker %s, topic %s", where, self._spec.topic)
        client.subscribe(self._spec.topic, qos=1)

    def _subscribed(self, _client: Any, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        for reason in reasons:
            if reason.is_failure:
                log.warning("the broker does not let this device read the topic %s: %s", self._spec.topic, reason)

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._stop.is_set():
            log.warning("the connection to the broker was lost (%s): trying again", reason)

    def _came(self, client: Any, _data: Any, message: MQTTMessage) -> None:
        """Write a message down and acknowledge it; let the broker wait while there is no room."""
        line = _line(bytes(message.payload))
        told = False
        while not self._stop.is_set():
            try:
                if message.retain or (message.dup and self._is_known(message.mid, line)):
                    break
                if self._waiting() < self._spec.capacity_mb * 1e6:
                    self._write(line)
                    self._known.append((message.mid, _mark(line)))
                    self._last = None
                    break
                said = f"{self._spec.capacity_mb:g} MB of messages wait to be learnt from"
            except OSError as error:
                said = f"messages cannot be written to {self._folder}: {error.strerror}"
            if not told:
                log.warning("%s: the broker has to keep more", said)
                told = True
            self._stop.wait(_WAIT)
        else:
            return
        self.received += 1
        client.ack(message.mid, message.qos)

    def _is_known(self, mid: int, line: bytes) -> bool:
        """Say whether a message that comes again is on disk."""
        last, self._last = self._last, None
        return (mid, _mark(line)) in self._known or _mark(line) == last

    def _write(self, line: bytes) -> None:
        if self._file is None or self._file.tell() > self._file_bytes:
            if self._file is not None:
                self._file.close()
            # Without a buffer, which would write what could not be written once more.
            self._file = self._next().open("ab", buffering=0)
        before, rest = self._file.seek(0, os.SEEK_END), line + b"\n"
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):  # half a line must not become part of the next one
                self._file.truncate(before)
            raise

    def _next(self) -> Path:
        """Return a file whose name follows those of all others here, and remove what has been read."""
        reading = self._reading()
        for path in self._files():
            if path.name < reading:
                path.unlink(missing_ok=True)
        last = max((path.name for path in self._files()), default="")
        number = int(match[1]) if (match := re.fullmatch(r"mqtt-(\d+)\.jsonl", last)) else 0
        return self._folder / f"mqtt-{max(number + 1, time.time_ns() // 1_000_000):015d}.jsonl"

    def _waiting(self) -> int:
        """Return how many bytes are in the files that have not been read to their ends."""
        reading = self._reading()
        return sum(path.stat().st_size for path in self._files() if path.name >= reading)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("mqtt-*.jsonl"))


def _line(payload: bytes) -> bytes:
    """Return a message as one line: JSON may have line ends between its parts; what is no JSON becomes a bad row."""
    try:
        return json.dumps(json.loads(payload)).encode()
    except (ValueError, RecursionError):
        return payload.replace(b"\r", b" ").replace(b"\n", b" ") or b" "


def _mark(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()
