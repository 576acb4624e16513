"""The devices that are drawn are those of their classes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from clients.budget import BlockPlan
from fedtp.errors import DataError
from simulations.devices import CLASSES, LINKS, Fleet
from simulations.seeding import Purpose, generator
from simulations.specs import DeviceSpec
from simulations.specs.devices import ClassName, NetworkName, PlanName


def fleet(*groups: DeviceSpec, seed: int = 1) -> Fleet:
    return Fleet.draw(groups, generator(seed, Purpose.FLEET))


def group(name: str, count: int, **overrides: object) -> DeviceSpec:
    return DeviceSpec(device_class=name, count=count, **overrides)


def test_there_is_a_class_a_link_and_a_plan_for_every_name_that_a_scenario_may_use() -> None:
    assert PlanName.__args__ == BlockPlan.__args__
    assert set(CLASSES) == set(ClassName.__args__)
    assert set(LINKS) == set(NetworkName.__args__)


@pytest.mark.parametrize("name", CLASSES)
def test_devices_spread_about_their_class(name: str) -> None:
    kind, drawn = CLASSES[name], fleet(group(name, 4000))
    link = LINKS[kind.network]
    assert len(drawn) == 4000
    for amounts, median, sigma in (
        (drawn.flops_per_second, kind.speed_gflops * 1e9, kind.speed_sigma),
        (drawn.memory_bytes, kind.memory_kb * 1024, kind.memory_sigma),
        (drawn.down_bytes_per_second, link.down_mbps * 1e6 / 8, link.down_sigma),
        (drawn.up_bytes_per_second, link.up_mbps * 1e6 / 8, link.up_sigma),
    ):
        assert np.median(amounts) == pytest.approx(median, rel=0.08)
        assert np.std(np.log(amounts)) == pytest.approx(sigma, rel=0.08, abs=1e-9)
    assert (drawn.power_watts == kind.power_watts).all()
    assert (drawn.latency_seconds == link.latency_seconds).all()
    assert (drawn.batteries.idle_watts == kind.idle_watts).all()
    capacity = kind.battery_wh * 3600 or np.inf
    assert (drawn.batteries.capacity_joules == capacity).all()
    assert ((drawn.batteries.start_joules >= 0.3 * capacity) & (drawn.batteries.start_joules <= capacity)).all()


def test_fast_devices_have_more_memory() -> None:
    """Venn: corr(log milliseconds per sample, log RAM) = -0.80."""
    drawn = fleet(group("phone-mid", 4000))
    correlation = np.corrcoef(np.log(drawn.flops_per_second), np.log(drawn.memory_bytes))[0, 1]
    assert correlation == pytest.approx(0.8, abs=0.03)


def test_lte_costs_more_energy_per_byte_than_wifi_but_not_past_23_times() -> None:
    for of in ("joules_per_byte_down", "joules_per_byte_up"):
        assert 2 < getattr(LINKS["lte"], of) / getattr(LINKS["wifi"], of) < 23


def test_a_microcontroller_has_256_kilobytes() -> None:
    assert (fleet(group("mcu", 3)).memory_bytes == 262_144).all()
    assert CLASSES["mcu"].joules_per_gflop == 15.0


def test_groups_follow_one_another() -> None:
    drawn = fleet(group("mcu", 2), group("gateway", 0), group("pi", 3, availability="duty-cycle"))
    assert drawn.classes == ("mcu", "mcu", "pi", "pi", "pi")
    assert drawn.power_watts.tolist() == [0.3, 0.3, 5.0, 5.0, 5.0]
    assert np.isinf(drawn.availability.remaining(0.0, np.arange(5))).tolist() == [True, True, False, False, False]


def test_a_scenario_may_override_the_constants_of_a_class() -> None:
    drawn = fleet(
        group(
            "phone-low",
            500,
            network="lte",
            speed_gflops=100.0,
            memory_kb=10.0,
            down_mbps=1.0,
            up_mbps=2.0,
            loss_probability=0.25,
            dropout_probability=0.125,
            battery_wh=0.0,
            charge_watts=3.0,
            power_watts=7.0,
            idle_watts=0.5,
        )
    )
    assert np.median(drawn.flops_per_second) == pytest.approx(100e9, rel=0.1)
    assert np.median(drawn.memory_bytes) == pytest.approx(10_240, rel=0.1)
    assert np.median(drawn.up_bytes_per_second / drawn.down_bytes_per_second) == pytest.approx(2.0, rel=0.2)
    assert (drawn.send_watts == LINKS["lte"].send_watts).all()
    assert (drawn.latency_seconds == LINKS["lte"].latency_seconds).all()
    assert (drawn.loss_probability == 0.25).all()
    assert (drawn.dropout_probability == 0.125).all()
    assert (drawn.power_watts == 7.0).all()
    assert np.isinf(drawn.batteries.capacity_joules).all()
    assert (drawn.batteries.charge_watts == 3.0).all()
    assert (drawn.batteries.idle_watts == 0.5).all()


def test_a_trace_says_who_is_there_when(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    clients = [
        {"active": [0], "inactive": [10], "finish_time": 20},
        {"active": [10], "inactive": [20], "finish_time": 20},
    ]
    file.write_text(json.dumps(dict(enumerate(clients))))
    drawn = fleet(group("pi", 1), group("pi", 3, availability="trace", trace=str(file), starts_at_seconds=15.0))
    assert drawn.availability.now(0.0).tolist() == [True, False, True, False]
    assert drawn.availability.now(5.0).tolist() == [True, True, False, True]
    with pytest.raises(DataError, match="cannot be read"):
        fleet(group("pi", 1, availability="trace", trace="nowhere.json"))


def test_the_same_seed_draws_the_same_fleet() -> None:
    groups = group("phone-low", 20, availability="time-of-day"), group("mcu", 20, availability="duty-cycle")
    one, same, other = (fleet(*groups, seed=seed) for seed in (1, 1, 2))
    for a, b, differs in ((one, same, False), (one, other, True)):
        for left, right in (
            (a.flops_per_second, b.flops_per_second),
            (a.availability.starts, b.availability.starts),
            (a.batteries.start_joules, b.batteries.start_joules),
        ):
            assert (left.shape != right.shape or not np.array_equal(left, right)) == differs


def test_a_hundred_thousand_devices_are_drawn_in_a_moment() -> None:
    began = time.process_time()
    fleet(group("phone-mid", 50_000, availability="time-of-day"), group("mcu", 50_000, availability="duty-cycle"))
    assert time.process_time() - began < 1.0
