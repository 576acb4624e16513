from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from flwr.app import Message
from polars.testing import assert_frame_equal

from clients import app as client_app
from clients.app import Done
from fedtp.errors import FedtpError, ScenarioError
from fedtp.measures import kappa
from simulations import Progress, Run, Scenario, shipped, simulate
from simulations.executors import Executor
from simulations.flower import make_context
from simulations.world import World

# All that can go wrong on the way, at once.
ROUGH = """
[[drift]]
kind = "sudden"
concept = "turned"
at_seconds = 60
stagger_seconds = 60

[[devices]]
class = "mcu"
count = 6
up_mbps = 0.0012
loss_probability = 0.2

[[devices]]
class = "phone-low"
count = 6
availability = "duty-cycle"
on_seconds = 100
off_seconds = 80
"""
SKEWED = ("partition.kind=dirichlet", "partition.quantity_sigma=1.0", "server.deadline_seconds=40", "server.rounds=6")

SUMMARY = {
    "prequential_accuracy",
    "final_accuracy",
    "kappa",
    "kappa_t",
    "rounds",
    "devices",
    "client_rounds",
    "virtual_seconds",
    "wall_seconds",
    "bytes_up",
    "bytes_down",
    "joules",
    "updates_accepted",
    "updates_refused",
    "updates_late",
    "updates_lost",
    "orders_empty",
    "updates_by_block",
    "peak_bytes",
    "backprop_peak_bytes",
    "drifts_true",
    "drifts_detected",
    "false_alarms",
    "recovery_samples",
    "recovered_share",
    "detection_window_seconds",
    "method",
    "readout",
    "adaptor",
    "seed",
    "scenario",
    "version",
    "refusals",
}


def timeless(run: Run) -> dict[str, object]:
    return {key: value for key, value in run.summary.items() if key != "wall_seconds"}


@pytest.fixture(scope="module")
def rough(small) -> Run:
    return simulate(small(*SKEWED, toml=ROUGH))


# --- The same again -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("learner.momentum=0.9", "learner.lr=0.2", "learner.epochs=2"),
        ("learner.method=backprop", "learner.lr=0.2", "server.fraction=0.5"),
        ("server.strategy=FedAdam", "server.strategy_options={eta=0.05}", "arrival.samples_per_order=7"),
    ],
)
def test_the_same_scenario_gives_the_same_run(small, settings: tuple[str, ...]) -> None:
    one, other = (simulate(small(*SKEWED, *settings, toml=ROUGH)) for _ in range(2))
    assert timeless(one) == timeless(other)
    for frame in ("rounds", "devices", "events"):
        assert_frame_equal(getattr(one, frame), getattr(other, frame))
    for name, packed in one.weights.items():
        np.testing.assert_array_equal(other.weights[name], packed)


def test_runs_in_between_make_no_difference(small, rough: Run) -> None:
    simulate(small("run.seed=5"))
    assert timeless(simulate(small(*SKEWED, toml=ROUGH))) == timeless(rough)


def test_another_seed_gives_another_run(small, rough: Run) -> None:
    assert timeless(simulate(small(*SKEWED, "run.seed=2", toml=ROUGH))) != timeless(rough)


def test_threads_make_no_difference_that_matters(small) -> None:
    before = torch.get_num_threads()
    one, two = (simulate(small(f"run.threads={n}", "server.rounds=8", "learner.hidden=[64]")) for n in (1, 2))
    assert torch.get_num_threads() == before
    for accuracy in ("prequential_accuracy", "final_accuracy"):
        assert one.summary[accuracy] == pytest.approx(two.summary[accuracy], abs=0.005)


# --- What a run says ------------------------------------------------------------------------------------------------


def test_a_rough_fleet_has_orders_of_every_end(rough: Run) -> None:
    statuses = set(rough.devices["status"])
    assert {"accepted", "late", "lost"} <= statuses <= {"accepted", "late", "lost", "empty"}


def test_every_order_ends_in_one_way(rough: Run) -> None:
    ends = ["accepted", "refused", "late", "lost", "empty"]
    rounds, devices = rough.rounds, rough.devices
    assert rounds["orders"].to_list() == rounds.select(pl.sum_horizontal(ends)).to_series().to_list()
    counted = devices.group_by("round").len("orders").sort("round")
    assert rounds.filter(pl.col("orders") > 0)["orders"].to_list() == counted["orders"].to_list()
    assert rough.summary["client_rounds"] == len(devices) == rounds["orders"].sum()


