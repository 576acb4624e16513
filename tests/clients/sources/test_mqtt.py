"""Rows from a broker: Mosquitto on loopback, and what happens when it or the device is away."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt import client as mqtt
from paho.mqtt import publish
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from clients.sources import mqtt as module
from clients.sources.directory import DirectoryStream
from clients.sources.mqtt import Subscriber
from clients.sources.settings import SourceSpec
from fedtp.data.schema import Schema
from server.federation.certificates import write_authority, write_server

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
SCHEMA = Schema(features=("a", "b"), label="y", classes=("no", "yes"))

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="Mosquitto is not installed (apt-get install mosquitto)")


class Broker:
    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.config = folder / "mosquitto.conf"
        self.config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 10000\n")
        with self.config.open("a") as config:
            config.writelines(f"{line}\n" for line in lines)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([str(MOSQUITTO), "-c", str(self.config)], stderr=subprocess.DEVNULL)
        until(lambda: socket.socket().connect_ex(("127.0.0.1", self.port)) == 0)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def send(self, *rows: object) -> None:
        messages = [
            {"topic": "garden/1", "payload": row if isinstance(row, bytes) else json.dumps(row), "qos": 1}
            for row in rows
        ]
        publish.multiple(messages, hostname="127.0.0.1", port=self.port)


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path)
    one.start()
    yield one
    one.stop()


@pytest.fixture
def subscribe(broker: Broker, tmp_path: Path) -> Iterator[Callable[..., Subscriber]]:
    made: list[Subscriber] = []

    def start(reading: Callable[[], str] = lambda: "", **settings: object) -> Subscriber:
        spec = SourceSpec(kind="mqtt", topic="garden/+", port=broker.port, **settings)
        made.append(Subscriber(spec, tmp_path / "data", "one", reading))
        made[-1].start()
        until(lambda: made[-1]._client is not None and made[-1]._client.is_connected())
        return made[-1]

    yield start
    for one in made:
        one.stop()


def row(number: int) -> dict[str, object]:
    return {"a": number, "b": 0.5, "y": "yes"}


def numbers(folder: Path) -> list[int]:
    return [int(a) for a, _ in DirectoryStream(folder, SCHEMA).take(0.0).x]


@needs_mosquitto
def test_messages_become_rows(broker: Broker, subscribe, tmp_path: Path) -> None:
    one = subscribe()
    broker.send(row(1), b'{"a": 2,\n "b": 1, "y": "no"}', b"no\njson", b"")
    until(lambda: one.received == 4)
    stream = DirectoryStream(tmp_path / "data", SCHEMA)
    assert stream.take(1.0).x.tolist() == [[1, 0.5], [2, 1]]
    assert [bad.row for bad in stream.bad] == ["no json"]


def certify(folder: Path, name: str) -> None:
    """Write a certificate for a client, and its key."""
    key, now = ec.generate_private_key(ec.SECP384R1()), datetime.now(UTC)
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(signer, hashes.SHA384())
    )
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(made.public_bytes(pem))
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))


@needs_mosquitto
def test_a_broker_that_knows_devices_by_their_certificates(tmp_path: Path) -> None:
    write_authority(tmp_path / "ca.crt", tmp_path / "ca.key")
    write_server(tmp_path, ["127.0.0.1"])
    certify(tmp_path, "one")
    files = ("cafile ca.crt", "certfile server.pem", "keyfile server.key")
    paths = [f"{option} {tmp_path / name}" for option, name in (line.split() for line in files)]
    # As root, Mosquitto gives up its rights before it reads the key.
    broker = Broker(tmp_path, *paths, "require_certificate true", f"user {getpass.getuser()}")
    own = {"ca_file": "ca.crt", "cert_file": "one.pem", "key_file": "one.key"}
    spec = SourceSpec(
        kind="mqtt", topic="garden/+", port=broker.port, **{key: str(tmp_path / name) for key, name in own.items()}
    )
    subscribers = [
        Subscriber(one, tmp_path / "data", "one", lambda: "")
        for one in (spec, spec.model_copy(update={"cert_file": "", "key_file": ""}))
    ]
    try:
        broker.start()
        for subscriber in subscribers:
            subscriber.start()
        known, unknown = (subscriber._client for subscriber in subscribers)
        until(lambda: known is not None and known.is_connected())
        time.sleep(1)
        assert unknown is not None
        assert not unknown.is_connected()
    finally:
        for subscriber in subscribers:
            subscriber.stop()
        broker.stop()


@needs_mosquitto
def test_what_comes_while_the_device_is_away_is_kept_by_the_broker(broker: Broker, subscribe, tmp_path: Path) -> None:
    one = subscribe()
    broker.send(row(1))
    until(lambda: one.received == 1)
    one.stop()
    broker.send(row(2), row(3))
    two = subscribe()
    until(lambda: two.received == 2)
    assert numbers(tmp_path / "data") == [1, 2, 3]


@needs_mosquitto
def test_it_connects_again(broker: Broker, subscribe, tmp_path: Path) -> None:
    one = subscribe()
    broker.stop()
    until(lambda: not one._client.is_connected())
    broker.start()
    until(lambda: one._client.is_connected(), 30)
    time.sleep(0.2)
    broker.send(row(7))
    until(lambda: one.received == 1)
    assert numbers(tmp_path / "data") == [7]


@needs_mosquitto
def test_a_message_that_was_written_and_not_acknowledged_is_written_once(
    broker, subscribe, tmp_path, monkeypatch
) -> None:
    acknowledge = mqtt.Client.ack
    monkeypatch.setattr(mqtt.Client, "ack", lambda *_: mqtt.MQTT_ERR_SUCCESS)
    one = subscribe()
    broker.send(row(1))
    until(lambda: one.received == 1)
    one.stop()
    monkeypatch.setattr(mqtt.Client, "ack", acknowledge)
    two = subscribe()
    until(lambda: two.received == 1)
    broker.send(row(1))  # the same again, but another message
    until(lambda: two.received == 2)
    assert numbers(tmp_path / "data") == [1, 1]


@needs_mosquitto
def test_what_the_broker_retains_is_no_new_row(broker: Broker, subscribe, tmp_path: Path) -> None:
    publish.single("garden/1", json.dumps(row(1)), qos=1, retain=True, hostname="127.0.0.1", port=broker.port)
    for number in (2, 3):
        one = subscribe()
        broker.send(row(number))
        until(lambda one=one: one.received == 2)
        one.stop()
    assert numbers(tmp_path / "data") == [2, 3]


def test_a_disk_that_is_full_for_a_while_doubles_nothing(tmp_path: Path, monkeypatch) -> None:
    one = Subscriber(SourceSpec(kind="mqtt", topic="t"), tmp_path, "one", lambda: "")
    fails = [OSError(28, "No space left on device")] * 3
    monkeypatch.setattr(module.os, "fsync", lambda _: (_ for _ in ()).throw(fails.pop()) if fails else None)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            one._write(b'{"a": 1, "b": 2}')
    one._write(b'{"a": 1, "b": 2}')
    assert numbers(tmp_path) == [1]


@needs_mosquitto
def test_without_room_the_broker_keeps_messages(broker: Broker, subscribe, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_FILE_BYTES", 100)
    monkeypatch.setattr(module, "_WAIT", 0.02)
    reading = [""]
    one = subscribe(lambda: reading[0], capacity_mb=0.0005)
    broker.send(*map(row, range(40)))
    time.sleep(0.5)
    files = sorted((tmp_path / "data").iterdir())
    before = one.received
    assert 10 < before < 20
    assert sum(path.stat().st_size for path in files) < 700
    stream = DirectoryStream(tmp_path / "data", SCHEMA)
    taken: list[int] = []
    deadline = time.monotonic() + 15
    while len(taken) < 40 and time.monotonic() < deadline:
        taken += [int(a) for a, _ in stream.take(0.0).x]
        reading[0] = stream.cursor["file"]
        time.sleep(0.02)
    assert taken == list(range(40))
    assert len(list((tmp_path / "data").iterdir())) < 20


def test_a_refused_subscription_is_said(tmp_path: Path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(module.log, "warning", lambda text, *given: said.append(text % given))
    one = Subscriber(SourceSpec(kind="mqtt", topic="garden/+"), tmp_path / "data", "one", lambda: "")
    granted, refused = (ReasonCode(PacketTypes.SUBACK, identifier=code) for code in (1, 0x87))
    one._subscribed(None, None, 1, [granted], None)
    assert said == []
    one._subscribed(None, None, 1, [refused], None)
    assert said == ["the broker does not let this device read the topic garden/+: Not authorized"]


def test_without_a_broker_it_goes_on_trying(tmp_path: Path) -> None:
    one = Subscriber(SourceSpec(kind="mqtt", topic="t", port=1), tmp_path / "data", "one", lambda: "")
    one.start()
    time.sleep(0.1)
    one.stop()
    assert not list((tmp_path / "data").iterdir())
