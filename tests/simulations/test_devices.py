from __future__ import annotations

import numpy as np
import pytest

from simulations.devices import CLASSES, Fleet
from simulations.seeding import Purpose, generator
from simulations.specs import DeviceSpec
from simulations.specs.devices import ClassName


def fleet(*groups: DeviceSpec, seed: int = 1) -> Fleet:
    return Fleet.draw(groups, generator(seed, Purpose.FLEET))


def group(name: str, count: int, **overrides: object) -> DeviceSpec:
    return DeviceSpec(device_class=name, count=count, **overrides)


def test_there_is_a_class_for_every_name_that_a_scenario_may_use() -> None:
    assert set(CLASSES) == set(ClassName.__args__)


@pytest.mark.parametrize("name", CLASSES)
def test_devices_spread_about_their_class(name: str) -> None:
    kind, drawn = CLASSES[name], fleet(group(name, 4000))
    assert len(drawn) == 4000
    for speeds, median, sigma in (
        (drawn.flops_per_second, kind.speed_gflops * 1e9, kind.speed_sigma),
        (drawn.down_bytes_per_second, kind.down_mbps * 1e6 / 8, kind.down_sigma),
        (drawn.up_bytes_per_second, kind.up_mbps * 1e6 / 8, kind.up_sigma),
    ):
        assert np.median(speeds) == pytest.approx(median, rel=0.08)
        assert np.std(np.log(speeds)) == pytest.approx(sigma, rel=0.08, abs=1e-9)
    assert (drawn.power_watts == kind.power_watts).all()
    assert (drawn.latency_seconds == kind.latency_seconds).all()


def test_groups_follow_one_another() -> None:
    drawn = fleet(group("mcu", 2), group("gateway", 0), group("pi", 3))
    assert drawn.classes == ("mcu", "mcu", "pi", "pi", "pi")
    assert drawn.power_watts.tolist() == [0.3, 0.3, 5.0, 5.0, 5.0]


def test_a_scenario_may_override_the_constants_of_a_class() -> None:
    drawn = fleet(
        group(
            "pi", 500, speed_gflops=100.0, down_mbps=1.0, up_mbps=2.0, loss_probability=0.25, availability="duty-cycle"
        )
    )
    assert np.median(drawn.flops_per_second) == pytest.approx(100e9, rel=0.1)
    assert np.median(drawn.up_bytes_per_second / drawn.down_bytes_per_second) == pytest.approx(2.0, rel=0.2)
    assert (drawn.loss_probability == 0.25).all()
    assert (drawn.off_seconds == CLASSES["pi"].off_seconds).all()


def test_the_same_seed_draws_the_same_fleet() -> None:
    one, same, other = (fleet(group("pi", 20), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.flops_per_second, same.flops_per_second)
    assert not np.array_equal(one.flops_per_second, other.flops_per_second)


def test_devices_are_always_there_unless_they_have_a_duty_cycle() -> None:
    drawn = fleet(group("pi", 50))
    assert all(drawn.available(now).all() for now in np.linspace(0, 1e6, 101))


def test_a_duty_cycle_lasts_as_long_as_it_says() -> None:
    drawn = fleet(group("pi", 40, availability="duty-cycle", on_seconds=90.0, off_seconds=30.0))
    there = np.array([drawn.available(now) for now in range(1200)])
    np.testing.assert_allclose(there.mean(0), 0.75, atol=0.01)
    np.testing.assert_array_equal(there[:-120], there[120:])
    # One stretch on and one off in every period, at phases of their own.
    assert (np.abs(np.diff(there.astype(int), axis=0)).sum(0) <= 20).all()
    assert len({tuple(column) for column in there.T}) > 30
    assert 0.5 < there[0].mean() < 1.0
