"""Flower's SuperLink with a limit on the size of a request, as a process: ``python -m server.federation.link``.

By itself it reads requests of any size into memory. Honest ones are small: Flower cuts arrays into parts of 5 MB.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedtp.supervision import run_as_process

#: Of a request's body. Flower's largest are apps, of up to 10 MB.
MOST_BYTES = 16_000_000


class _TooLarge(Exception):  # noqa: N818
    """A body goes on beyond the limit."""


class SizeLimit:
    """Middleware that answers requests with too large a body by 413, before they are in memory.

    Parameters
    ----------
    app
        What is behind it.
    most_bytes
        Of a body.
    """

    def __init__(self, app: ASGIApp, most_bytes: int = MOST_BYTES) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not told.isdigit() or int(told) > self._most_bytes:
            await _refuse(send)
            return
        read, begun = 0, False

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most_bytes:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, limited, noted)
        except _TooLarge:
            if not begun:
                await _refuse(send)


async def _refuse(send: Send) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink

    extensions.get_middleware = lambda: (Middleware(SizeLimit),)
    run_as_process(flower_superlink)
