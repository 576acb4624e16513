"""What a device does about drift, beside a device that does nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from flwr.app import RecordDict

from clients.budget import Budget
from clients.device import Device
from clients.settings import AdaptationSpec
from clients.training import learn, plan, report
from fedtp.data.stream import Samples
from fedtp.errors import ModelError
from fedtp.learner import learner_for
from fedtp.learner_spec import LearnerSpec

POLICIES = ["boost-lr", "reset", "keep-own", "window-retrain"]


def renamed(samples: Samples) -> Samples:
    """The same inputs, but their classes have changed names."""
    return Samples(samples.x, (samples.y + 1) % 3, samples.seconds)


def silent(samples: Samples) -> Samples:
    """All sensors have broken."""
    return Samples(np.zeros_like(samples.x), samples.y, samples.seconds)


@pytest.fixture
def live(make_learner, make_order, stream, samples):
    """Let a device learn in the old concept and then in a new one, served by a model that knows only the old one."""

    def run(orders: int = 30, drift=renamed, **adaptation) -> tuple[Device, list]:
        learner = make_learner(detector="hddm-w", lr=0.5)
        before = [samples(10, seed=n) for n in range(20)]
        after = [drift(samples(10, seed=100 + n)) for n in range(orders)]
        device = Device.new(learner, stream([*before, *after]), adaptation=AdaptationSpec(**adaptation))
        outcomes = []
        fleet = learner.initial_weights()
        for number in range(20 + orders):
            item = plan(make_order(learner, weights=fleet), device)
            outcomes += learn([item])
            if number < 20:
                fleet = {name: device.send(name) for name in learner.sizes}
        return device, outcomes

    return run


def right(outcomes) -> int:
    return sum(outcome.correct for outcome in outcomes[20:])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("blocks", ["all", "last", "moved"])
def test_nothing_is_done_before_a_drift_is_flagged(live, policy: str, blocks: str) -> None:
    device, adapting = live(0, policy=policy, blocks=blocks)
    plain, idle = live(0)
    assert not any(len(outcome.detections) for outcome in adapting)
    for name in plain.weights:
        np.testing.assert_array_equal(device.weights[name], plain.weights[name])
    assert [one.flops for one in adapting] == [one.flops for one in idle]


@pytest.mark.parametrize("policy", ["keep-own", "window-retrain"])
def test_where_the_fleet_stays_behind_it_pays_to_adapt(live, policy: str) -> None:
    _, adapting = live(policy=policy, samples=1000)
    _, idle = live()
    assert right(adapting) > right(idle) + 30


def test_rehearsal_and_comparison_cost_operations(live) -> None:
    idle = sum(outcome.flops for outcome in live()[1])
    assert sum(outcome.flops for outcome in live(policy="window-retrain")[1]) > 1.5 * idle
    assert sum(outcome.flops for outcome in live(policy="keep-own")[1]) > 1.1 * idle
    assert sum(outcome.flops for outcome in live(policy="boost-lr")[1]) == idle


def adapting(learner, stream, takes, **spec) -> Device:
    """A device that has just been told of a drift, ten samples ago."""
    device = Device.new(learner, stream(takes), adaptation=AdaptationSpec(**spec))
    assert device.adaptation is not None
    device.adaptation.left, device.adaptation.flagged = device.adaptation.spec.samples, True
    return device


@pytest.mark.parametrize(("blocks", "faster"), [("all", ("0", "2")), ("last", ("2",))])
def test_a_boost_is_a_larger_learning_rate(make_learner, make_order, stream, samples, blocks, faster) -> None:
    learner = make_learner(lr=0.1)
    device = adapting(learner, stream, [samples(4)], policy="boost-lr", factor=3.0, blocks=blocks)
    learn([plan(make_order(learner), device)])
    usual = Device.new(learner, stream([samples(4)]))
    learn([plan(make_order(learner), usual)])
    for name, start in learner.initial_weights().items():
        step = 3.0 if name in faster else 1.0
        np.testing.assert_allclose(device.weights[name] - start, step * (usual.weights[name] - start), atol=1e-5)


def test_who_learns_at_another_pace_does_not_disturb_those_beside_it(make_learner, make_order, stream, samples) -> None:
    learner = make_learner()
    alone, beside = (Device.new(learner, stream([samples(8)])) for _ in range(2))
    boosted = adapting(learner, stream, [samples(8)], policy="boost-lr")
    learn([plan(make_order(learner), alone)])
    learn([plan(make_order(learner), device) for device in (boosted, beside)])
    for name in alone.weights:
        np.testing.assert_array_equal(alone.weights[name], beside.weights[name])
        assert not np.array_equal(alone.weights[name], boosted.weights[name])


def test_the_server_sets_the_pace_too(make_learner, make_order, stream, samples) -> None:
    learner = make_learner(lr=0.1)
    by_server, by_device = (Device.new(learner, stream([samples(4)])) for _ in range(2))
    by_device = adapting(learner, stream, [samples(4)], policy="boost-lr", factor=2.0, blocks="last")
    learn([plan(make_order(learner, paces=(1.0, 2.0)), by_server)])
    learn([plan(make_order(learner), by_device)])
    for name in learner.sizes:
        np.testing.assert_array_equal(by_server.weights[name], by_device.weights[name])


def test_a_reset_is_done_once(make_learner, make_order, stream) -> None:
    learner = make_learner(momentum=0.9)
    device = adapting(learner, stream, [], policy="reset", blocks="last")
    device.momentum = {name: np.ones(size, np.float32) for name, size in learner.held.items()}
    sent = {name: np.full(size, 0.5, np.float32) for name, size in learner.sizes.items()}
    plan(make_order(learner, weights=sent), device)
    np.testing.assert_array_equal(device.weights["0"], sent["0"])
    np.testing.assert_array_equal(device.weights["2"], learner.initial()["2"])
    assert list(device.momentum) == ["0"]
    plan(make_order(learner, weights=sent), device)
    np.testing.assert_array_equal(device.weights["2"], sent["2"])


@pytest.mark.parametrize("better", ["own", "fleet"])
def test_a_device_keeps_what_errs_less(make_learner, make_order, stream, samples, better: str) -> None:
    learner = make_learner(epochs=20)
    device = adapting(learner, stream, [], policy="keep-own")
    seen = samples(40)
    device.adaptation.learnt(seen, np.ones(40, np.bool_), [39])
    trained = Device.new(learner, stream([seen]))
    learn([plan(make_order(learner), trained)])
    good, bad = dict(trained.weights), {name: -packed for name, packed in trained.weights.items()}
    device.weights = dict(good if better == "own" else bad)
    plan(make_order(learner, weights=bad if better == "own" else good), device)
    for name in good:
        np.testing.assert_array_equal(device.weights[name], good[name])


def test_the_latest_samples_are_gone_over_before_new_ones_are_scored(make_learner, make_order, stream, samples) -> None:
    learner = make_learner(lr=0.5)
    device = adapting(learner, stream, [samples(6, seed=2)], policy="window-retrain", epochs=2, memory=20)
    old, new = samples(12), samples(11, seed=1)
    device.adaptation.learnt(Samples.join([old, new]), np.arange(23) >= 12, [22])
    (outcome,) = learn([plan(make_order(learner), device)])
    # Of the 20 that it remembers 11 are of the new concept.
    reference = Device.new(learner, stream([new, new, samples(6, seed=2)]))
    learn([plan(make_order(learner), reference)])
    learn([plan(make_order(learner, weights={}), reference)])
    (expected,) = learn([plan(make_order(learner, weights={}), reference)])
    np.testing.assert_array_equal(outcome.predicted, expected.predicted)
    for name in learner.sizes:
        np.testing.assert_allclose(device.weights[name], reference.weights[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("drift", "moved"), [(renamed, ("2",)), (silent, ("0", "2"))])
@pytest.mark.parametrize("readout", ["fixed", "learnt"])
def test_only_blocks_that_have_to_do_with_it_adapt(make_order, stream, samples, drift, moved, readout) -> None:
    learner = learner_for(LearnerSpec(hidden=(32,), batch_size=4, epochs=5, seed=3, readout=readout), 6, 3)
    device = adapting(learner, stream, [samples(200)], policy="window-retrain", blocks="moved")
    item = plan(make_order(learner), device)
    learn([item])
    old, new = samples(50, seed=1), drift(samples(50, seed=2))
    device.adaptation.learnt(Samples.join([old, new]), np.arange(100) >= 50, [99])
    fleet = {name: device.send(name) for name in learner.sizes}
    assert plan(make_order(learner, weights=fleet), device).treatment.blocks == moved


def test_sequences_are_gone_over_with_their_lengths(make_order, stream) -> None:
    learner = learner_for(LearnerSpec(network="recurrent", hidden=(6,), batch_size=4, seed=3), (5, 2), 3)
    rng = np.random.default_rng(0)

    def draw(count: int) -> Samples:
        x, y = rng.normal(size=(count, 10)).astype(np.float32), rng.integers(3, size=count)
        return Samples(x, y, np.zeros(count), lengths=rng.integers(1, 6, size=count))

    seen, new = draw(20), draw(4)
    device = adapting(learner, stream, [new], policy="window-retrain", epochs=1, memory=20)
    device.adaptation.learnt(seen, np.ones(20, np.bool_), [19])
    device.adaptation.new = 20
    reference = Device.new(learner, stream([seen, new]))
    learn([plan(make_order(learner), reference)])
    learn([plan(make_order(learner, weights={}), reference)])
    learn([plan(make_order(learner), device)])
    for name in learner.sizes:
        np.testing.assert_allclose(device.weights[name], reference.weights[name], rtol=1e-5, atol=1e-6)
    kept = adapting(learner, stream, [draw(0)], policy="keep-own")
    kept.adaptation.learnt(seen, np.ones(20, np.bool_), [19])
    assert plan(make_order(learner), kept).treatment.scored == 2 * kept.adaptation.new


def test_what_is_gone_over_again_counts_against_the_deadline(make_learner, make_order, stream, samples) -> None:
    learner = make_learner()
    flops = learner.flops(tuple(learner.sizes))
    budget = Budget(flops_per_second=float(flops), deadline_seconds=20.0)
    blocks = {}
    for policy in ("boost-lr", "window-retrain"):
        spec = AdaptationSpec(policy=policy)
        device = Device.new(learner, stream([samples(10)]), 0, budget, spec)
        device.adaptation.learnt(samples(40), np.ones(40, np.bool_), [39])
        blocks[policy] = plan(make_order(learner), device).blocks
    assert blocks["boost-lr"] == ("0", "2")
    assert blocks["window-retrain"] != ("0", "2")


def test_it_ends_after_so_many_samples(live) -> None:
    assert live(10, policy="boost-lr", samples=400)[0].adaptation.left > 0
    assert live(30, policy="boost-lr", samples=20)[0].adaptation.left == 0


def test_what_is_remembered_is_bounded(live) -> None:
    device, _ = live(policy="window-retrain", memory=30)
    assert device.adaptation.latest.x.shape == (30, 6)
    assert live(policy="boost-lr")[0].adaptation.latest is None


@pytest.mark.parametrize("policy", POLICIES)
def test_an_adapting_device_resumes_as_it_was_suspended(live, make_order, stream, samples, policy: str) -> None:
    device, _ = live(5, policy=policy, blocks="moved")
    assert device.adaptation.left
    state = RecordDict()
    device.suspend(state)
    left = [renamed(samples(10, seed=7)), renamed(samples(9, seed=8))]
    spec = device.adaptation.spec
    device.stream, resumed = stream(left), Device.resume(state, device.learner, stream(left), adaptation=spec)
    for _ in left:
        order = make_order(device.learner, weights=device.learner.initial_weights())
        one, two = (report([(item, learn([item])[0])]) for item in (plan(order, device), plan(order, resumed)))
        assert (one.correct, one.detections, one.flops) == (two.correct, two.detections, two.flops)
        for name in one.weights:
            np.testing.assert_array_equal(one.weights[name], two.weights[name])


def test_one_that_was_suspended_without_adaptation_begins_to_adapt(make_learner, stream) -> None:
    state = RecordDict()
    Device.new(make_learner(), stream([])).suspend(state)
    resumed = Device.resume(state, make_learner(), stream([]), adaptation=AdaptationSpec(policy="boost-lr"))
    assert resumed.adaptation is not None
    assert resumed.adaptation.left == 0


def test_settings_cross_the_run_config() -> None:
    spec = AdaptationSpec(policy="keep-own", blocks="last", memory=50)
    assert AdaptationSpec.from_config({**spec.to_config(), "learner.lr": 1.0}) == spec
    assert AdaptationSpec.from_config({}) == AdaptationSpec()
    with pytest.raises(ModelError, match=r"adaptation\.policy"):
        AdaptationSpec.from_config({"adaptation.policy": "hope"})


def test_two_devices_that_share_a_spec_share_no_memory(make_learner, stream, samples) -> None:
    spec = AdaptationSpec(policy="window-retrain")
    one, two = (Device.new(make_learner(), stream([]), adaptation=spec) for _ in range(2))
    seen = copy.deepcopy(samples(5))
    one.adaptation.learnt(seen, np.zeros(5, np.bool_), [])
    assert len(one.adaptation.latest) == 5
    assert two.adaptation.latest is None