def test_devices_rounds_and_summary_add_up(rough: Run) -> None:
    by_round = rough.devices.group_by("round").agg(
        pl.col("bytes_up", "bytes_down", "joules", "samples", "correct").sum()
    )
    joined = rough.rounds.join(by_round, on="round", suffix="_devices")
    for name in ("bytes_up", "bytes_down", "samples", "correct"):
        assert (joined[name] == joined[f"{name}_devices"]).all()
    np.testing.assert_allclose(joined["joules"], joined["joules_devices"], rtol=1e-12)
    for name in ("bytes_up", "bytes_down"):
        assert rough.summary[name] == rough.rounds[name].sum()
    assert rough.summary["joules"] == pytest.approx(rough.devices["joules"].sum())
    correct, samples = rough.devices["correct"].sum(), rough.devices["samples"].sum()
    assert rough.summary["prequential_accuracy"] == correct / samples


def test_times_are_in_order(rough: Run) -> None:
    devices = rough.devices.drop_nulls("arrived_seconds")
    took = devices["arrived_seconds"] - devices["started_seconds"]
    assert (took >= devices["compute_seconds"] + devices["transfer_seconds"] - 1e-9).all()
    accepted = devices["status"] == "accepted"
    assert (took.filter(accepted) <= 40.0).all()
    assert (took.filter(devices["status"] == "late") > 40.0).all()
    assert rough.rounds["started_seconds"].to_list() == [60.0 * n for n in range(6)]
    assert (rough.rounds["ended_seconds"] <= 60.0 * rough.rounds["round"]).all()
    assert rough.summary["virtual_seconds"] == 360.0


def test_who_owes_an_answer_gets_no_order_in_the_next_round(rough: Run) -> None:
    late = rough.devices.filter(
        (pl.col("status") == "lost")
        | ((pl.col("status") == "late") & (pl.col("arrived_seconds") > pl.col("round") * 60.0))
    )
    ordered = set(rough.devices.select("round", "device").rows())
    assert len(late) > 3
    assert not {(number + 1, device) for number, device in late.select("round", "device").rows()} & ordered
    # But not for ever: a lost message must not cost a device the rest of the run.
    again = {(number + 2, device) for number, device in late.select("round", "device").rows() if number <= 4}
    assert len(again & ordered) >= len(again) / 2


def test_drifts_are_those_of_the_timelines(rough: Run) -> None:
    drifts = rough.events.filter(pl.col("kind") == "drift")
    assert rough.summary["drifts_true"] == len(drifts) == rough.rounds["drifts"].sum() == 17
    assert rough.summary["drifts_detected"] == drifts["detected"].sum()
    assert (drifts["concept"] == "turned").all()
    detections = rough.events.filter(pl.col("kind") == "detection")
    assert len(detections) == rough.rounds["detections"].sum() == rough.devices["detections"].sum()


def test_a_summary_has_what_was_promised_and_is_json(rough: Run) -> None:
    assert set(rough.summary) >= SUMMARY
    assert json.loads(json.dumps(rough.summary, allow_nan=False)) == rough.summary
    assert rough.summary["devices"] == 17
    assert rough.summary["method"] == "tpsgd"
    assert 0 < rough.summary["wall_seconds"] < 600


def test_final_accuracy_is_that_of_the_last_model_on_held_out_data(rough: Run) -> None:
    world = World(rough.scenario)
    assert rough.summary["final_accuracy"] == world.held_out_accuracy(rough.weights, rough.scenario.duration_seconds)


def test_progress_adds_up(small) -> None:
    told: list[Progress] = []
    run = simulate(small(*SKEWED, toml=ROUGH), told.append)
    assert [progress.round for progress in told] == [1, 2, 3, 4, 5, 6]
    assert {progress.rounds for progress in told} == {6}
    assert [progress.virtual_seconds for progress in told] == run.rounds["ended_seconds"].to_list()
    assert [progress.accuracy for progress in told] == run.rounds["accuracy"].to_list()
    for name in ("refused", "late", "detections"):
        assert [getattr(progress, name) for progress in told] == run.rounds[name].cum_sum().to_list()


