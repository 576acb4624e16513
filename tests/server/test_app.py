from __future__ import annotations

import logging
from pathlib import Path

from fedtp.pretrained import load_pretrained
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


def test_the_app_keeps_the_model_in_the_file_that_the_run_config_names(make_learner, make_grid, tmp_path: Path) -> None:
    grid, learner, done = make_grid({101: lambda _: 0.0}), make_learner(), []
    config = {**learner.spec.to_config(), **ServerSpec(rounds=2).to_config(), "shape": 6, "classes": 3}
    file = tmp_path / "model.safetensors"

    def ended(round_: Round) -> None:
        done.append(round_)
        model = learner.network(learner.initial_weights())
        load_pretrained(model, file)
        for found, expected in zip(model.parameters(), learner.network(round_.weights).parameters(), strict=True):
            assert found.equal(expected)

    make_server_app(grid.clock, ended)(grid, make_context({**config, "model": str(file)}))
    assert len(done) == 2
