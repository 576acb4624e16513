"""Noise on a whole fleet: what it costs, and that a run with it is reproduced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from server.privacy import privacy_loss
from simulations import Scenario, simulate

FLEET = ["devices=[{class='pi',count=200}]", "drift=[]", "server.rounds=15", "arrival.rate=0.25"]
NOISY = [*FLEET, "privacy.clip=1.0", "privacy.noise=2.0"]


def test_a_fleet_learns_with_noise_and_the_report_tells_what_it_tells(tmp_path: Path) -> None:
    run, open_run = simulate(Scenario.load("sea-sudden", NOISY)), simulate(Scenario.load("sea-sudden", FLEET))
    assert open_run.summary["epsilon"] is None
    most = max(run.devices.filter(run.devices["status"] == "accepted").group_by("device").len()["len"])
    assert run.summary["epsilon"] == pytest.approx(privacy_loss(2.0, most, 1e-5))
    assert run.summary["updates_refused"] == 0
    assert open_run.summary["final_accuracy"] - run.summary["final_accuracy"] < 0.06
    assert "Privacy loss" in run.save(tmp_path / "run").read_text()
    assert "Privacy loss" not in open_run.save(tmp_path / "open").read_text()


def test_the_noise_follows_from_the_scenario_in_a_simulation() -> None:
    short = [*NOISY, "server.rounds=3"]
    one, two = simulate(Scenario.load("sea-sudden", short)), simulate(Scenario.load("sea-sudden", short))
    assert all((one.weights[name] == two.weights[name]).all() for name in one.weights)
    other = simulate(Scenario.load("sea-sudden", short, seed=2))
    assert not any(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_no_update_goes_further_than_its_bound() -> None:
    """All devices clip, on what all executors compute: none is refused, and the fleet moves at most so far a round."""
    short = [*FLEET, "server.rounds=2", "privacy.clip=0.05"]
    once, twice = (simulate(Scenario.load("sea-sudden", [*short, f"server.rounds={n}"])) for n in (1, 2))
    moved = sum(float(np.square(twice.weights[name] - once.weights[name]).sum()) for name in once.weights) ** 0.5
    assert 0 < moved <= 0.05 * 1.001
    assert twice.summary["refusals"] == {}