# --- Learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tpsgd", "backprop"])
def test_a_fleet_learns(small, method: str) -> None:
    lr = {"tpsgd": 3.0, "backprop": 0.5}[method]
    run = simulate(small(f"learner.method={method}", f"learner.lr={lr}", "server.rounds=20", "arrival.rate=0.5"))
    assert run.summary["method"] == method
    assert run.summary["final_accuracy"] > 0.75
    accuracy = run.rounds["accuracy"]
    assert accuracy[0] < 0.5 < accuracy[-1]


def test_a_fleet_that_is_frozen_learns_no_more(small) -> None:
    run = simulate(small("learner.freeze_after_seconds=120", "server.rounds=5"))
    assert (run.rounds["samples"] > 0).all()
    up = run.rounds["bytes_up"] / run.rounds["orders"]
    assert (up[2:] < 300).all()
    assert (up[:2] > 4000).all()
    assert (run.rounds["loss"].is_null() == pl.Series([False, False, True, True, True])).all()
    early = simulate(small("server.rounds=2"))
    for name, packed in early.weights.items():
        np.testing.assert_array_equal(run.weights[name], packed)


def test_every_order_may_find_a_fixed_number_of_samples(small) -> None:
    run = simulate(small("arrival.samples_per_order=7", "partition.quantity_sigma=1.0"))
    assert set(run.devices["samples"]) == {7}


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian", "FedTrimmedAvg", "FedAvgM", "Krum"])
def test_flowers_strategies_average_a_fleet(small, strategy: str) -> None:
    run = simulate(small(f"server.strategy={strategy}", "server.rounds=8", "learner.lr=3.0"))
    assert run.summary["final_accuracy"] > 0.3


def test_averaging_by_flower_is_averaging_by_us(small) -> None:
    mean, flower = (simulate(small(f"server.strategy={name}")) for name in ("mean", "FedAvg"))
    for name, packed in mean.weights.items():
        np.testing.assert_allclose(flower.weights[name], packed, rtol=1e-3, atol=1e-6)


# --- Odd fleets -----------------------------------------------------------------------------------------------------


def test_one_device_in_one_round(small) -> None:
    run = simulate(small("devices=[{class='gateway', count=1}]", "server.rounds=1"))
    assert run.summary["client_rounds"] == 1
    assert len(run.devices) == len(run.rounds) == 1
    (row,) = run.devices.rows(named=True)
    assert row["status"] == "accepted"
    assert row["samples"] == run.summary["samples"] in (11, 12, 13)


def test_rounds_that_nobody_is_there_for(small) -> None:
    devices = "devices=[{class='pi', count=1, availability='duty-cycle', on_seconds=60, off_seconds=120}]"
    run = simulate(small(devices, "server.rounds=9"))
    assert sorted(set(run.rounds["orders"])) == [0, 1]
    assert run.rounds["orders"].sum() == 3
    idle = run.rounds.filter(pl.col("orders") == 0)
    assert idle["accuracy"].is_null().all()
    assert (idle["joules"] == 0).all()
    # What arrived in the meantime is found by the next order.
    assert run.summary["samples"] == pytest.approx(0.2 * 60 * (run.devices["round"].max()), abs=1)


def test_a_fleet_whose_replies_are_all_lost(small) -> None:
    run = simulate(small("devices=[{class='pi', count=3, loss_probability=1.0}]", "server.rounds=5"))
    assert run.summary["updates_lost"] == run.summary["client_rounds"] == 9
    assert run.summary["prequential_accuracy"] is not None
    for name, packed in World(run.scenario).learner.initial_weights().items():
        np.testing.assert_array_equal(run.weights[name], packed)


def test_devices_to_which_nothing_has_come_say_so(small) -> None:
    run = simulate(small("arrival.rate=0.001", "server.rounds=3"))
    assert run.summary["orders_empty"] > 5
    assert (run.devices.filter(pl.col("status") == "empty")["samples"] == 0).all()


