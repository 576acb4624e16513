from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.device import Device
from fedtp.data import Rotation, apply, load
from fedtp.errors import DataError, ModelError, ScenarioError
from fedtp.learner import learner_of
from simulations.drift import Timeline
from simulations.scenario import Scenario
from simulations.world import World, open_stream

DRIFT = """
[[drift]]
kind = "sudden"
concept = "turned"
at_seconds = 120
stagger_seconds = 60
"""

SWAP = """
[concepts.swapped]
kind = "label-swap"
swaps = [[1, 2]]
"""

GENERATED = """
title = "Generated"
[data]
name = "sea"
samples = 2000
[concepts.other]
kind = "generator"
parameters = { variant = 3 }
[[drift]]
kind = "recurring"
concept = "other"
at_seconds = 60
period_seconds = 60
[[devices]]
class = "pi"
count = 4
"""


FEW_CLASSES = """
[concepts.few]
kind = "prior"
weights = { "3" = 1, "8" = 3 }
others = 0
[[drift]]
kind = "sudden"
concept = "few"
at_seconds = 120
"""

TURNING = """
[[drift]]
kind = "incremental"
concept = "turned"
at_seconds = 120
width_seconds = 60
steps = 3
"""


def taken(world: World, device: int, now: float = 1e5) -> np.ndarray:
    return world.stream(device).take(now).x


def rows_in(inputs: np.ndarray, x: np.ndarray) -> set[int]:
    """The rows of `inputs` that are somewhere in `x`."""
    seen = {row.tobytes() for row in x}
    return {i for i, row in enumerate(inputs) if row.tobytes() in seen}


@pytest.mark.parametrize(
    "scenario",
    [
        lambda small: small(toml=DRIFT),
        lambda small: small("partition.kind=dirichlet", "partition.quantity_sigma=1.0", toml=DRIFT),
        lambda small: Scenario.from_toml(GENERATED),
        lambda small: small(toml=FEW_CLASSES),
    ],
    ids=["digits", "skewed", "generated", "few classes"],
)
def test_what_is_held_out_is_in_no_stream_under_any_concept(small, scenario) -> None:
    world = World(scenario(small))
    shares = [set(rows.tolist()) for rows in world._rows]
    held_out = set(world.held_out.tolist())
    assert sum(map(len, shares)) + len(held_out) == len(world.data)
    assert set.union(*shares, held_out) == set(range(len(world.data)))
    for concept in world.concepts.values():
        for device in range(len(shares)):
            assert rows_in(concept.x, taken(world, device)) <= shares[device]


