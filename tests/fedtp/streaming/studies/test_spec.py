from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtp.errors import FedtpError
from fedtp.streaming.studies.spec import Call, Pipe, named, parse, short


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("tp", Call("tp")),
        (" tp() ", Call("tp")),
        ("no-change", Call("no-change")),
        ("random-rbf-drift(change_speed=0.1)", Call("random-rbf-drift", (), {"change_speed": 0.1})),
        ("a.b.C(-1, x=None)", Call("a.b.C", (-1,), {"x": None})),
        ("a|b.C|d(x='|')", Pipe((Call("a"), Call("b.C"), Call("d", (), {"x": "|"})))),
        ("a(b.C)", Call("a", (Call("b.C"),))),
        ("a(m=b.C(1) | d.E)", Call("a", (), {"m": Pipe((Call("b.C", (1,)), Call("d.E")))})),
        ("a([b.C(), 2])", Call("a", ([Call("b.C"), 2],))),
    ],
)
def test_parse(text: str, node: object) -> None:
    assert parse(text) == node


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "a b",
        "a(",
        "a(x)",
        "a(**b)",
        "a(*b)",
        "a(1)(2)",
        "a[0]",
        "lambda: 0",
        "a + b",
        "a(x=1+n)",
        "'a'",
        "a=1",
    ],
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(FedtpError, match="cannot be read"):
        parse(text)


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(FedtpError):
        assert isinstance(parse(text), Call | Pipe)


def test_names() -> None:
    assert named("mine = a(x=1)") == ("mine", "a(x=1)")
    assert named("a(x=1)") == (None, "a(x=1)")
    assert named("a | b(x=1)") == (None, "a | b(x=1)")


def test_short() -> None:
    assert short(parse("a.b.C(x.Y(1), z='s') | d.E")) == "C(Y(1), z='s') | E"
