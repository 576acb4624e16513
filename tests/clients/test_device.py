from __future__ import annotations

import numpy as np
import pytest
from flwr.app import RecordDict

from clients.device import Device
from fedtp.detection import detect


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