def test_more_batches_than_one_and_devices_of_every_length(small) -> None:
    """Devices that see very different amounts learn side by side, and none is lost on the way."""
    run = simulate(small("partition.quantity_sigma=1.5", "arrival.rate=1.0", "server.rounds=2"))
    assert len(set(run.devices["samples"])) >= 5
    assert set(run.devices["status"]) <= {"accepted", "empty"}


GENERATED = """
title = "Generated"
[data]
name = "{name}"
samples = 3000
[concepts.initial]
kind = "identity"
[concepts.other]
kind = "{concept}"
{parameters}
[[drift]]
kind = "gradual"
concept = "other"
at_seconds = 60
width_seconds = 60
[server]
rounds = 4
[[devices]]
class = "phone-mid"
count = 6
"""


@pytest.mark.parametrize(
    ("name", "concept", "parameters"),
    [
        ("sea", "generator", "parameters = { variant = 3 }"),
        ("agrawal", "label-swap", "swaps = [[0, 1]]"),
        ("random-rbf", "gain", "factor = -1.0"),
    ],
)
def test_data_of_rivers_generators(name: str, concept: str, parameters: str) -> None:
    run = simulate(Scenario.from_toml(GENERATED.format(name=name, concept=concept, parameters=parameters)))
    assert run.summary["drifts_true"] == 6
    assert 0.15 < run.summary["prequential_accuracy"] <= 1.0


@pytest.mark.skipif(not os.environ.get("FEDTP_DATA"), reason="FEDTP_DATA names no folder with MNIST in it")
def test_mnist_from_the_users_folder(small) -> None:
    run = simulate(small("data.name=mnist", "server.rounds=2", "arrival.rate=1.0"))
    assert run.summary["samples"] == pytest.approx(600, abs=5)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_scenario_runs(name: str, tmp_path: Path) -> None:
    if name == "elec2-fleet" and not os.environ.get("RIVER_DATA"):
        pytest.skip("RIVER_DATA names no folder with Elec2 in it")
    if name in (
        "speakers-come-and-go",
        "spoken-digits-gru",
        "mnist-label-swap",
        "mnist-conv-label-swap",
    ) and not os.environ.get("FEDTP_DATA"):
        pytest.skip("FEDTP_DATA names no folder with its data in it")
    settings, whole = ["server.rounds=2", "drift=[]"], Scenario.load(name)
    if whole.device_count > 1000:
        settings += ["devices.0.count=1000", "data.samples=10000"]
    if whole.learner.pretrained:
        simulate(Scenario.load("digits-rotating", settings)).save(tmp_path / "upright")
        settings.append(f'learner.pretrained="{tmp_path / "upright" / "model.safetensors"}"')
    run = simulate(Scenario.load(name, settings))
    assert run.summary["samples"] > 0
    assert run.summary["scenario"] == name


# --- Parts of a network ---------------------------------------------------------------------------------------------

FIVE_BLOCKS = ("learner.hidden=[32,32,32,32]", "server.rounds=5", "arrival.samples_per_order=10")
BLOCKS = ["0", "2", "4", "6", "8"]


def fleet(plan: str, devices: int = 10, **more: object) -> str:
    keys = {"class": "mcu", "count": devices, "plan": plan, **more}
    return "devices=[{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in keys.items()) + "}]"


@pytest.mark.parametrize("plan", ["rotation", "assigned", "random"])
def test_one_block_of_five_is_a_third_of_the_bytes_up_at_most(small, plan: str) -> None:
    everything, one = (
        simulate(small(*FIVE_BLOCKS, fleet(name, down_mbps=10.0, up_mbps=10.0))) for name in ("everything", plan)
    )
    assert set(everything.devices["blocks"]) == {" ".join(BLOCKS)}
    assert set(one.devices["blocks"].str.count_matches(r"\d+")) == {1}
    assert one.summary["updates_accepted"] == everything.summary["updates_accepted"] == 50
    assert one.summary["bytes_up"] <= 0.3 * everything.summary["bytes_up"]
    assert one.summary["joules"] < everything.summary["joules"]
    counts = one.summary["updates_by_block"]
    assert sum(counts.values()) == 50
    if plan != "random":
        assert counts == dict.fromkeys(BLOCKS, 10)


