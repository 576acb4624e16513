"""Devices that the server refuses, and servers that a device refuses: the reason is on the device's screen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from server.federation.certificates import expiry, write_authority, write_device, write_server

pytestmark = pytest.mark.federation


def test_a_foreign_key_a_foreign_authority_and_plain_http_are_refused(
    tmp_path: Path, federation: Callable[..., Any]
) -> None:
    fed = federation("devices.0.count=4", "server.rounds=1000", "server.round_seconds=10")
    honest, key, authority, plain = fed.devices
    fed.alter("server", "min_devices = 4", "min_devices = 1")
    (key / "device.key").unlink()
    write_device(key / "device.key", tmp_path / "foreign.pub")
    write_authority(authority / "ca.crt", tmp_path / "foreign.key")
    fed.alter(plain.name, "insecure = false", "insecure = true")
    fed.start()
    said = {
        key: "the server refuses it: it does not know the key",
        authority: "the server's certificate is not signed by the authority in ca.crt",
        plain: "the server only speaks TLS, and this device plain HTTP",
    }
    fed.until(lambda: all(sentence in fed.said(own.name) for own, sentence in said.items()), 180)
    fed.until(lambda: fed.status()["devices"].get(honest.name, {}).get("samples"), 120)
    assert list(fed.status()["devices"]) == [honest.name]
    assert "INSECURE" in fed.said(plain.name)


def test_a_server_without_tls_is_refused(federation: Callable[..., Any]) -> None:
    fed, secure = federation("devices.0.count=1", insecure=True), federation("devices.0.count=1")
    (own,) = secure.devices
    secure.alter(own.name, f":{secure.made.spec().network.port}", f":{fed.made.spec().network.port}")
    fed.start("server")
    assert_said = "the server speaks plain HTTP, and this device only TLS"
    secure.start(own.name)
    secure.until(lambda: assert_said in secure.said(own.name), 120)
    assert "INSECURE" in fed.said("server")


def test_a_certificate_that_ends_is_refused_until_it_is_renewed(federation: Callable[..., Any]) -> None:
    fed = federation("devices.0.count=1", "server.rounds=1000", "server.round_seconds=10")
    (own,) = fed.devices
    write_server(fed.made.server, ["127.0.0.1"], days=40 / 86_400)
    fed.start("server")
    fed.until(lambda: "the server's certificate ends on" in fed.said("server"), 60)
    fed.until(lambda: datetime.now(UTC) > expiry(fed.made.server / "server.pem"), 60)
    fed.start(own.name)
    fed.until(lambda: "the server's certificate has ended: renew it there" in fed.said(own.name), 60)
    write_server(fed.made.server, ["127.0.0.1"])
    fed.made.write_wish("learn")
    fed.until(lambda: fed.status()["devices"].get(own.name, {}).get("samples"), 180)
    assert "a new certificate: the SuperLink is started again with it" in fed.said("server")
    fed.until(lambda: "can be reached again" in fed.said(own.name), 30)
