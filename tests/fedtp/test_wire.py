from __future__ import annotations

import io
import math
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedtp import TPSGD
from fedtp.errors import WireError
from fedtp.learner import Learner
from fedtp.learner_spec import LearnerSpec
from fedtp.wire import VERSION, Order, Report, content_bytes, pack_array, unpack_array

DIGEST = "0123456789abcdef" * 2
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
vectors = st.lists(st.floats(width=32), max_size=20).map(lambda numbers: np.array(numbers, np.float32))
seconds = st.floats(0, 1e12)
counts = st.integers(0, 2**31 - 1)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    samples = draw(counts)
    weights = draw(st.dictionaries(names, vectors, max_size=4 if samples else 0))
    few = st.integers(0, samples)
    trainable = tuple(draw(st.lists(names, max_size=4, unique=True)))
    return Report(
        digest=draw(names),
        weights=weights,
        examples={name: draw(st.integers(1, samples)) for name in weights},
        samples=samples,
        correct=draw(few),
        loss=draw(st.floats(0, 1e300) | st.just(math.nan)),
        detections=draw(few),
        flops=draw(st.floats(0, 1e300)),
        trainable=trainable,
        wanted=draw(st.integers(1, 9)) if trainable else 0,
    )


paces = st.floats(1e-3, 1e3)
orders = st.builds(
    Order,
    round=st.integers(1, 2**60),
    now=seconds,
    digest=names,
    weights=st.dictionaries(names, vectors, max_size=4),
    blocks=st.lists(names, min_size=2, max_size=2).map(tuple),
    paces=st.just(()) | st.tuples(paces, paces),
)


def over_the_wire(records: RecordDict) -> RecordDict:
    """What arrives of records that Flower serialised, sent and read."""
    return recorddict_from_proto(ProtoRecordDict.FromString(serialised(records)))


def serialised(records: RecordDict) -> bytes:
    return recorddict_to_proto(records).SerializeToString()


def message(records: RecordDict) -> Message:
    return Message(records, dst_node_id=1, message_type=MessageType.TRAIN)


def assert_same_arrays(one: Mapping[str, NDArray[np.float32]], two: Mapping[str, NDArray[np.float32]]) -> None:
    assert list(one) == list(two)
    for name, array in one.items():
        assert two[name].dtype == np.float32
        np.testing.assert_array_equal(two[name], array)


@settings(max_examples=50, deadline=None)
@given(orders, st.booleans())
def test_orders_come_back_as_they_were(order: Order, sent: bool) -> None:
    records = order.to_records()
    found = Order.from_records(over_the_wire(records) if sent else records)
    assert_same_arrays(order.weights, found.weights)
    for name in ("round", "now", "digest", "blocks", "paces"):
        assert getattr(found, name) == getattr(order, name)


@settings(max_examples=50, deadline=None)
@given(reports(), st.booleans())
def test_reports_come_back_as_they_were(report: Report, sent: bool) -> None:
    records = report.to_records()
    found = Report.from_records(over_the_wire(records) if sent else records)
    assert_same_arrays(report.weights, found.weights)
    assert found.loss == report.loss or (math.isnan(found.loss) and math.isnan(report.loss))
    for name in ("digest", "examples", "samples", "correct", "detections", "flops"):
        assert getattr(found, name) == getattr(report, name)


def test_a_device_without_samples_has_little_to_say() -> None:
    records = over_the_wire(Report(DIGEST).to_records())
    assert Report.from_records(records).samples == 0
    assert content_bytes(message(records)) < 200


@pytest.mark.parametrize("size", [0, 1, 3, 1000, 123_456])
def test_packed_bytes_are_flowers(size: int) -> None:
    weights = np.random.default_rng(0).normal(size=size).astype(np.float32)
    packed, flowers = pack_array(weights), Array(weights)
    assert packed == flowers
    assert packed.object_id == flowers.object_id
    unpacked = unpack_array("0", flowers)
    np.testing.assert_array_equal(unpacked, weights)
    assert not unpacked.flags.writeable
    np.testing.assert_array_equal(packed.numpy(), weights)