def test_blocks_that_nobody_trains_stay_as_they_were(small) -> None:
    run = simulate(small(*FIVE_BLOCKS, fleet("first", down_mbps=10.0, up_mbps=10.0)))
    initial = run.learner.initial_weights()
    assert run.summary["updates_by_block"] == {"0": 50, **dict.fromkeys(BLOCKS[1:], 0)}
    for name in BLOCKS:
        assert np.array_equal(run.weights[name], initial[name]) == (name != "0")


def test_a_device_trains_what_fits_in_its_memory_and_the_report_shows_it(small) -> None:
    """In 36 KB a 64-100-100-10 network cannot be trained whole, nor can its second block be."""
    settings = ("learner.hidden=[100,100]", "server.rounds=2", "arrival.samples_per_order=5")
    runs = {
        method: simulate(
            small(
                *settings,
                f"learner.method={method}",
                fleet("everything", memory_kb=36, down_mbps=9.0, up_mbps=9.0),
            )
        )
        for method in ("tpsgd", "backprop")
    }
    assert set(runs["tpsgd"].devices["blocks"]) == {"0 4"}
    assert set(runs["backprop"].devices["blocks"]) == {""}
    summary = runs["tpsgd"].summary
    assert summary["peak_bytes"] <= 36 * 1024 < summary["backprop_peak_bytes"]
    assert summary["updates_by_block"] == {"0": 20, "2": 0, "4": 20}
    assert summary["backprop_peak_bytes"] == runs["backprop"].summary["backprop_peak_bytes"]
    assert "Memory of training" in runs["tpsgd"].report()


def test_a_device_without_memory_for_a_prediction_says_so(small) -> None:
    run = simulate(small(fleet("everything", memory_kb=0.1, devices=2)))
    assert run.summary["refusals"] == {"device error": run.summary["client_rounds"]}
    assert run.summary["samples"] == 0


def test_the_deadline_decides_too(small) -> None:
    """At 100 bytes per second up, a head of 10 x 16 weights gets through in 20 seconds, and no more."""
    settings = ("server.deadline_seconds=20", "server.rounds=2")
    run = simulate(small(*settings, fleet("everything", down_mbps=9.0, up_mbps=0.0008)))
    trained = run.devices.filter(pl.col("samples") > 0)["blocks"].to_list()
    assert set(trained) <= {"", "2"}
    assert "2" in trained


# --- Executors ------------------------------------------------------------------------------------------------------


class ClientApps:
    """Flower's ClientApp, called for one message at a time with a context per node; its outcomes are overheard."""

    def __init__(self, world: World, overheard: list[Done]) -> None:
        self._app = client_app.make_client_app(
            lambda config: world.stream(int(config["partition-id"])),
            lambda config: world.budget(int(config["partition-id"])),
        )
        self._config = world.run_config()
        self._per_node = world.scenario.run.devices_per_node
        self._contexts: dict[int, object] = {}
        self._overheard = overheard
        self._replies: dict[str, Message] = {}

    def learn(self, messages, devices):
        self._overheard.clear()
        self._replies = {message.metadata.message_id: self._call(message) for message in messages}
        outcomes = iter([outcome for _, outcome in self._overheard])
        return [[next(outcomes) for _ in node] for node in devices]

    def report(self, messages, devices):
        return [self._replies[message.metadata.message_id] for message in messages]

    def close(self):
        pass

    def _call(self, message):
        node = message.metadata.dst_node_id
        own = {"partition-id": node - 1, "devices-per-node": self._per_node}
        return self._app(message, self._contexts.setdefault(node, make_context(self._config, node, own)))


@pytest.fixture
def client_apps(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], Executor]:
    """An executor of ClientApps; what they scored is overheard, for the record of the run."""
    overheard: list[Done] = []
    carry_out = client_app.carry_out

    def overhear(orders, nodes):
        done = carry_out(orders, nodes)
        overheard.extend(itertools.chain.from_iterable(done))
        return done

    monkeypatch.setattr(client_app, "carry_out", overhear)
    return lambda world: ClientApps(world, overheard)