def test_a_split_is_the_same_under_every_concept(small) -> None:
    world = World(small(toml=DRIFT))
    plain = World(small())
    np.testing.assert_array_equal(world.held_out, plain.held_out)
    for one, other in zip(world._rows, plain._rows, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_concepts_that_are_used_are_made(small) -> None:
    assert list(World(small()).concepts) == ["initial"]
    assert list(World(small(toml=DRIFT)).concepts) == ["initial", "turned"]


def test_the_data_begins_under_the_initial_concept(small) -> None:
    plain, turned = World(small()), World(small("data.initial=turned"))
    images = plain.data.x.reshape(-1, 8, 8)
    np.testing.assert_array_equal(turned.data.x.reshape(-1, 8, 8), np.rot90(images, axes=(1, 2)))
    assert {line.initial for line in turned.timelines} == {"turned"}


@pytest.mark.parametrize("now", [0.0, 60.0, 180.0])
def test_an_order_finds_the_samples_of_one_round(small, now: float) -> None:
    world = World(small("arrival.rate=0.5"))
    for device in range(5):
        stream = world.stream(device)
        stream.take(now - 60.0)
        assert len(stream.take(now)) in (29, 30, 31)


def test_quantity_skew_spreads_rates_and_shares_alike(small) -> None:
    world = World(small("partition.quantity_sigma=0.8", "arrival.rate=1.0"))
    counts = np.array([len(world.stream(device).take(0.0)) for device in range(5)])
    sizes = np.array([len(rows) for rows in world._rows])
    assert counts.mean() == pytest.approx(60, rel=0.02)
    assert counts.max() > 2 * counts.min()
    np.testing.assert_allclose(sizes / sizes.sum(), counts / counts.sum(), atol=0.01)


def test_everything_follows_from_the_seed(small) -> None:
    one, same, other = (World(small(f"run.seed={s}", "partition.kind=dirichlet", toml=DRIFT)) for s in (1, 1, 2))
    for device in range(5):
        np.testing.assert_array_equal(taken(one, device, 300.0), taken(same, device, 300.0))
    assert one.timelines == same.timelines != other.timelines
    np.testing.assert_array_equal(one.fleet.flops_per_second, same.fleet.flops_per_second)
    assert not np.array_equal(one.fleet.flops_per_second, other.fleet.flops_per_second)
    assert not np.array_equal(one.held_out, other.held_out)
    assert not np.array_equal(taken(one, 0, 300.0), taken(other, 0, 300.0))


def test_how_it_learns_changes_nothing_in_the_world(small) -> None:
    """So that two learners can be compared in one and the same world."""
    one = World(small(toml=DRIFT))
    other = World(small("learner.method=backprop", "learner.hidden=[4]", "server.strategy=FedMedian", toml=DRIFT))
    assert one.timelines == other.timelines
    for device in range(5):
        np.testing.assert_array_equal(taken(one, device, 300.0), taken(other, device, 300.0))


def test_server_and_devices_are_told_of_one_and_the_same_learner(small) -> None:
    world = World(small("learner.momentum=0.5", "run.seed=9"))
    config = world.run_config()
    assert all(isinstance(value, bool | int | float | str) for value in config.values())
    assert learner_of(config) is world.learner
    assert world.learner.spec.seed == 9


@pytest.fixture
def sequences(monkeypatch):
    """Digits, as if each were a sequence of rows, of which the last ones may be padding."""

    def made(*args, **options):
        data = load("digits")
        return replace(data, lengths=np.arange(len(data)) % 8 + 1)

    monkeypatch.setattr("simulations.world.load", made)


RECURRENT = ("learner.network=recurrent", "learner.hidden=[8]")


def test_sequences_bring_their_lengths(small, sequences) -> None:
    world = World(small(*RECURRENT, "drift=[{kind='sudden', concept='swapped', at_seconds=60}]", toml=SWAP))
    known = {row.tobytes(): length for row, length in zip(world.data.x, world.data.lengths, strict=True)}
    samples = world.stream(0).take(1e4)
    assert len(samples) > 100
    assert samples.lengths is not None
    assert samples.lengths.tolist() == [known[row.tobytes()] for row in samples.x]
    assert World(small()).stream(0).take(60.0).lengths is not None
    rows = world.held_out
    answers = [
        int(world.learner.model(torch.tensor(world.data.x[i].reshape(1, 8, 8)[:, :n])).argmax())
        for i, n in zip(rows, world.data.lengths[rows], strict=True)
    ]
    found = world.held_out_accuracy(world.learner.initial_weights(), 0.0)
    assert found == pytest.approx(np.mean(world.data.y[rows] == answers))


def test_a_picture_is_told_by_its_shape(small) -> None:
    world = World(small("learner.network=cnn", "learner.channels=[4]"))
    assert world.run_config()["shape"] == "8,8"
    assert world.learner.input_shape == (1, 8, 8)
    assert learner_of(world.run_config()) is world.learner


def test_a_network_that_does_not_suit_the_data_is_refused(small) -> None:
    with pytest.raises(ModelError, match=r'learner\.network is "cnn", which learns from pictures'):
        _ = World(small("data.name=shuttle", "learner.network=cnn", "learner.channels=[4]", "concepts={}")).learner


@pytest.fixture
def ordered(monkeypatch):
    """Digits, as if they had been written one after another."""
    monkeypatch.setattr(
        "simulations.world.load", lambda *args, **options: replace(load(*args, **options), ordered=True)
    )


def test_ordered_data_must_keep_its_order(small, ordered) -> None:
    with pytest.raises(ScenarioError, match=r'partition.kind is "iid".*"interleaved"'):
        World(small())


@pytest.mark.parametrize("sigma", [0.0, 0.8])
def test_ordered_data_is_replayed_once_and_its_end_is_held_out(small, ordered, sigma: float) -> None:
    world = World(small("partition.kind=interleaved", f"partition.quantity_sigma={sigma}", toml=DRIFT))
    assert world.held_out.min() == len(world.data) - len(world.held_out)
    for device, rows in enumerate(world._rows):
        assert (np.diff(rows) > 0).all()
        stream = world.stream(device)
        samples = stream.take(1e6)
        assert stream.position == len(rows)
        np.testing.assert_array_equal(samples.y, world.data.y[rows])
        assert len(stream.take(2e6)) == 0


def test_too_many_devices_for_the_data_are_refused(small) -> None:
    with pytest.raises(ScenarioError, match="at least"):
        World(small("devices=[{class='pi', count=1000}]"))


def test_data_that_is_not_there_is_refused_with_a_sentence(small, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FEDTP_DATA", str(tmp_path))
    with pytest.raises(DataError, match="mnist"):
        World(small("data.name=mnist"))


# --- Held-out accuracy ----------------------------------------------------------------------------------------------


def predicted_by(world: World, weights, x) -> np.ndarray:
    h = x.astype(np.float64)
    for position, block in enumerate(world.learner.chain):
        inputs = block.rule.layer.in_features
        packed = weights[block.name].astype(np.float64)
        matrix, bias = packed[: -block.outputs].reshape(block.outputs, inputs), packed[-block.outputs :]
        h = h @ matrix.T + bias
        if position < len(world.learner.chain) - 1:
            h = np.tanh(h)
    return h.argmax(1)


@pytest.fixture
def weights(small):
    """Weights that are right about some of the digits, and about more upright than turned ones."""
    world = World(small())
    x, y = torch.tensor(world.data.x), torch.tensor(world.data.y)
    model = world.learner.network(world.learner.initial_weights())
    optimizer = world.learner.optimizer(model)
    for start in range(0, 600, 20):
        optimizer.step(x[start : start + 20], y[start : start + 20])
    return {block.name: block.pack().numpy() for block in optimizer.chain}


def test_it_is_the_share_of_held_out_samples_that_are_predicted_rightly(small, weights) -> None:
    world = World(small())
    rows = world.held_out
    expected = np.mean(predicted_by(world, weights, world.data.x[rows]) == world.data.y[rows])
    assert world.held_out_accuracy(weights, 1e6) == pytest.approx(expected)
    assert 0.2 < expected < 0.9


def test_each_concept_counts_as_often_as_devices_see_it(small, weights) -> None:
    world = World(small(toml=DRIFT + "fraction = 0.4\n"))
    upright = World(small()).held_out_accuracy(weights, 0.0)
    turned = World(small("data.initial=turned")).held_out_accuracy(weights, 0.0)
    assert upright > turned + 0.1
    assert world.held_out_accuracy(weights, 0.0) == pytest.approx(upright)
    assert world.held_out_accuracy(weights, 240.0) == pytest.approx(0.6 * upright + 0.4 * turned)


def test_training_rows_have_no_part_in_it(small, weights) -> None:
    world = World(small())
    before = world.held_out_accuracy(weights, 0.0)
    training = np.setdiff1d(np.arange(len(world.data)), world.held_out)
    world.data.x[training] = np.nan
    world.data.y[training] = 0
    assert world.held_out_accuracy(weights, 0.0) == before


def test_it_leaves_the_learner_as_it_was(small, weights) -> None:
    """The learner is shared by all who start anew in this process."""
    world = World(small())
    before = world.learner.initial_weights()
    world.held_out_accuracy(weights, 0.0)
    world.learner.network(weights)
    for name, packed in world.learner.initial_weights().items():
        np.testing.assert_array_equal(packed, before[name])
    for name, packed in Device.new(world.learner, world.stream(0)).weights.items():
        np.testing.assert_array_equal(packed, before[name])


def test_samples_count_as_often_as_they_are_drawn(small, weights) -> None:
    world = World(small(toml=FEW_CLASSES))
    rows = world.held_out
    right = predicted_by(world, weights, world.data.x[rows]) == world.data.y[rows]
    three, eight = (right[world.data.y[rows] == label] for label in (3, 8))
    expected = (three.sum() + 3 * eight.sum()) / (len(three) + 3 * len(eight))
    assert world.held_out_accuracy(weights, 240.0) == pytest.approx(expected)
    assert expected != pytest.approx(right.mean(), abs=0.01)


# --- Concepts -------------------------------------------------------------------------------------------------------


def test_prior_drift_changes_the_mix_of_classes_and_nothing_else(small) -> None:
    world = World(small("arrival.rate=2", toml=FEW_CLASSES))
    samples = [world.stream(device).take(600.0) for device in range(5)]
    y, seconds = (np.concatenate([getattr(part, name) for part in samples]) for name in ("y", "seconds"))
    assert len(set(y[seconds < 120])) == 10
    few = y[seconds >= 120]
    assert set(few) == {3, 8}
    assert np.mean(few == 8) == pytest.approx(0.75, abs=0.03)


def test_a_device_without_the_classes_of_a_mix_takes_them_from_the_others(small) -> None:
    world = World(small("partition.kind=dirichlet", "partition.alpha=0.01", toml=FEW_CLASSES))
    without = [device for device, rows in enumerate(world._rows) if not np.isin(world.data.y[rows], (3, 8)).any()]
    assert without
    samples = world.stream(without[0]).take(600.0)
    assert set(samples.y[samples.seconds >= 120]) == {3, 8}


def test_an_incremental_drift_turns_step_by_step(small) -> None:
    world = World(small("data.initial=initial", "concepts.initial.kind=identity", toml=TURNING))
    images = world.data.x.reshape(-1, 8, 8)
    assert list(world.concepts)[2:] != []
    for at, degrees in ((0, 0), (120, 30), (150, 60), (180, 90)):
        (name,) = {line.last(float(at)) for line in world.timelines}
        np.testing.assert_array_equal(world.concepts[name].x, apply(Rotation(degrees=degrees), world._base).x)
    np.testing.assert_array_equal(world.concepts["turned"].x.reshape(-1, 8, 8), np.rot90(images, axes=(1, 2)))


def test_only_the_steps_that_somebody_sees_are_held_in_memory(small) -> None:
    world = World(small(toml=TURNING))
    assert set(world.concepts._seen) == {"initial", "turned"}
    assert set(world.concepts) == {"initial", "turned", "initial to turned, 1/3", "initial to turned, 2/3"}
    world.stream(0).take(130.0)
    assert set(world.concepts._seen) == {"initial", "turned", "initial to turned, 1/3"}


def test_what_cannot_move_is_refused_before_anything_runs(small) -> None:
    swap = '[concepts.swapped]\nkind = "label-swap"\nswaps = [[1, 2]]\n'
    with pytest.raises(DataError, match="nothing between the concepts identity and label-swap"):
        World(small(toml=swap + TURNING.replace("turned", "swapped")))


def test_noise_comes_from_the_seed_of_the_run(small) -> None:
    noisy = ("data.initial=noisy", "concepts.noisy.kind=noise", "concepts.noisy.sigma=0.2")
    one, same, other = (World(small(f"run.seed={seed}", *noisy)).data.x for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_matrix_makes_the_timelines(small) -> None:
    matrix = '[drift_matrix]\nmatrix = ["01", "11", "10"]\nconcepts = ["initial", "turned"]\n'
    world = World(small("server.rounds=6", toml=matrix))
    assert [[line.last(t) for t in (60.0, 180.0, 300.0)] for line in world.timelines[:2]] == [
        ["initial", "turned", "turned"],
        ["turned", "turned", "initial"],
    ]
    assert world.timelines[2:] == [world.timelines[0], world.timelines[1], world.timelines[0]]
    images = world.data.x.reshape(-1, 8, 8)
    turned = {row.tobytes() for row in np.rot90(images, axes=(1, 2)).reshape(-1, 64)}
    assert all(row.tobytes() in turned for row in taken(world, 1, 100.0))
    assert not all(row.tobytes() in turned for row in taken(world, 0, 100.0))


# --- Arrival --------------------------------------------------------------------------------------------------------


def test_bursts_keep_the_rates_of_unequal_devices(small) -> None:
    settings = ("partition.quantity_sigma=0.8", "arrival.rate=2.0", "arrival.burst_samples=3")
    for kind in ("poisson", "bursts"):
        world = World(small(*settings, f"arrival.kind={kind}"))
        counts = np.array([len(world.stream(device).take(3000.0)) for device in range(5)])
        np.testing.assert_allclose(counts, world._rates * 3060, rtol=0.15)


def test_labels_come_when_the_scenario_says(small) -> None:
    assert World(small()).stream(0).take(600.0).label_seconds is None
    samples = World(small("arrival.label_delay_seconds=45")).stream(0).take(600.0)
    np.testing.assert_allclose(samples.label_seconds - samples.seconds, 45.0)


def test_devices_are_told_of_their_buffer(small) -> None:
    assert World(small("arrival.buffer=70")).run_config()["buffer"] == 70


# --- As a Flower app ------------------------------------------------------------------------------------------------


def test_a_node_opens_its_stream_by_scenario_and_partition(tmp_path, small) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(small(toml=DRIFT).to_toml())
    for device in (0, 4):
        stream = open_stream({"scenario": str(path), "partition-id": device, "learner.lr": 3.0})
        np.testing.assert_array_equal(stream.take(500.0).x, taken(World(small(toml=DRIFT)), device, 500.0))


def test_timelines_are_those_of_the_scenario(small) -> None:
    assert World(small()).timelines == [Timeline("initial")] * 5
    starts = [line.changes[0].at_seconds for line in World(small(toml=DRIFT)).timelines]
    assert all(120 <= start < 180 for start in starts)
