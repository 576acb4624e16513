"""Certificates are those that TLS libraries accept, and only where they should."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clients.federation.connection import why_not
from fedtp.errors import FedtpError
from server.federation.certificates import expiry, write_authority, write_server

Serve = Callable[..., int]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    write_authority(tmp_path / "ca.crt", tmp_path / "ca.key")
    write_server(tmp_path, ["example.org", "10.1.2.3"])
    return tmp_path


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer each connection by a text, over TLS or without."""
    listeners: list[socket.socket] = []

    def start(keys: Path | None, answer: str = "HTTP/1.1 404 Not Found\r\n\r\n") -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        context = None
        if keys is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(keys / "server.pem", keys / "server.key")

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                try:
                    with connection if context is None else context.wrap_socket(connection, server_side=True) as secure:
                        secure.recv(4096)
                        secure.sendall(answer.encode())
                except OSError:
                    connection.close()

        threading.Thread(target=run, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.close()


def test_a_server_with_its_certificate_is_reached(keys: Path, serve: Serve) -> None:
    port = serve(keys)
    for host in ("127.0.0.1", "localhost"):
        assert why_not(f"{host}:{port}", keys / "ca.crt") is None


def test_another_authority_is_not_believed(keys: Path, serve: Serve, tmp_path: Path) -> None:
    write_authority(tmp_path / "other.crt", tmp_path / "other.key")
    said = why_not(f"127.0.0.1:{serve(keys)}", tmp_path / "other.crt")
    assert said is not None
    assert "not signed by the authority in ca.crt" in said


def test_a_certificate_that_has_ended_is_refused(keys: Path, serve: Serve) -> None:
    write_server(keys, [], days=-1)
    said = why_not(f"127.0.0.1:{serve(keys)}", keys / "ca.crt")
    assert said is not None
    assert "has ended" in said
    assert expiry(keys / "server.pem") < datetime.now(UTC)


def test_a_certificate_is_for_its_addresses(keys: Path, serve: Serve) -> None:
    said = why_not(f"127.0.0.2:{serve(keys)}", keys / "ca.crt")
    assert said is not None
    # The listener is at 127.0.0.1 alone.
    assert "nothing listens there" in said
    port = serve(keys)
    context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
    for name, fits in (("example.org", True), ("10.1.2.3", True), ("example.com", False), ("10.1.2.4", False)):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            if fits:
                context.wrap_socket(connection, server_hostname=name).close()
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    context.wrap_socket(connection, server_hostname=name)


def test_tls_and_plain_http_do_not_meet(keys: Path, serve: Serve) -> None:
    said = why_not(f"127.0.0.1:{serve(None)}", keys / "ca.crt")
    assert said is not None
    assert "the server speaks plain HTTP" in said
    said = why_not(f"127.0.0.1:{serve(keys)}", None)
    assert said is not None
    assert "the server only speaks TLS" in said
    assert why_not(f"127.0.0.1:{serve(None)}", None) is None


@pytest.mark.parametrize(
    ("hours", "said"), [(0, None), (-1, "3,6.. s ahead of the server's"), (1, "3,[56].. s behind the server's")]
)
def test_clocks_are_compared(keys: Path, serve: Serve, hours: int, said: str | None) -> None:
    then = datetime.now(UTC) + timedelta(hours=hours)
    port = serve(keys, f"HTTP/1.1 200 OK\r\ndate: {then:%a, %d %b %Y %H:%M:%S GMT}\r\n\r\n")
    found = why_not(f"127.0.0.1:{port}", keys / "ca.crt")
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(said, found)


def test_where_nobody_is(keys: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "nothing listens there" in (why_not(f"127.0.0.1:{port}", keys / "ca.crt") or "")
    assert "there is no host" in (why_not("no.such.host.invalid:1", None) or "")


def test_an_authority_that_is_none_is_named(keys: Path, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    assert "is not the certificate of an authority" in (why_not(f"127.0.0.1:{serve(None)}", tmp_path / "ca.crt") or "")
    with pytest.raises(FedtpError, match="cannot be read"):
        write_server(tmp_path, [])
    with pytest.raises(FedtpError, match="is not a certificate"):
        expiry(tmp_path / "ca.crt")