def test_other_layouts_are_packed_as_float32() -> None:
    weights = np.arange(12.0)[::3]
    assert pack_array(weights) == Array(weights.astype(np.float32))  # type: ignore[arg-type]


# What a malicious or broken sender may put in place of anything.
anything = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.lists(st.integers(-5, 50) | st.floats() | st.booleans() | st.text(max_size=2), max_size=5)
)
SAMPLES = 50


def honest_report() -> RecordDict:
    weights = {"0": np.linspace(-1, 1, 6, dtype=np.float32), "2": np.ones(4, np.float32)}
    report = Report(DIGEST, weights, {"0": SAMPLES, "2": SAMPLES}, SAMPLES, 30, 0.5, 1, 1e6)
    return report.to_records()


def honest_order() -> RecordDict:
    weights = {"0": np.linspace(-1, 1, 6, dtype=np.float32), "2": np.ones(4, np.float32)}
    return Order(1, 60.0, DIGEST, weights, ("0", "2")).to_records()


def put(record: Any, key: object, value: object) -> None:
    """Put a value into a record past Flower's own checks, as another implementation of Flower might."""
    record.__dict__["_data"][key] = value


VECTOR = pack_array(np.linspace(-1, 1, 6, dtype=np.float32)).data
big = st.integers(-(2**70), 2**70)
# Flower lets nothing but arrays into an array record, and checks no more of them than the types of their parts.
arrays = st.builds(
    Array,
    st.sampled_from(["float32", "float64", "<f4", ""]),
    st.lists(big | st.integers(0, 9) | st.booleans(), max_size=2).map(tuple),
    st.sampled_from(["numpy.ndarray", "pickle"]),
    st.binary(max_size=200) | st.just(VECTOR),
) | st.builds(
    lambda at, put, skip: Array("float32", (6,), "numpy.ndarray", VECTOR[:at] + put + VECTOR[at + skip :]),
    st.integers(0, len(VECTOR)),
    st.binary(max_size=3),
    st.integers(0, 3),
)


@st.composite
def mutations(draw: st.DrawFn, honest: Callable[[], RecordDict]) -> RecordDict:
    """Honest records with one to three things about them changed."""
    records = honest()
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([*records, "more"]))
        record = records.get(name)
        value = draw(arrays if isinstance(record, ArrayRecord) else anything)
        match draw(st.sampled_from(["change", "drop", "add", "replace"])):
            case "change" if record:
                put(record, draw(st.sampled_from(list(record))), value)
            case "drop" if record:
                del record[draw(st.sampled_from(list(record)))]
            case "add" if record is not None:
                put(record, draw(st.text(max_size=3)), value)
            case "replace":
                put(records, name, draw(st.sampled_from([ArrayRecord, MetricRecord, ConfigRecord]))())
    return records


def refused(read: Callable[[RecordDict], object], records: RecordDict) -> WireError:
    with pytest.raises(WireError) as caught:
        read(records)
    assert caught.value.reason
    assert len(str(caught.value)) < 500, "a sender could fill the logs"
    return caught.value


@settings(max_examples=200, deadline=None)
@given(mutations(honest_report))
def test_a_report_is_either_sound_or_refused(records: RecordDict) -> None:
    try:
        report = Report.from_records(records)
    except WireError:
        refused(Report.from_records, records)
        return
    assert report.weights.keys() == report.examples.keys()
    assert all(array.dtype == np.float32 and array.ndim == 1 for array in report.weights.values())
    assert 0 <= report.correct <= report.samples < 2**31
    assert 0 <= report.detections <= report.samples
    assert all(type(count) is int and 1 <= count <= report.samples for count in report.examples.values())
    assert math.isfinite(report.flops)
    assert report.flops >= 0
    assert math.isnan(report.loss) or 0 <= report.loss < math.inf
    assert type(report.digest) is str


