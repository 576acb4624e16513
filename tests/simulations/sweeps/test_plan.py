from __future__ import annotations

import pytest

from fedtp.errors import ScenarioError
from simulations import Scenario
from simulations.sweeps.plan import Plan


def test_every_combination_with_every_seed() -> None:
    plan = Plan.make("digits-rotating", ["learner.lr=0.5,1", "server.fraction=0.2,0.4,1"], seeds=2, seed=5)
    assert plan.seeds == (5, 6)
    assert len(plan.trials) == 12
    found = {
        (trial.scenario.learner.lr, trial.scenario.server.fraction, trial.scenario.run.seed) for trial in plan.trials
    }
    assert found == {(lr, fraction, seed) for lr in (0.5, 1.0) for fraction in (0.2, 0.4, 1.0) for seed in (5, 6)}
    assert len({trial.name for trial in plan.trials}) == 12
    assert [trial.scenario.run.seed for trial in plan.trials] == [5] * 6 + [6] * 6


def test_a_run_is_what_simulate_would_run() -> None:
    plan = Plan.make("digits-rotating", ["learner.hidden=[8],[8,4]"], overrides=["server.rounds=50"], seed=3)
    expected = Scenario.load("digits-rotating", ["server.rounds=50", "learner.hidden=[8, 4]"], 3)
    assert plan.trials[1].scenario == expected
    assert plan.trials[1].scenario.learner.seed == 3


def test_without_variation_a_scenario_is_repeated() -> None:
    plan = Plan.make("digits-rotating", seeds=3)
    assert {trial.setting for trial in plan.trials} == {"digits-rotating"}
    assert [trial.name for trial in plan.trials] == [f"1-digits-rotating-seed-{seed}" for seed in (1, 2, 3)]


def test_names_are_as_short_as_they_can_be() -> None:
    plan = Plan.make("digits-rotating", ["devices.0.count=1,2", "devices.1.count=3", "learner.lr=1"])
    assert plan.trials[0].setting == "0.count=1, 1.count=3, lr=1"


def test_what_follows_a_sweep_is_told_by_its_record() -> None:
    def record(**changes: object) -> dict[str, object]:
        return Plan.make("digits-rotating", **{"vary": ["learner.lr=0.5,1"], **changes}).record()  # type: ignore[arg-type]

    assert record() == record()
    others = [
        record(seeds=2),
        record(seed=2),
        record(vary=["learner.lr=1,0.5"]),
        record(overrides=["server.rounds=99"]),
    ]
    assert all(other != record() for other in others)


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["learner.lr=1,fast"], '--vary learner.lr=fast: learner.lr is "fast", but must be a finite number, above 0'),
        (["learner.hiden=[1],[2]"], "--vary learner.hiden=[1]: learner.hiden is not a known key"),
        (["server.rounds=60,2"], "must be before the end of the run at 120"),
        (["learner.lr=1,1.0"], "lr=1 and lr=1.0 are the same scenario: leave one of them out"),
        (["learner.lr=1,2", "learner.lr=3"], "--vary learner.lr: it is there twice"),
        (["run.seed=1,2"], "--vary run.seed: --seeds says how many seeds there are"),
        (["devices.9.count=1,2"], "--vary devices.9.count=1: devices is a list of"),
        ([f"learner.lr={','.join(map(str, range(1, 10_002)))}"], "a sweep of 10,001 runs is more than 10,000"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(vary: list[str], message: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        Plan.make("digits-rotating", vary)
    assert message in str(refused.value)
    assert "--set" not in str(refused.value)