@pytest.mark.parametrize("settings", [(), ("learner.momentum=0.8", "learner.lr=0.3", "learner.epochs=2")])
def test_client_apps_one_by_one_give_the_same_run(small, client_apps, settings: tuple[str, ...]) -> None:
    scenario = small(*SKEWED, *settings, "learner.detector=ddm", toml=ROUGH)
    together, apart = simulate(scenario), simulate(scenario, executor=client_apps)
    for key, value in timeless(together).items():
        if isinstance(value, float):
            assert apart.summary[key] == pytest.approx(value, rel=1e-3, abs=2e-3), key
        else:
            assert apart.summary[key] == value, key
    for name, packed in together.weights.items():
        np.testing.assert_allclose(apart.weights[name], packed, rtol=1e-3, atol=1e-4)
    columns = ["round", "device", "status", "samples", "bytes_up", "bytes_down", "transfer_seconds", "compute_seconds"]
    assert_frame_equal(together.devices.select(columns), apart.devices.select(columns))


def test_an_executor_may_be_wrapped(small, overhear) -> None:
    seen: list[int] = []
    run = simulate(small(), executor=overhear(lambda messages, _: seen.append(len(messages))))
    assert seen == run.rounds["orders"].to_list()


# --- Gateways -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 100])
def test_gateways_give_what_their_devices_would(small, count: int) -> None:
    settings = ("partition.quantity_sigma=0.5", "partition.kind=dirichlet", "learner.momentum=0.5", "learner.lr=0.3")
    alone = simulate(small(*settings))
    behind = simulate(small(*settings, f"run.devices_per_node={count}"))
    for name, packed in alone.weights.items():
        np.testing.assert_allclose(behind.weights[name], packed, rtol=1e-4, atol=1e-6)
    for frame in (alone.devices, behind.devices):
        assert frame.height == 20
    assert behind.summary["samples"] == alone.summary["samples"]
    assert behind.summary["prequential_accuracy"] == pytest.approx(alone.summary["prequential_accuracy"], abs=0.01)


def test_a_gateway_waits_for_its_devices_no_longer_than_the_server_does(small) -> None:
    settings = ("server.deadline_seconds=5", "run.devices_per_node=5")
    slow = '[[devices]]\nclass = "mcu"\ncount = 5\nspeed_gflops = 1e-6'
    run = simulate(small(*settings, toml=slow))
    status = {name: set(run.devices.filter(pl.col("device_class") == name)["status"]) for name in ("pi", "mcu")}
    assert status == {"pi": {"accepted"}, "mcu": {"late"}}


def test_a_gateway_takes_part_while_one_of_its_devices_is_there(small) -> None:
    run = simulate(
        small(
            "run.devices_per_node=5",
            "server.rounds=12",
            "devices.0.availability=duty-cycle",
            "devices.0.on_seconds=100",
            "devices.0.off_seconds=200",
        )
    )
    orders = run.rounds["orders"].to_list()
    assert min(orders) < max(orders) <= 5
    assert set(run.devices["status"]) <= {"accepted", "empty"}


@pytest.mark.parametrize("per_node", [1, 3])
def test_gateways_of_client_apps_give_the_same_run(small, client_apps, per_node: int) -> None:
    scenario = small(f"run.devices_per_node={per_node}", "devices.0.count=6", "learner.momentum=0.5", "learner.lr=0.3")
    together, apart = simulate(scenario), simulate(scenario, executor=client_apps)
    for name, packed in together.weights.items():
        np.testing.assert_allclose(apart.weights[name], packed, rtol=1e-3, atol=1e-5)
    assert apart.summary["samples"] == together.summary["samples"] > 0


def test_a_gateway_hides_what_other_aggregations_must_see(small) -> None:
    with pytest.raises(ScenarioError, match=r"run\.devices_per_node is 5.*one device per node"):
        small("run.devices_per_node=5", "server.strategy=FedMedian")


# --- Trouble --------------------------------------------------------------------------------------------------------


def test_whatever_happens_threads_and_log_are_put_back(small) -> None:
    threads, level = torch.get_num_threads(), logging.getLogger("flwr").level

    def fail(progress: Progress) -> None:
        assert torch.get_num_threads() == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(small("run.threads=2"), fail)
    assert (torch.get_num_threads(), logging.getLogger("flwr").level) == (threads, level)