@settings(max_examples=200, deadline=None)
@given(mutations(honest_order))
def test_an_order_is_either_sound_or_refused(records: RecordDict) -> None:
    try:
        order = Order.from_records(records)
    except WireError:
        refused(Order.from_records, records)
        return
    assert all(array.dtype == np.float32 and array.ndim == 1 for array in order.weights.values())
    assert type(order.round) is int
    assert order.round >= 1
    assert type(order.now) is float
    assert math.isfinite(order.now)
    assert all(type(block) is str for block in order.blocks)


def lie(shape: tuple[Any, ...], data: bytes | None = None) -> Array:
    return Array("float32", shape, "numpy.ndarray", pack_array(np.zeros(6, np.float32)).data if data is None else data)


def saved(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


REFUSED_REPORTS = {
    "samples a bool": ("metrics", "samples", True, "metrics"),
    "samples a float": ("metrics", "samples", 50.0, "metrics"),
    "samples a list": ("metrics", "samples", [50], "metrics"),
    "samples beyond belief": ("metrics", "samples", 2**31, "counts"),
    "samples beyond any number type": ("metrics", "samples", 2**63, "counts"),
    "correct above samples": ("metrics", "correct", 51, "counts"),
    "detections above samples": ("metrics", "detections", 51, "counts"),
    "negative detections": ("metrics", "detections", -1, "counts"),
    "flops NaN": ("metrics", "flops", math.nan, "counts"),
    "flops a whole number": ("metrics", "flops", 1, "metrics"),
    "negative loss": ("metrics", "loss", -0.1, "loss"),
    "infinite loss": ("metrics", "loss", math.inf, "loss"),
    "loss a bool": ("metrics", "loss", True, "metrics"),
    "NaN for a count": ("metrics", "examples", [50.0, math.nan], "metrics"),
    "bools for counts": ("metrics", "examples", [True, True], "metrics"),
    "one count": ("metrics", "examples", [50], "examples"),
    "no count": ("metrics", "examples", [], "examples"),
    "a count of nothing": ("metrics", "examples", [50, 0], "examples"),
    "an extra metric": ("metrics", "mood", 1.0, "extra key"),
    "an extra setting": ("report", "mood", 1.0, "extra key"),
    "digest as bytes": ("report", "digest", b"0", "metrics"),
    "a wish for no block": ("report", "trainable", ["0"], "metrics"),
    "a wish for blocks that are none": ("report", "trainable", [0], "metrics"),
    "a wish for a block twice": ("report", "trainable", ["0", "0"], "metrics"),
    "another version": ("report", "version", VERSION + 1, "version"),
    "a bool for a version": ("report", "version", True, "version"),
    "a float for a version": ("report", "version", 1.0, "version"),
    "an extra block without a count": ("weights", "9", lie((6,)), "examples"),
    "truncated": ("weights", "0", lie((6,), pack_array(np.zeros(6, np.float32)).data[:-1]), "shape"),
    "too long": ("weights", "0", lie((6,), pack_array(np.zeros(6, np.float32)).data + b"\0"), "shape"),
    "a header alone": ("weights", "0", lie((6,), pack_array(np.zeros(6, np.float32)).data[:128]), "shape"),
    "a matrix in a vector's clothes": ("weights", "0", lie((6,), saved(np.zeros((2, 3), np.float32))), "shape"),
    "doubles in disguise": ("weights", "0", lie((6,), saved(np.zeros(6))), "shape"),
    "objects": ("weights", "0", lie((6,), saved(np.array([None] * 6))), "shape"),
    "a shape of bools": ("weights", "0", lie((True,), pack_array(np.zeros(1, np.float32)).data), "shape"),
    "a scalar": ("weights", "0", lie(()), "shape"),
    "a huge matrix": ("weights", "0", lie((2**40, 2**40)), "shape"),
    "a huge shape": ("weights", "0", lie((2**40,)), "shape"),
    "a shape of many digits": ("weights", "0", lie((10**4000,)), "shape"),
    "a negative shape": ("weights", "0", lie((-6,)), "shape"),
    "another dtype": ("weights", "0", Array(np.zeros(6)), "dtype"),
    "a pickle": ("weights", "0", Array("float32", (6,), "pickle", b""), "shape"),
}


@pytest.mark.parametrize(("record", "key", "value", "reason"), REFUSED_REPORTS.values(), ids=REFUSED_REPORTS.keys())
def test_a_report_is_refused_for_a_reason(record: str, key: str, value: object, reason: str) -> None:
    records = honest_report()
    put(records[record], key, value)
    assert refused(Report.from_records, records).reason == reason


@pytest.mark.parametrize(("record", "keys"), {n: list(r) for n, r in honest_report().items() if n != "weights"}.items())
def test_nothing_may_be_missing_from_a_report(record: str, keys: list[str]) -> None:
    for key in keys:
        records = honest_report()
        del records[record][key]
        assert refused(Report.from_records, records).reason == ("version" if key == "version" else "metrics")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("version", 2, "version"),
        ("round", 0, "counts"),
        ("round", True, "metrics"),
        ("now", math.nan, "counts"),
        ("now", 60, "metrics"),
        ("digest", 7, "metrics"),
        ("blocks", "02", "metrics"),
        ("blocks", ["0", 2], "metrics"),
        ("mood", 1, "extra key"),
    ],
)
def test_an_order_is_refused_for_a_reason(key: str, value: object, reason: str) -> None:
    records = honest_order()
    put(records["order"], key, value)
    assert refused(Order.from_records, records).reason == reason


