"""A device's work on an order, against a slow reference that does one sample or batch at a time."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.device import Device
from clients.training import learn, plan, report
from fedtp.blocks import Chain
from fedtp.data.stream import Samples
from fedtp.errors import DataError, WireError
from fedtp.learner import learner_for
from fedtp.learner_spec import LearnerSpec


def carried_out(order, device):
    item = plan(order, device)
    return report(list(zip([item], learn([item]), strict=True)))


def reference(learner, weights, samples, blocks, *, epochs, batch_size):
    """One device alone: predict a batch, then learn from it."""
    model = copy.deepcopy(learner.model)
    for block in Chain(model):
        block.unpack(torch.tensor(weights[block.name]))
    optimizer = learner.optimizer(model)
    x, y = torch.tensor(samples.x), torch.tensor(samples.y)
    predicted = []
    for epoch in range(epochs):
        for start in range(0, len(y), batch_size):
            batch = slice(start, start + batch_size)
            if epoch == 0:
                with torch.no_grad():
                    predicted += model(x[batch]).argmax(1).tolist()
            if blocks:
                optimizer.step(x[batch], y[batch], blocks=blocks)
    return predicted, {block.name: block.pack().numpy() for block in Chain(model)}


@pytest.mark.parametrize("method", ["tpsgd", "backprop"])
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("blocks", [("0", "2"), ("0",), ("2",), ()])
def test_each_sample_is_scored_by_the_model_of_that_moment(
    make_learner, make_order, stream, samples, method, epochs, blocks
) -> None:
    learner = make_learner(method=method, lr=0.5, epochs=epochs, batch_size=4)
    counts = [11, 4, 1, 12, 0]
    devices = [Device.new(learner, stream([samples(n, seed=n)])) for n in counts]
    order = make_order(learner, blocks=blocks)
    outcomes = learn([plan(order, device) for device in devices])
    for count, device, outcome in zip(counts, devices, outcomes, strict=True):
        predicted, weights = reference(
            learner, order.weights, samples(count, seed=count), blocks, epochs=epochs, batch_size=4
        )
        assert outcome.predicted.tolist() == predicted
        assert outcome.correct == int(np.sum(samples(count, seed=count).y == predicted))
        for name, packed in weights.items():
            np.testing.assert_allclose(device.weights[name], packed, rtol=1e-4, atol=1e-6)


def test_nothing_that_was_learnt_shows_in_the_scores(make_learner, make_order, stream) -> None:
    """Random labels, learnt by heart in many epochs: scores of one batch must be those of chance."""
    learner = make_learner(hidden=(64,), batch_size=30, epochs=300, lr=3.0)
    rng = np.random.default_rng(0)
    noise = Samples(rng.normal(size=(30, 6)).astype(np.float32), rng.integers(3, size=30), np.zeros(30))
    device = Device.new(learner, stream([noise, noise]))
    order = make_order(learner)
    (first,) = learn([plan(order, device)])
    (again,) = learn([plan(make_order(learner, weights=device.weights), device)])
    assert first.correct / 30 < 0.5
    assert again.correct / 30 > 0.9


SEQUENCES = LearnerSpec(network="recurrent", hidden=(4,), batch_size=4, epochs=2, seed=3)


def sequences(lengths, seed=0) -> Samples:
    """Sequences of up to 5 steps of 2 features; what pads them would show if it were seen."""
    rng = np.random.default_rng(seed)
    lengths = np.array(lengths)
    x = rng.normal(size=(len(lengths), 5, 2)).astype(np.float32)
    x[np.arange(5) >= lengths[:, None]] = 9.0
    return Samples(x.reshape(-1, 10), rng.integers(3, size=len(lengths)), np.zeros(len(lengths)), lengths=lengths)


def test_sequences_learn_together_as_they_do_alone(make_order, stream) -> None:
    learner = learner_for(SEQUENCES, (5, 2), 3)
    drawn = [sequences([5, 1, 3, 2, 4, 2]), sequences([1, 2, 1, 1, 2], seed=1), sequences([3, 3, 3, 3, 3], seed=2)]
    whole = Samples(drawn[2].x, drawn[2].y, drawn[2].seconds)  # without lengths all steps count
    order = make_order(learner)
    together = [Device.new(learner, stream([s])) for s in (drawn[0], drawn[1], whole)]
    alone = [Device.new(learner, stream([s])) for s in (drawn[0], drawn[1], whole)]
    outcomes = learn([plan(order, device) for device in together])
    for one, other, outcome in zip(together, alone, outcomes, strict=True):
        (expected,) = learn([plan(order, other)])
        assert outcome.predicted.tolist() == expected.predicted.tolist()
        for name, packed in other.weights.items():
            np.testing.assert_allclose(one.weights[name], packed, rtol=1e-4, atol=1e-6)
            assert not np.array_equal(packed, order.weights[name])
    # A step is a fifth of a sample's work; all is done in two epochs.
    steps = [17, 7, 25]
    assert [o.flops for o in outcomes] == pytest.approx([n / 5 * 2 * learner.flops() for n in steps])


@pytest.mark.parametrize("lengths", [[1, 0], [1, 6], [1], [[1, 1]]])
def test_a_stream_with_impossible_lengths_is_refused(make_order, stream, lengths) -> None:
    learner = learner_for(SEQUENCES, (5, 2), 3)
    two = sequences([1, 1])
    device = Device.new(learner, stream([Samples(two.x, two.y, two.seconds, lengths=np.array(lengths))]))
    with pytest.raises(DataError, match="sequences of 1 to 5 time steps, and one length each"):
        plan(make_order(learner), device)


def test_a_device_without_new_samples_says_so_and_nothing_changes(make_learner, make_order, stream, samples) -> None:
    learner = make_learner(momentum=0.9)
    device = Device.new(learner, stream([samples(8)]))
    learn([plan(make_order(learner), device)])
    before = copy.deepcopy((device.momentum, device.stream.position, device.detector.width))
    order = make_order(learner)
    said = carried_out(order, device)
    assert (said.samples, said.correct, said.detections, said.flops) == (0, 0, 0, 0.0)
    assert said.weights == said.examples == {}
    assert np.isnan(said.loss)
    for name in learner.sizes:
        np.testing.assert_array_equal(device.weights[name], order.weights[name])
        np.testing.assert_array_equal(device.momentum[name], before[0][name])
    assert (device.stream.position, device.detector.width) == before[1:]


def test_a_frozen_device_predicts_and_watches_but_does_not_learn(make_learner, make_order, stream, samples) -> None:
    learner = make_learner(freeze_after_seconds=100.0)
    device = Device.new(learner, stream([samples(9), samples(9)]))
    for now, blocks in ((99.9, ("0", "2")), (100.0, ())):
        said = carried_out(make_order(learner, now=now), device)
        assert tuple(said.weights) == blocks
        assert said.samples == 9
    for name, packed in learner.initial_weights().items():
        np.testing.assert_array_equal(device.weights[name], packed)
    assert device.detector.width == 18


def test_a_device_reports_only_the_blocks_that_it_trained(make_learner, make_order, stream, samples) -> None:
    learner = make_learner()
    said = carried_out(make_order(learner, blocks=("2",)), Device.new(learner, stream([samples(9)])))
    assert list(said.weights) == ["2"]
    assert said.examples == {"2": 9}
    assert np.isfinite(said.loss)


def test_the_loss_is_unknown_where_the_last_block_was_not_trained(make_learner, make_order, stream, samples) -> None:
    learner = make_learner()
    (outcome,) = learn([plan(make_order(learner, blocks=("0",)), Device.new(learner, stream([samples(9)])))])
    assert np.isnan(outcome.loss)


def test_blocks_that_an_order_leaves_out_stay_as_the_device_has_them(make_learner, make_order, stream, samples) -> None:
    learner = make_learner()
    device = Device.new(learner, stream([samples(9), samples(0)]))
    learn([plan(make_order(learner), device)])
    learnt = device.weights["0"].copy()
    plan(make_order(learner, weights={"2": np.zeros(learner.sizes["2"], np.float32)}), device)
    np.testing.assert_array_equal(device.weights["0"], learnt)
    assert not device.weights["2"].any()


@pytest.mark.parametrize("method", ["tpsgd", "backprop"])
def test_work_grows_with_samples_blocks_and_epochs(make_learner, make_order, stream, samples, method) -> None:
    def flops(count: int, blocks: tuple[str, ...], epochs: int) -> float:
        learner = make_learner(method=method, epochs=epochs)
        device = Device.new(learner, stream([samples(count)]))
        return learn([plan(make_order(learner, blocks=blocks), device)])[0].flops

    both = ("0", "2")
    assert flops(10, both, 1) == 10 * make_learner(method=method).flops(both)
    assert flops(20, both, 1) == 2 * flops(10, both, 1)
    assert flops(10, both, 3) == 3 * flops(10, both, 1)
    assert 0 < flops(10, (), 3) == flops(10, (), 1) < flops(10, ("2",), 1) < flops(10, both, 1)


def test_momentum_lasts_from_order_to_order(make_learner, make_order, stream, samples) -> None:
    learner = make_learner(momentum=0.9, batch_size=8)
    device = Device.new(learner, stream([samples(8), samples(8)]))
    steps = []
    for _ in range(2):
        order = make_order(learner)
        learn([plan(order, device)])
        steps.append({name: device.weights[name] - order.weights[name] for name in learner.sizes})
    # The same samples and weights again: the step is 1.9 times the first.
    for name in learner.sizes:
        np.testing.assert_allclose(steps[1][name], 1.9 * steps[0][name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"digest": "0" * 32}, "digest"),
        ({"weights": {"0": np.zeros(3, np.float32)}}, "shape"),
        ({"weights": {"7": np.zeros(3, np.float32)}}, "shape"),
        ({"blocks": ("0", "7")}, "extra block"),
    ],
)
def test_an_order_that_does_not_fit_is_refused_before_anything_is_taken(
    make_learner, make_order, stream, samples, other, reason
) -> None:
    learner = make_learner()
    device = Device.new(learner, stream([samples(5)]))
    with pytest.raises(WireError) as caught:
        plan(make_order(learner, **other), device)
    assert caught.value.reason == reason
    assert device.stream.position == 0


def spoilt(kind: str, good: Samples) -> Samples:
    x, y = good.x.copy(), good.y.copy()
    match kind:
        case "nan":
            x[2, 1] = np.nan
        case "infinite":
            x[0, 0] = -np.inf
        case "too large to square":
            x[1] = 1e25
        case "too narrow":
            x = x[:, :-1]
        case "flat":
            x = x.ravel()
        case "too few labels":
            y = y[:-1]
        case "labels as a column":
            y = y[:, None]
        case "label too large":
            y[3] = 3
        case "negative label":
            y[3] = -1
        case "labels between classes":
            y = y + 0.5
        case "labels not numbers":
            y = np.full(len(y), np.nan)
    return Samples(x, y, good.seconds)


SPOILT = (
    "nan",
    "infinite",
    "too large to square",
    "too narrow",
    "flat",
    "too few labels",
    "labels as a column",
    "label too large",
    "negative label",
    "labels between classes",
    "labels not numbers",
)


@pytest.mark.parametrize("kind", SPOILT)
def test_what_cannot_be_learnt_from_is_refused_with_a_sentence(make_learner, make_order, stream, samples, kind) -> None:
    learner = make_learner()
    device = Device.new(learner, stream([spoilt(kind, samples(6))]))
    weights = {name: np.ones(size, np.float32) for name, size in learner.sizes.items()}
    with pytest.raises(DataError, match="stream must yield"):
        plan(make_order(learner, weights=weights), device)
    for name, packed in learner.initial_weights().items():
        np.testing.assert_array_equal(device.weights[name], packed)


# --- Late labels and full buffers -----------------------------------------------------------------------------------


def test_a_late_label_is_scored_by_the_first_prediction_and_learnt_from_then(
    make_learner, make_order, stream, samples
) -> None:
    """The label of every second sample comes an order later; the model has been exchanged by then."""
    learner = make_learner(batch_size=4)
    drawn = samples(12)
    late = np.where(np.arange(12) % 2, 100.0, 0.0)
    device = Device.new(learner, stream([replace(drawn, seconds=np.zeros(12), label_seconds=late)]))
    before = learner.initial_weights()
    (first,) = learn([plan(make_order(learner, now=50.0), device)])
    assert first.labels.tolist() == drawn.y[::2].tolist()
    assert report([(plan(make_order(learner, now=60.0), device), first)]).samples == 6

    after = {name: -weights for name, weights in before.items()}
    (second,) = learn([plan(make_order(learner, now=110.0, weights=after), device)])
    assert second.labels.tolist() == drawn.y[1::2].tolist()
    assert second.label_delay_seconds == 100.0
    then = Samples(drawn.x[1::2], drawn.y[1::2], np.zeros(6))
    predicted, _ = reference(learner, before, then, (), epochs=1, batch_size=4)
    assert second.predicted.tolist() == predicted
    assert second.correct == np.sum(drawn.y[1::2] == predicted)
    _, weights = reference(learner, after, then, ("0", "2"), epochs=1, batch_size=4)
    for name, packed in weights.items():
        np.testing.assert_allclose(device.weights[name], packed, rtol=1e-4, atol=1e-6)


def test_inputs_without_labels_are_predicted_at_the_cost_of_a_look(make_learner, make_order, stream, samples) -> None:
    learner = make_learner()
    never = replace(samples(9), label_seconds=np.full(9, np.inf))
    device = Device.new(learner, stream([never]))
    (outcome,) = learn([plan(make_order(learner), device)])
    assert (outcome.samples, outcome.unlabelled, outcome.dropped) == (0, 9, 0)
    assert outcome.flops == 9 * learner.flops(())
    assert outcome.blocks == ()
    assert len(device.inbox.waiting) == 0


def test_a_device_tells_what_its_buffer_dropped(make_learner, make_order, stream, samples) -> None:
    learner = make_learner()
    device = Device.new(learner, stream([samples(9), samples(3)]), buffer=4)
    (full,), (small,) = (learn([plan(make_order(learner), device)]) for _ in range(2))
    assert (full.samples, full.dropped) == (4, 5)
    assert full.labels.tolist() == samples(9).y[5:].tolist()
    assert (small.samples, small.dropped) == (3, 0)
