from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from flwr.app import RecordDict

from clients.device import Device
from clients.settings import AdaptationSpec
from clients.training import learn, plan, report
from fedtp.data.stream import Samples
from fedtp.detection import detect
from fedtp.errors import DataError
from fedtp.streaming.state import Part, State


@pytest.mark.parametrize("detector", ["adwin", "page-hinkley", "ddm", "hddm-w", "none"])
def test_a_device_resumes_as_it_was_suspended(make_learner, stream, samples, detector) -> None:
    learner = make_learner(momentum=0.9, detector=detector)
    device = Device.new(learner, stream([samples(5), samples(7, seed=1)]))
    device.stream.take(0.0)
    device.weights["0"] = np.arange(learner.sizes["0"], dtype=np.float32)
    device.momentum["2"] = np.full(learner.sizes["2"], 0.5, np.float32)
    detect(device.detector, [False] * 200)

    state = RecordDict()
    device.suspend(state)
    resumed = Device.resume(state, learner, stream([]))

    assert resumed.stream.position == 5
    assert list(resumed.weights) == ["0", "2"]
    for name in resumed.weights:
        np.testing.assert_array_equal(resumed.weights[name], device.weights[name])
    assert list(resumed.momentum) == ["2"]
    np.testing.assert_array_equal(resumed.momentum["2"], device.momentum["2"])
    assert detect(resumed.detector, [True] * 200) == detect(device.detector, [True] * 200)


def test_where_nothing_was_written_a_device_is_new(make_learner, stream) -> None:
    learner = make_learner()
    device = Device.resume(RecordDict(), learner, stream([]))
    assert device.stream.position == 0
    assert device.momentum == {}
    for name, weights in learner.initial_weights().items():
        np.testing.assert_array_equal(device.weights[name], weights)


LATE = AdaptationSpec(policy="window-retrain", samples=50, memory=30)


@pytest.fixture
def device(make_learner, make_order, stream, samples) -> Device:
    """A device that knows all that one can: it waits for labels, remembers samples, and adapts."""
    learner = make_learner(momentum=0.9, lr=0.2, detector="adwin")
    takes = [late(samples(20, seed=n), 20.0 * n) for n in range(4)]
    made = Device.new(learner, stream(takes), 15, adaptation=LATE)
    for now in (20.0, 40.0):
        learn([plan(make_order(learner, now=now), made)])
    made.adaptation.learnt(samples(30), np.ones(30, np.bool_), [29])
    learn([plan(make_order(learner, now=60.0), made)])
    assert all([made.momentum, made.inbox.waiting, made.adaptation.left, made.adaptation.latest])
    return made


def late(samples: Samples, start: float) -> Samples:
    seconds = samples.seconds + start
    return replace(samples, seconds=seconds, label_seconds=seconds + 15)


def heir(device: Device, stream) -> Device:
    return Device.new(device.learner, stream([]), device.inbox.capacity, adaptation=LATE)


def test_a_device_goes_on_where_another_was(device, make_order, stream, samples) -> None:
    other = heir(device, stream)
    state = device.state()
    other.load_state(State(state.arrays, json.loads(json.dumps(state.record))))
    assert other.stream.position == device.stream.position == 60
    device.stream, other.stream = (stream([late(samples(20, seed=9), 60.0)]) for _ in range(2))
    order = make_order(device.learner, now=80.0)
    one, two = ([(item, learn([item])[0])] for item in (plan(order, device), plan(order, other)))
    for ours, theirs in zip(one[0][1:], two[0][1:], strict=True):
        np.testing.assert_array_equal(ours.predicted, theirs.predicted)
        assert (ours.detections, ours.flops, ours.dropped) == (theirs.detections, theirs.flops, theirs.dropped)
    assert report(one).samples > 0
    for name, packed in report(one).weights.items():
        np.testing.assert_array_equal(packed, report(two).weights[name])
    for name, packed in device.momentum.items():
        np.testing.assert_array_equal(packed, other.momentum[name])


def test_all_that_a_device_knows_is_saved(device, make_learner, stream) -> None:
    """Whoever lets one remember more has to save that too, in `state` and `load_state`, and then name it here."""
    given = {"learner", "budget"}
    saved = {"weights", "momentum", "detector", "inbox", "adaptation", "stream"}
    assert {field.name for field in fields(Device)} == vars(device).keys() == given | saved
    assert vars(device.inbox).keys() == {"capacity", "waiting", "predicted"}
    assert vars(device.adaptation).keys() == {"spec", "latest", "wrong", "left", "new", "flagged", "moved"}
    for part in (device, device.inbox, device.adaptation):
        assert isinstance(part, Part)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a, r: r.pop("inbox"), "belongs to nothing"),
        (lambda a, r: (a.clear(), r.pop("momentum")), "of a device the momentum is missing"),
        (lambda a, r: a.pop("weights/2"), "a device has weights of the blocks 0, not 0, 2"),
        (lambda a, r: a.update({"weights/0": np.zeros(3, np.float32)}), r"block '0' a device has float32 \[3\]"),
        (lambda a, r: a.update({"momentum/9": np.zeros(3, np.float32)}), "of the block '9'"),
        (lambda a, r: r["device"].update(position=-1), "'position' is -1, not a whole number"),
        (lambda a, r: r["device"].update(detector=None), "a device has another drift detector"),
        (lambda a, r: a.pop("inbox/y"), "samples have not the columns"),
        (lambda a, r: a.pop("inbox/predicted"), "it is not known what was predicted"),
        (lambda a, r: a.update({"adaptation/wrong": np.ones(3, np.bool_)}), "how they were predicted"),
        (lambda a, r: r["adaptation"].update(left=0.5), "'left' is 0.5"),
    ],
)
def test_what_is_no_device_is_refused(device, stream, spoil, message: str) -> None:
    state = device.state()
    arrays, record = dict(state.arrays), json.loads(json.dumps(state.record))
    spoil(arrays, record)
    other = heir(device, stream)
    before = dict(vars(other))
    with pytest.raises(DataError, match=message):
        other.load_state(State(arrays, record))
    assert vars(other) == before
    assert other.stream.position == 0


def test_one_that_adapts_is_not_taken_for_one_that_does_not(device, stream) -> None:
    with pytest.raises(DataError, match="adapts to drift, and shall not"):
        Device.new(device.learner, stream([])).load_state(device.state())


def test_loading_shares_no_memory_that_is_written_to(device, stream) -> None:
    one, two = heir(device, stream), heir(device, stream)
    for other in (one, two):
        other.load_state(device.state())
    one.inbox.predicted[:] = 2
    assert two.inbox.predicted is not one.inbox.predicted
    np.testing.assert_array_equal(two.inbox.predicted, device.inbox.predicted)
