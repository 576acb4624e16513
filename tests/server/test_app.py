from __future__ import annotations

import logging

from server.app import make_server_app
from server.round import Round
from server.settings import ServerSpec
from simulations.flower import make_context


def test_the_app_reads_its_settings_from_the_run_config(make_learner, make_grid, caplog) -> None:
    """By the computer's own clock, with the log that a real server writes."""
    caplog.set_level(logging.INFO, "flwr")
    grid = make_grid({101: lambda _: 0.0, 102: lambda _: float("inf")})
    spec = ServerSpec(rounds=3, round_seconds=0.05, deadline_seconds=0.02)
    config = {**make_learner().spec.to_config(), **spec.to_config(), "shape": 6, "classes": 3}
    make_server_app()(grid, make_context(config))
    assert grid.rounds_of(101) == [1, 2, 3]
    assert "round 3: 2 orders, 1 replies, 1 aggregations, accuracy 0.700" in caplog.text


def test_the_app_calls_back_after_every_round(make_learner, make_grid) -> None:
    grid = make_grid({101: lambda _: 0.0})
    config = {
        **make_learner().spec.to_config(),
        **ServerSpec(rounds=2).to_config(),
        "shape": 6,
        "classes": 3,
    }
    done: list[Round] = []
    make_server_app(grid.clock, done.append)(grid, make_context(config))
    assert [round_.number for round_ in done] == [1, 2]
