"""The ClientApp, message by message as Flower calls it, against many devices learning together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, message_to_proto

from clients.app import answer, carry_out, conclude, make_client_app, read
from clients.device import Device
from fedtp.averaging import weighted_mean
from fedtp.data import DataSet
from fedtp.errors import FedtpError
from fedtp.learner import learner_of
from fedtp.wire import Order, Report
from simulations.arrivals import Constant, Labels
from simulations.drift import Change, Timeline
from simulations.executors import InlineExecutor
from simulations.flower import make_context
from simulations.streams import SimulatedStream

DEVICES, ROUND_SECONDS = 7, 60.0

# What the server asks for, order by order: all blocks, some, none.
ASKED = [("0", "2"), ("0",), ("0", "2"), (), ("2",), ("0", "2")]


@pytest.fixture
def make_open(samples):
    """Make what opens streams, of labels that come at once or late.

    Streams of unequal rates, one of them too slow to bring anything most of the time; errors jump when labels do.
    """
    drawn = samples(400, seed=5)
    data = DataSet("toy", drawn.x, drawn.y, ("a", "b", "c"), (6,), tuple("uvwxyz"))
    turned = DataSet("toy", drawn.x, (drawn.y + 1) % 3, data.classes, data.shape, data.feature_names)
    shares = np.array_split(np.random.default_rng(0).permutation(400), DEVICES)

    def make(labels: Labels | None = None):
        def open_(config):
            device = int(config["partition-id"])
            return SimulatedStream(
                {"before": data, "after": turned},
                shares[device],
                Timeline("before", (Change(150.0, "after"),)),
                Constant(0.004 if device == 6 else 0.1 + 0.4 * device, 0.5, -ROUND_SECONDS),
                labels=labels,
                seed=1,
                device=device,
            )

        return open_

    return make


@pytest.fixture
def open_stream(make_open):
    return make_open()


def run_config(learner, buffer: int = 0) -> dict[str, bool | int | float | str]:
    return {**learner.spec.to_config(), "shape": 6, "classes": 3, "buffer": buffer}


def replies(messages: list[Message], devices: list[Device]) -> list[Message]:
    """What nodes of one device each answer."""
    done = carry_out([read(message) for message in messages], [[device] for device in devices])
    return [answer(message, conclude(node)) for message, node in zip(messages, done, strict=True)]


class Apps:
    """A ClientApp per node; context and messages cross the wire before and after every call."""

    def __init__(self, learner, open_stream, buffer: int = 0) -> None:
        self.app = make_client_app(open_stream)
        self.contexts = {
            node: make_context(run_config(learner, buffer), node, {"partition-id": node - 1})
            for node in range(1, DEVICES + 1)
        }

    def __call__(self, messages: list[Message]) -> list[Message]:
        return [self._call(message) for message in messages]

    def _call(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        reply = self.app(message_from_proto(message_to_proto(message)), self.contexts[node])
        self.contexts[node] = context_from_proto(context_to_proto(self.contexts[node]))
        return message_from_proto(message_to_proto(reply))

    def device(self, node: int, open_stream) -> Device:
        context = self.contexts[node]
        config = {**context.run_config, **context.node_config}
        return Device.resume(context.state, learner_of(config), open_stream(config))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9, "lr": 0.1},
        {"epochs": 3, "batch_size": 3},
        {"epochs": 2, "momentum": 0.5, "weight_decay": 0.01, "lr": 0.2, "detector": "hddm-w"},
        {"method": "backprop", "lr": 0.1, "momentum": 0.9},
        {"freeze_after_seconds": 120.0, "detector": "none"},
        {"loss": "squared", "space": "target", "lr": 0.3},
        {"readout": "learnt"},
        {"readout": "learnt", "momentum": 0.9, "lr": 0.1},
        {"readout": "shared", "momentum": 0.5, "lr": 0.2, "epochs": 2},
        {"adaptor": "scale-shift", "readout": "learnt"},
        {"adaptor": "bottleneck", "momentum": 0.9, "lr": 0.1, "detector": "none"},
        {"adaptor": "low-rank", "readout": "shared", "momentum": 0.9, "lr": 0.1},
        {"labels": Labels(40.0, "exponential", 0.8)},
        {"labels": Labels(90.0), "buffer": 30, "epochs": 2, "detector": "none"},
    ],
    ids=lambda settings: " ".join(map(str, settings)) or "plain",
)
def test_it_does_what_a_cohort_does(make_learner, make_open, send, settings) -> None:
    settings = dict(settings)
    open_stream, buffer = make_open(settings.pop("labels", None)), settings.pop("buffer", 0)
    learner = make_learner(**settings)
    apps = Apps(learner, open_stream, buffer)
    inline = InlineExecutor(lambda device: Device.new(learner, open_stream({"partition-id": device}), buffer))
    devices = {}
    weights = learner.initial_weights()
    detections = 0
    for number, asked in enumerate(ASKED):
        blocks = tuple(name for name in asked if name in learner.sizes)
        order = Order(number + 1, number * ROUND_SECONDS, learner.digest, weights, blocks)
        messages = [send(order, node) for node in range(1, DEVICES + 1)]
        nodes = [[device] for device in range(DEVICES)]
        inline.learn(messages, nodes)
        together = inline.report(messages, nodes)
        updates = {name: [] for name in weights}
        for message, alone, reply in zip(messages, apps(messages), together, strict=True):
            node = message.metadata.dst_node_id
            assert alone.metadata.reply_to_message_id == message.metadata.message_id
            assert alone.metadata.src_node_id == reply.metadata.src_node_id == node
            one, many = Report.from_records(alone.content), Report.from_records(reply.content)
            assert (one.samples, one.correct, one.detections) == (many.samples, many.correct, many.detections)
            assert (one.examples, one.flops, one.digest) == (many.examples, many.flops, many.digest)
            np.testing.assert_allclose(one.loss, many.loss, rtol=1e-4)
            device = devices[node] = inline._shard.device(node - 1)
            resumed = apps.device(node, open_stream)
            assert resumed.stream.position == device.stream.position
            mine, other = device.inbox.state().arrays, resumed.inbox.state().arrays
            assert list(mine) == list(other)
            assert all(np.array_equal(mine[name], other[name]) for name in mine)
            for kept in ("weights", "momentum"):
                ours, theirs = getattr(device, kept), getattr(resumed, kept)
                assert list(ours) == list(theirs)
                for name in ours:
                    assert ours[name].shape == (learner.held[name],)
                    np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-3, atol=1e-6)
            for name, packed in many.weights.items():
                np.testing.assert_allclose(one.weights[name], packed, rtol=1e-3, atol=1e-6)
                updates[name].append((packed, many.examples[name]))
            detections += many.detections
        weights = {name: weighted_mean(u) if u else weights[name] for name, u in updates.items()}
    assert {len(d.momentum) for d in devices.values()} == {len(learner.sizes) if settings.get("momentum") else 0}
    assert all(device.stream.position > 0 for device in devices.values())
    assert (detections > 0) == (learner.spec.detector != "none")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_learnt_readout_stays_on_its_device(make_learner, open_stream, send, momentum) -> None:
    learner = make_learner(readout="learnt", momentum=momentum, lr=0.1)
    apps = Apps(learner, open_stream)
    size, start = learner.sizes["0"], learner.initial()["0"]
    kept = []
    for number in range(2):
        order = Order(number + 1, number * ROUND_SECONDS, learner.digest, learner.initial_weights(), ("0", "2"))
        replies = apps([send(order, node) for node in (3, 4)])
        assert [Report.from_records(reply.content).weights["0"].size for reply in replies] == [size, size]
        kept.append([apps.device(node, open_stream).weights["0"][size:] for node in (3, 4)])
    (first, other), (second, _) = kept
    assert len(first) == 3 * 8
    assert not np.allclose(first, start[size:], atol=1e-4)
    assert not np.allclose(first, other, atol=1e-4)
    assert not np.allclose(first, second, atol=1e-4)
    order = Order(9, ROUND_SECONDS, learner.digest, {"0": np.zeros(size, np.float32)}, ())
    apps([send(order, 3)])
    after = apps.device(3, open_stream).weights["0"]
    assert not after[:size].any()
    np.testing.assert_array_equal(after[size:], second)


def test_devices_differ_in_how_much_they_see(make_learner, open_stream, send) -> None:
    """The test above means little unless cohorts are ragged and some devices are idle."""
    learner = make_learner()
    inline = InlineExecutor(lambda device: Device.new(learner, open_stream({"partition-id": device})))
    order = Order(1, 0.0, learner.digest, learner.initial_weights(), ("0", "2"))
    messages = [send(order, node + 1) for node in range(DEVICES)]
    counts = [outcome.samples for (outcome,) in inline.learn(messages, [[device] for device in range(DEVICES)])]
    assert counts[-1] == 0
    assert len(set(counts)) == DEVICES


def test_one_and_the_same_device_however_its_orders_are_spread(make_learner, open_stream, send) -> None:
    """A context that lasts and a context that is restored each time lead to the same."""
    learner = make_learner(momentum=0.5, lr=0.2)
    kept = make_context(run_config(learner), 1, {"partition-id": 2})
    apps = Apps(learner, open_stream)
    apps.contexts[3].node_config = {"partition-id": 2}
    for number in range(3):
        order = Order(number + 1, number * 60.0, learner.digest, learner.initial_weights(), ("0", "2"))
        message = send(order, 3)
        one, other = apps.app(message, kept), apps([message])[0]
        assert Report.from_records(one.content).samples > 0
        for name, packed in Report.from_records(one.content).weights.items():
            np.testing.assert_array_equal(Report.from_records(other.content).weights[name], packed)


def test_the_order_of_the_list_is_kept(make_learner, open_stream, send) -> None:
    learner = make_learner()
    inline = InlineExecutor(lambda device: Device.new(learner, open_stream({"partition-id": device})))
    order = Order(1, 60.0, learner.digest, learner.initial_weights(), ("0", "2"))
    messages = [send(order, node) for node in (5, 2, 7, 1, 3)]
    nodes = [[4], [1], [6], [0], [2]]
    inline.learn(messages, nodes)
    replies = inline.report(messages, nodes)
    assert [reply.metadata.src_node_id for reply in replies] == [5, 2, 7, 1, 3]
    assert [reply.metadata.reply_to_message_id for reply in replies] == [m.metadata.message_id for m in messages]


@pytest.mark.parametrize("fault", ["nan", "width", "label", "order"])
def test_only_the_device_that_fails_suffers(make_learner, make_order, stream, samples, send, fault) -> None:
    learner = make_learner()
    bad = samples(9, seed=1)
    if fault == "nan":
        bad.x[4, 2] = np.nan
    elif fault == "width":
        bad = type(bad)(bad.x[:, :4], bad.y, bad.seconds)
    elif fault == "label":
        bad.y[0] = 3
    order = make_order(learner)
    wrong = make_order(learner, digest="elsewhere") if fault == "order" else order

    def devices():
        return [Device.new(learner, stream([take, take])) for take in (samples(9), bad, samples(9, seed=2))]

    first, error, last = replies([send(order, 1), send(wrong, 2), send(order, 3)], devices())
    assert error.has_error()
    assert error.metadata.src_node_id == 2
    assert ("digest" if fault == "order" else "stream must yield") in error.error.reason
    alone = [replies([send(order, 1)], [device])[0] for device in devices()[::2]]
    for reply, expected in zip((first, last), alone, strict=True):
        one, other = Report.from_records(reply.content), Report.from_records(expected.content)
        assert (one.samples, one.correct) == (other.samples, other.correct) == (9, one.correct)
        for name in one.weights:
            np.testing.assert_allclose(one.weights[name], other.weights[name], rtol=1e-4, atol=1e-6)


def test_a_message_that_is_no_order_gets_an_error_that_says_so(make_learner, stream, samples, send) -> None:
    device = Device.new(make_learner(), stream([samples(3)]))
    (reply,) = replies([send(RecordDict())], [device])
    assert reply.has_error()
    assert "order" in reply.error.reason
    assert device.stream.position == 0


def test_a_device_goes_on_after_samples_it_could_not_use(make_learner, make_order, stream, samples, send) -> None:
    learner = make_learner()
    bad = samples(4)
    bad.x[:] = np.nan
    device = Device.new(learner, stream([bad, samples(5)]))
    first, second = (replies([send(make_order(learner))], [device])[0] for _ in range(2))
    assert first.has_error()
    assert Report.from_records(second.content).samples == 5


def test_the_stream_is_opened_by_the_import_path_of_the_run_config(make_learner, make_order, send) -> None:
    learner = make_learner(hidden=(16,))
    config = {**run_config(learner), "stream": "simulations.world:open_stream", "scenario": "no-such-scenario"}
    app = make_client_app()
    with pytest.raises(FedtpError, match="no-such-scenario"):
        app(send(make_order(learner)), make_context(config, 1, {"partition-id": 0}))
    with pytest.raises(FedtpError, match=r'stream is ""'):
        app(send(make_order(learner)), make_context(run_config(learner), 1, {"partition-id": 0}))


def test_positions_never_go_back(make_learner, open_stream, send) -> None:
    learner = make_learner()
    apps = Apps(learner, open_stream)
    positions = []
    for number, now in enumerate((0.0, 60.0, 60.0, 30.0, 120.0)):
        apps([send(Order(number + 1, now, learner.digest, learner.initial_weights(), ("0", "2")), 4)])
        positions.append(apps.device(4, open_stream).stream.position)
    assert all(a <= b for a, b in pairwise(positions))
    assert positions[1] == positions[3]


# --- Gateways -------------------------------------------------------------------------------------------------------


def test_a_gateway_answers_with_its_devices_weighted_mean(make_learner, make_order, stream, samples, send) -> None:
    learner = make_learner()
    counts = [9, 0, 4, 30]

    def devices():
        return [Device.new(learner, stream([samples(n, seed=n)])) for n in counts]

    order = make_order(learner)
    alone = [Report.from_records(reply.content) for reply in replies([send(order)] * 4, devices())]
    (done,) = carry_out([order], [devices()])
    together = Report.from_records(answer(send(order), conclude(done)).content)
    for name in learner.sizes:
        expected = sum(r.examples[name] * r.weights[name] for r in alone if name in r.weights) / 43
        np.testing.assert_allclose(together.weights[name], expected, rtol=1e-4, atol=1e-6)
        assert together.examples[name] == together.samples == 43
    assert together.correct == sum(report.correct for report in alone)
    assert together.flops == sum(report.flops for report in alone)
    expected = sum(r.loss * r.samples for r in alone if r.samples) / 43
    assert together.loss == pytest.approx(expected, rel=1e-4)


def test_a_gateway_answers_for_those_that_could_work(make_learner, make_order, stream, samples, send) -> None:
    learner = make_learner()
    bad = samples(5)
    bad.x[:] = np.nan
    devices = [Device.new(learner, stream([take])) for take in (bad, samples(9))]
    (done,) = carry_out([make_order(learner)], [devices])
    assert [outcome.samples for _, outcome in done] == [0, 9]
    assert "stream must yield" in done[0][1].error
    assert Report.from_records(answer(send(make_order(learner)), conclude(done)).content).samples == 9
    reply = answer(send(make_order(learner)), conclude(done[:1]))
    assert "stream must yield" in reply.error.reason


@pytest.mark.parametrize("count", [0, -1, 1.5, "two"])
def test_a_gateway_of_no_such_size_is_refused(make_learner, make_order, open_stream, send, count) -> None:
    learner = make_learner()
    context = make_context(run_config(learner), 1, {"partition-id": 0, "devices-per-node": count})
    with pytest.raises(FedtpError, match="devices-per-node"):
        make_client_app(open_stream)(send(make_order(learner)), context)
