"""Whole simulations by each of the server's schedules."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from flwr.app import Message
from polars.testing import assert_frame_equal

from fedtp.wire import pack_array, unpack_array
from simulations import Run, simulate

# Reports of the microcontrollers take about a minute, and some are lost.
FLEET = """
[[drift]]
kind = "sudden"
concept = "turned"
at_seconds = 100

[[devices]]
class = "mcu"
count = 5
up_mbps = 0.0012
loss_probability = 0.2

[[devices]]
class = "phone-low"
count = 5
availability = "duty-cycle"
on_seconds = 100
off_seconds = 60
"""
BUFFERED = ("server.mode=buffered", "server.interval_seconds=15", "server.buffer_size=4", "server.rounds=6")
EAGER = ("server.interval_seconds=5", "server.over_selection=0.4", "server.quorum=0.3")


@pytest.fixture(scope="module")
def buffered(small) -> Run:
    return simulate(small(*BUFFERED, toml=FLEET))


@pytest.mark.parametrize("settings", [BUFFERED, (*BUFFERED, "server.fraction=0.4", "server.strategy=FedAvgM"), EAGER])
def test_the_same_scenario_gives_the_same_run(small, settings: tuple[str, ...]) -> None:
    one, other = (simulate(small(*settings, toml=FLEET)) for _ in range(2))
    for frame in ("rounds", "devices", "events"):
        assert_frame_equal(getattr(one, frame), getattr(other, frame))
    for name, packed in one.weights.items():
        np.testing.assert_array_equal(other.weights[name], packed)


@pytest.mark.parametrize("settings", [BUFFERED, EAGER])
def test_every_order_ends_in_one_way_and_all_adds_up(small, settings: tuple[str, ...]) -> None:
    run = simulate(small(*settings, toml=FLEET))
    ends = ["accepted", "refused", "late", "lost", "empty"]
    rounds, devices, summary = run.rounds, run.devices, run.summary
    assert rounds["orders"].to_list() == rounds.select(pl.sum_horizontal(ends)).to_series().to_list()
    assert summary["client_rounds"] == len(devices) == rounds["orders"].sum()
    for end in ends:
        assert rounds[end].sum() == (devices["status"] == end).sum()
    for name in ("bytes_up", "bytes_down", "samples", "correct"):
        assert rounds[name].sum() == devices[name].sum()
    assert summary["aggregations"] == pytest.approx(rounds["aggregations"].sum())
    assert summary["virtual_seconds"] == run.scenario.duration_seconds
    # Each device has one order at a time, none before it has rested from the last one.
    for _, orders in devices.sort("started_seconds").group_by("device"):
        starts = orders["started_seconds"].to_list()
        interval = run.scenario.server.interval_seconds
        assert all(after - before >= interval * 0.999 for before, after in itertools.pairwise(starts))


def test_stragglers_take_part_with_what_they_learnt_from_older_weights(buffered: Run) -> None:
    slow = buffered.devices.filter((pl.col("device_class") == "mcu") & (pl.col("status") == "accepted"))
    fast = buffered.devices.filter((pl.col("device_class") == "phone-low") & (pl.col("status") == "accepted"))
    assert len(slow) > 5
    assert slow["staleness"].mean() > 2 > fast["staleness"].mean() >= 0
    accepted = buffered.devices.filter(pl.col("status") == "accepted")
    assert buffered.summary["staleness"] == pytest.approx(accepted["staleness"].mean())
    assert buffered.summary["aggregations"] == len(accepted) // 4


def test_a_buffered_row_is_of_the_period_in_which_its_answer_came(buffered: Run) -> None:
    accepted = buffered.devices.filter(pl.col("status") == "accepted")
    # The server looks for answers at ticks, and here twenty times in 15 s.
    period = (accepted["arrived_seconds"] / 60.0).floor() + 1
    assert ((accepted["round"] == period) | (accepted["arrived_seconds"] % 60.0 > 59.0)).all()
    assert buffered.rounds["ended_seconds"].to_list() == [60.0 * n for n in range(1, 7)]


def test_both_schedules_learn_and_score_every_sample(small, buffered: Run) -> None:
    rounds = simulate(small("server.rounds=6", toml=FLEET))
    assert buffered.summary["samples"] == pytest.approx(rounds.summary["samples"], rel=0.2)
    assert buffered.rounds["accuracy"][1] > 0.3


def test_the_first_order_finds_the_samples_of_an_interval(small) -> None:
    run = simulate(small("arrival.rate=1", *BUFFERED))
    first = run.devices.filter(pl.col("started_seconds") == 0)
    assert first["samples"].to_list() == [15] * 5


def test_hostile_devices_are_refused_in_buffered_mode_too(small, overhear) -> None:
    def spoil(replies: list[Message]) -> None:
        for reply in replies:
            if reply.metadata.src_node_id in (2, 4) and reply.content["metrics"]["samples"]:
                weights = unpack_array("0", reply.content["weights"]["0"]).copy()
                weights[3] = np.nan
                reply.content["weights"]["0"] = pack_array(weights)

    run = simulate(small(*BUFFERED), executor=overhear(replied=spoil))
    refused = run.devices.filter(pl.col("status") == "refused")
    assert set(refused["device"]) == {1, 3}
    assert run.summary["refusals"] == {"not finite": len(refused)}
    assert all(np.isfinite(packed).all() for packed in run.weights.values())
    assert run.summary["aggregations"] > 10


def test_a_fleet_of_which_every_device_is_hostile_learns_nothing_and_ends(small, overhear) -> None:
    def spoil(replies: list[Message]) -> None:
        for reply in replies:
            reply.content["report"]["digest"] = "foreign"

    run = simulate(small(*BUFFERED), executor=overhear(replied=spoil))
    assert run.summary["updates_refused"] == run.summary["client_rounds"] > 0
    for name, packed in run.learner.initial_weights().items():
        np.testing.assert_array_equal(run.weights[name], packed)


def test_gateways_answer_in_buffered_mode(small) -> None:
    run = simulate(small(*BUFFERED, "run.devices_per_node=2"))
    assert run.summary["updates_accepted"] > 50
    assert run.summary["aggregations"] > 0


def test_a_round_without_a_quorum_is_counted(small) -> None:
    run = simulate(small("server.quorum=1", "devices.0.loss_probability=0.1", "server.rounds=8"))
    assert run.summary["refusals"].keys() == {"quorum"}
    assert 0 < run.summary["aggregations"] < 8