@pytest.mark.parametrize("honest", [honest_order, honest_report])
def test_records_may_be_neither_missing_nor_more(honest: Callable[[], RecordDict]) -> None:
    read = Order.from_records if honest is honest_order else Report.from_records
    for name in honest():
        records = honest()
        del records[name]
        assert refused(read, records).reason == "missing record"
    records = honest()
    records["more"] = ConfigRecord()
    assert refused(read, records).reason == "extra record"


def test_a_claim_of_size_allocates_nothing() -> None:
    records = honest_report()
    records["weights"]["0"] = lie((2**50,))
    tracemalloc.start()
    refused(Report.from_records, records)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("hidden", [(), (64,), (32, 16, 8), (2,) * 20])
def test_messages_are_the_weights_and_a_small_constant(hidden: tuple[int, ...]) -> None:
    learner = Learner(LearnerSpec(hidden=hidden), 20, 4)
    weights = learner.initial_weights()
    order = Order(7, 420.0, learner.digest, weights, tuple(weights)).to_records()
    report = Report(learner.digest, weights, dict.fromkeys(weights, 50), 50, 31, 0.5, 1, 1e6).to_records()
    for records in (order, report):
        counted, real = content_bytes(message(records)), len(serialised(records))
        # Flower frames every array with its dtype, shape and kind.
        assert counted <= real <= counted + 60 + 45 * len(weights)
        assert counted <= sum(4 * packed.size + 128 + 16 for packed in weights.values()) + 300


def test_no_projection_is_sent() -> None:
    learner = Learner(LearnerSpec(hidden=(32, 16)), 20, 4)
    optimizer = learner.optimizer(learner.model)
    assert isinstance(optimizer, TPSGD)
    weights = learner.initial_weights()
    sent = serialised(Order(7, 420.0, learner.digest, weights, tuple(weights)).to_records())
    assert weights["2"].tobytes() in sent
    for name, features in (("0", 32), ("2", 16)):
        rows = optimizer.projection.rows(name, features)
        for row in [*rows, *(rows / math.sqrt(features)), *rows.T]:
            assert row.astype(np.float32).tobytes() not in sent


@pytest.mark.parametrize(
    "paces", [[1.0], [1.0, 0.0], [1.0, -2.0], [1.0, math.nan], [1.0, math.inf], [1.0, 1.0, 1.0], [1, 1]]
)
def test_paces_are_one_for_each_block(paces: list[float]) -> None:
    records = honest_order()
    put(records["order"], "paces", paces)
    refused(Order.from_records, records)
