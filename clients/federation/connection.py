"""Whether the server can be reached, and in a sentence why not: Flower itself only tries again and again."""

from __future__ import annotations

import re
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

_SECONDS = 5.0
#: OpenSSL's codes of what is wrong with a certificate (``openssl verify``).
_EXPIRED, _NOT_YET, _OTHER_HOST, _OTHER_ADDRESS = 10, 9, 62, 64
#: How far a device's clock may be ahead of the server's, or behind, s, before Flower refuses what it signs; its own
#: limits are 5 s and 305 s, and the server tells whole seconds.
_AHEAD, _BEHIND = 6.0, 300.0
#: The first byte of a TLS alert.
_ALERT = b"\x15"


def why_not(server: str, authority: Path | None) -> str | None:
    """Return why a server cannot be reached; None if it can.

    Parameters
    ----------
    server
        Host and port.
    authority
        The certificate of the authority that must have signed the server's; None: without TLS.
    """
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), _SECONDS) as connection:
            return _without_tls(connection) if authority is None else _with_tls(connection, host, authority)
    except ssl.SSLCertVerificationError as error:
        return _certificate(error, host)
    except ssl.SSLError as error:
        if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):
            return "the server speaks plain HTTP, and this device only TLS: look for insecure in the files of both"
        return f"TLS failed: {error.reason or error}"
    except socket.gaierror:
        return f"there is no host {host}: look at the address in device.toml"
    except ConnectionRefusedError:
        return "nothing listens there: start the server, or look at the port in device.toml"
    except OSError as error:
        return f"it cannot be reached: {error.strerror or error}"


def _with_tls(connection: socket.socket, host: str, authority: Path) -> str | None:
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        return f"{authority} is not the certificate of an authority ({error}): copy it from the server's host anew"
    with context.wrap_socket(connection, server_hostname=host) as secure:
        return _clock(_asked(secure), time.time())


def _without_tls(connection: socket.socket) -> str | None:
    try:
        first = _asked(connection)[:1]
    except ConnectionResetError:
        first = b""
    if first in (b"", _ALERT):
        return "the server only speaks TLS, and this device plain HTTP: look for insecure in the files of both"
    return None


def _asked(connection: socket.socket) -> bytes:
    """Return the beginning of the answer to a question that any server of HTTP answers."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")
    return connection.recv(4096)


def _clock(answer: bytes, now: float) -> str | None:
    """Compare the time in an answer with this device's: Flower refuses signatures of another time, without a reason."""
    dated = re.search(rb"(?im)^date: *([^\r\n]+)", answer)
    try:
        ahead = now - parsedate_to_datetime(dated[1].decode("ascii")).timestamp() if dated else 0.0
    except ValueError:
        return None
    if -_BEHIND <= ahead <= _AHEAD:
        return None
    off = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    return f"this device's clock is {off}, which refuses what it signs: set it right, and keep it so by NTP"


def _certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code == _EXPIRED:
        return "the server's certificate has ended: renew it there, unless this device's clock is ahead"
    if error.verify_code == _NOT_YET:
        return "the server's certificate is not valid yet: this device's clock is behind"
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return f"the server's certificate is not for {host}: compare the address in device.toml with federation.toml"
    return "the server's certificate is not signed by the authority in ca.crt: copy ca.crt from the server's host anew"