def test_a_strategy_that_does_not_fit_is_refused_with_a_sentence(small) -> None:
    with pytest.raises(FedtpError, match="strategy_options"):
        simulate(small("server.strategy=Krum", "server.strategy_options={malicious=3}"))


def test_kappa_is_that_of_the_devices_own_counts(small, overhear) -> None:
    """Against the executor's own outcomes, summed here."""
    confusion = np.zeros((10, 10), np.int64)

    def count(_, outcomes):
        for outcome in itertools.chain.from_iterable(outcomes):
            np.add.at(confusion, (outcome.labels, outcome.predicted), 1)

    run = simulate(small(), executor=overhear(count))
    assert run.summary["kappa"] == kappa(confusion)
    assert run.summary["prequential_accuracy"] == np.trace(confusion) / confusion.sum()


# --- Readouts and adaptors ------------------------------------------------------------------------------------------


def test_readouts_stay_or_travel_as_the_scenario_says(small) -> None:
    settings = ("learner.hidden=[16]", "server.rounds=12", "arrival.rate=0.5")
    runs = {kind: simulate(small(*settings, f"learner.readout={kind}")) for kind in ("fixed", "learnt", "shared")}
    assert {kind: run.summary["readout"] for kind, run in runs.items()} == {kind: kind for kind in runs}
    fixed, learnt, shared = runs.values()
    assert [run.weights["0"].size for run in runs.values()] == [65 * 16, 65 * 16, 65 * 16 + 10 * 16]
    for direction in ("bytes_up", "bytes_down"):
        assert learnt.summary[direction] == fixed.summary[direction]
        orders = shared.devices.height
        assert shared.summary[direction] - fixed.summary[direction] == orders * 4 * 10 * 16
    start = shared.learner.initial_weights()["0"][65 * 16 :]
    assert not np.allclose(shared.weights["0"][65 * 16 :], start, atol=1e-2)
    for run in (learnt, shared):
        assert run.summary["final_accuracy"] > 0.7
        assert not np.allclose(run.weights["0"][: 65 * 16], fixed.weights["0"], atol=1e-3)
        # More work takes longer.
        assert run.devices["compute_seconds"].sum() > fixed.devices["compute_seconds"].sum()
        assert run.summary["readout"] in run.report()


def test_backpropagation_has_no_readout(small) -> None:
    run = simulate(small("learner.method=backprop", "learner.lr=0.2", "server.rounds=1"))
    assert run.summary["readout"] is None
    assert run.summary["adaptor"] == "none"


def test_pretrained_weights_that_are_not_there_are_refused_with_a_sentence(small) -> None:
    with pytest.raises(FedtpError, match="no-such-file") as caught:
        simulate(small("learner.pretrained=no-such-file"))
    assert len(str(caught.value).splitlines()) == 1


# --- Buffers and labels ---------------------------------------------------------------------------------------------


def test_every_sample_has_one_fate(small) -> None:
    """It is scored, dropped, without a label for ever, or waits for its label at the end."""
    run = simulate(small("arrival.rate=1", "arrival.buffer=40", "arrival.label_fraction=0.7", "server.rounds=5"))
    world = World(run.scenario)
    arrived = sum(len(world.stream(device).take(4 * 60.0)) for device in range(5))
    told = run.summary
    assert told["samples_dropped"] > 0
    assert told["samples_unlabelled"] > 0
    assert told["samples"] + told["samples_dropped"] + told["samples_unlabelled"] == arrived
    assert run.devices["samples"].max() <= 40


def test_late_labels_are_scored_later_and_not_lost(small) -> None:
    settings = ("arrival.rate=1", "server.rounds=6")
    prompt = simulate(small(*settings))
    late = simulate(small(*settings, "arrival.label_delay_seconds=90"))
    assert late.rounds["samples"][0] == 0
    assert late.rounds["samples"][1] == pytest.approx(prompt.rounds["samples"][0] / 2, abs=10)
    assert late.summary["label_delay_seconds"] == pytest.approx(90.0)
    assert prompt.summary["label_delay_seconds"] == 0
    assert late.summary["samples"] == pytest.approx(prompt.summary["samples"] * 4.5 / 6, rel=0.02)
    assert (late.summary["samples_dropped"], late.summary["samples_unlabelled"]) == (0, 0)
