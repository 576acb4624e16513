"""The limit on what a request brings, before it is in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from server.federation.link import SizeLimit


@pytest.fixture
def client() -> TestClient:
    async def length(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    routes = [Route("/", length, methods=["POST"])]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(SizeLimit, most_bytes=1000)]))


def parts(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(100)


@pytest.mark.parametrize("body", [bytes(1000), b""])
def test_what_fits_passes(client: TestClient, body: bytes) -> None:
    answer = client.post("/", content=body)
    assert (answer.status_code, answer.text) == (200, str(len(body)))


def test_what_comes_in_parts_passes(client: TestClient) -> None:
    assert client.post("/", content=parts(10)).text == "1000"


@pytest.mark.parametrize("length", ["1001", "99999999999999999999", "-1", "many"])
def test_what_says_that_it_is_too_large_is_not_read(client: TestClient, length: str) -> None:
    assert client.post("/", content=b"x", headers={"content-length": length}).status_code == 413


def test_what_turns_out_too_large_is_not_read_on(client: TestClient) -> None:
    assert client.post("/", content=parts(1000)).status_code == 413
