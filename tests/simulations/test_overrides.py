from typing import Any

import pytest

from fedtp.errors import ScenarioError
from simulations.overrides import apply


def tables() -> dict[str, Any]:
    return {"server": {"rounds": 60}, "devices": [{"class": "pi", "count": 5}], "drift": []}


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("server.rounds=10", ("server", "rounds"), 10),
        ("server.rounds = 1_000 ", ("server", "rounds"), 1000),
        ("learner.lr=0.5", ("learner", "lr"), 0.5),
        ("learner.hidden=[64, 32]", ("learner", "hidden"), [64, 32]),
        ("learner.method=backprop", ("learner", "method"), "backprop"),
        ('learner.method="backprop"', ("learner", "method"), "backprop"),
        ("data.path=/a/b=c", ("data", "path"), "/a/b=c"),
        ("title=", ("title",), ""),
        ("title=2024-01-01", ("title",), "2024-01-01"),
        ("title=1\nx = 2", ("title",), "1\nx = 2"),
        ("learner.normalize=false", ("learner", "normalize"), False),
        ("devices.0.count=7", ("devices", 0, "count"), 7),
        ("devices.1.count=7", ("devices", 1, "count"), 7),
        ("drift.0.kind=sudden", ("drift", 0, "kind"), "sudden"),
        ("more.0.kind=sudden", ("more", 0, "kind"), "sudden"),
        ("concepts.tilted.degrees=45", ("concepts", "tilted", "degrees"), 45),
        ('server.strategy_options={a = 1, b = "c"}', ("server", "strategy_options"), {"a": 1, "b": "c"}),
    ],
)
def test_put(text: str, path: tuple[Any, ...], value: object) -> None:
    changed = tables()
    (override,) = apply([text], changed)
    place: Any = changed
    for part in path:
        place = place[part]
    assert place == value
    assert type(place) is type(value)
    assert override.path == path


def test_later_wins() -> None:
    changed = tables()
    apply(["server.rounds=1", "server.rounds=2"], changed)
    assert changed["server"]["rounds"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server.rounds", "write key=value"),
        ("=3", "write key=value"),
        ("server..rounds=3", "write key=value"),
        (
            "devices.count=3",
            "devices is a list of 1: write one of devices.0 to devices.1, where the last appends",
        ),
        ("devices.2.count=3", "devices is a list of 1"),
        ("devices.-1.count=3", "devices is a list of 1"),
        ("drift.kind=sudden", "drift is a list of 0: write drift.0"),
        ("server.rounds.x=3", "server.rounds is 60, not a table with keys"),
    ],
)
def test_no_way(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        apply([text], tables())
    assert str(caught.value).startswith(f"--set {text}: {message}")
