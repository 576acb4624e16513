from __future__ import annotations

import pytest
from pydantic import ValidationError

from fedtp.errors import ModelError
from server.aggregation import aggregation_for
from server.settings import ServerSpec


def test_settings_survive_the_run_config() -> None:
    spec = ServerSpec(
        rounds=3,
        round_seconds=20.0,
        deadline_seconds=15.0,
        fraction=0.5,
        mode="buffered",
        interval_seconds=5.0,
        timeout_seconds=100.0,
        over_selection=0.3,
        quorum=0.5,
        buffer_size=7,
        staleness="hinge",
        staleness_a=10.0,
        staleness_b=2.0,
        lr=0.5,
        strategy="FedTrimmedAvg",
        strategy_options={"beta": 0.25},
    )
    config = spec.to_config()
    assert all(isinstance(value, bool | int | float | str) for value in config.values())
    assert ServerSpec.from_config({**config, "learner.lr": 1.0}) == spec
    assert ServerSpec.from_config(ServerSpec().to_config()) == ServerSpec() == ServerSpec.from_config({})


def test_the_deadline_is_the_end_of_the_round_unless_it_is_given() -> None:
    assert ServerSpec(round_seconds=25.0).deadline_seconds == 25.0


def test_without_rounds_there_is_no_deadline_but_the_time_out() -> None:
    assert ServerSpec(mode="buffered", round_seconds=25.0).deadline_seconds == 75.0
    assert ServerSpec(mode="buffered", round_seconds=25.0, timeout_seconds=200.0).deadline_seconds == 200.0
    assert ServerSpec(mode="buffered", round_seconds=25.0, deadline_seconds=30.0).deadline_seconds == 30.0


@pytest.mark.parametrize(("mode", "rounds"), [("synchronous", 1.5), ("buffered", 3.0)])
def test_the_interval_is_a_round_and_the_time_out_more(mode, rounds: float) -> None:
    spec = ServerSpec(mode=mode, round_seconds=20.0)
    assert (spec.interval_seconds, spec.timeout_seconds) == (20.0, 20.0 * rounds)


@pytest.mark.parametrize(
    "settings",
    [
        {"rounds": 0},
        {"rounds": 1.5},
        {"round_seconds": 0.0},
        {"round_seconds": float("inf")},
        {"deadline_seconds": 61.0},
        {"deadline_seconds": 0.0},
        {"fraction": 0.0},
        {"fraction": 1.1},
        {"strategy": "FedSomething"},
        {"strategy_options": {"beta": 0.1}},
        {"round": 3},
        {"mode": "sometimes"},
        {"interval_seconds": 61.0},
        {"interval_seconds": 0.0},
        {"timeout_seconds": 0.0},
        {"over_selection": -0.1},
        {"quorum": 1.1},
        {"buffer_size": 0},
        {"staleness": "linear"},
        {"staleness_a": -1.0},
        {"staleness_b": -1.0},
        {"lr": 0.0},
    ],
)
def test_what_is_not_allowed_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        ServerSpec.model_validate(settings)
    with pytest.raises(ModelError, match="server"):
        ServerSpec.from_config({f"server.{key}": value for key, value in settings.items()})


def test_every_strategy_that_may_be_named_is_there() -> None:
    for name in ServerSpec.model_fields["strategy"].annotation.__args__:
        aggregation_for(name, {})
