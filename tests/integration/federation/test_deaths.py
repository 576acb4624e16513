"""Processes die, one after the other and all at once: the federation goes on, and nothing is learnt twice or lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.federation

TWO = "devices.0.count=2"


def test_whatever_dies_the_federation_goes_on(federation: Callable[..., Any]) -> None:
    """ServerApp, SuperLink, SuperNode and ClientApp are killed, one after the other."""
    fed = federation(TWO, "server.rounds=12", "server.round_seconds=20")
    one, two = fed.devices
    left = [
        (2, fed.path, "flwr-serverapp"),
        (4, fed.path, "server.federation.link"),
        (6, one, "clients.federation.node"),
        (8, two, "flwr-clientapp"),
    ]

    def look(status: dict[str, Any]) -> None:
        if left and status["round"] >= left[0][0] and fed.kill(*left[0][1:]):
            left.pop(0)

    fed.start()
    run = fed.learn(look)
    assert not left
    assert run.summary["rounds"] == 12
    # A round in flight is lost at each death, and for the minute in which Flower thinks that a device is still there.
    assert run.summary["updates_accepted"] >= 12, fed.logs()
    assert run.summary["final_accuracy"] > 0.6
    assert "the ServerApp died; a new one goes on from the last checkpoint" in fed.said("server")
    assert "superlink was ended by signal 9 (SIGKILL)" in fed.said("server")
    assert "supernode was ended by signal 9 (SIGKILL)" in fed.said(one.name)
    fed.end()
    fed.assert_nothing_lost(run)


def test_after_all_died_at_once_it_goes_on(federation: Callable[..., Any]) -> None:
    fed = federation(TWO, "server.rounds=6")
    fed.start()
    fed.until(lambda: fed.status()["round"] >= 3, 180)
    fed.kill_all()
    before = fed.status()["round"]
    assert before >= 3
    fed.start()
    run = fed.learn()
    assert run.rounds["round"].to_list() == list(range(1, 7))
    fed.end()
    fed.assert_nothing_lost(run)
