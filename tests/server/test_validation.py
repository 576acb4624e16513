"""Everything that a hostile or broken device may send."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtp.errors import WireError
from fedtp.wire import Report, pack_array
from server.validation import check_update

SIZES = {"0": 6, "2": 4}
DIGEST = "d" * 32


def honest() -> RecordDict:
    weights = {name: np.linspace(-1, 1, size, dtype=np.float32) for name, size in SIZES.items()}
    return Report(DIGEST, weights, {"0": 20, "2": 20}, samples=20, correct=12, loss=0.5, flops=1e6).to_records()


def reply(content: RecordDict | Error, node: int = 1) -> Message:
    order = Message(RecordDict(), dst_node_id=node, message_type="train")
    return Message(content, reply_to=order)


def check(content: RecordDict | Error, ordered: tuple[str, ...] = ("0", "2")) -> Report:
    return check_update(reply(content), SIZES, DIGEST, ordered)


def block(values: object, dtype: str = "float32") -> Callable[[RecordDict], None]:
    def tamper(records: RecordDict) -> None:
        records["weights"]["2"] = Array(np.asarray(values, dtype))

    return tamper


def metric(key: str, value: object) -> Callable[[RecordDict], None]:
    def tamper(records: RecordDict) -> None:
        records["metrics"][key] = value

    return tamper


def without(record: str, key: str | None = None) -> Callable[[RecordDict], None]:
    def tamper(records: RecordDict) -> None:
        if key is None:
            del records[record]
        else:
            del records[record][key]

    return tamper


def put(record: str, value: object) -> Callable[[RecordDict], None]:
    def tamper(records: RecordDict) -> None:
        records[record] = value

    return tamper


def extra_block(name: str) -> Callable[[RecordDict], None]:
    def tamper(records: RecordDict) -> None:
        records["weights"][name] = pack_array(np.zeros(4, np.float32))
        records["metrics"]["examples"] = [20, 20, 20]

    return tamper


def lying_array(shape: tuple[int, ...], data: bytes | None = None) -> Callable[[RecordDict], None]:
    """An array whose shape and bytes do not belong together."""

    def tamper(records: RecordDict) -> None:
        true = pack_array(np.zeros(4, np.float32)).data
        records["weights"]["2"] = Array("float32", shape, "numpy.ndarray", true if data is None else data)

    return tamper


def digest(value: object) -> Callable[[RecordDict], None]:
    def tamper(records: RecordDict) -> None:
        records["report"]["digest"] = value

    return tamper


TAMPERED = {
    "NaN": (block([0, np.nan, 0, 0]), "not finite"),
    "infinity": (block([0, np.inf, 0, 0]), "not finite"),
    "infinities that cancel": (block([0, np.inf, -np.inf, 0]), "not finite"),
    "numbers too large to add": (block([3e38, 3e38, 3e38, 3e38]), "not finite"),
    "too many numbers": (block([0] * 5), "shape"),
    "too few numbers": (block([0] * 3), "shape"),
    "no numbers": (block([]), "shape"),
    "a matrix": (block([[0, 0], [0, 0]]), "shape"),
    "a scalar": (block(0), "shape"),
    "doubles": (block([0] * 4, "float64"), "dtype"),
    "whole numbers": (block([0] * 4, "int32"), "dtype"),
    "text": (block(["a"] * 4, "U1"), "dtype"),
    "a shape that is not the data's": (lying_array((5,)), "shape"),
    "a negative shape": (lying_array((-1,)), "shape"),
    "no data": (lying_array((4,), b""), "shape"),
    "a pickle for data": (lying_array((4,), b"\x80\x04K\x01."), "shape"),
    "a foreign digest": (digest("e" * 32), "digest"),
    "a digest that is no text": (digest(1), "metrics"),
    "a negative count": (metric("examples", [20, -20]), "examples"),
    "a count of zero": (metric("examples", [20, 0]), "examples"),
    "a count above the samples": (metric("examples", [20, 21]), "examples"),
    "a fractional count": (metric("examples", [20.0, 19.5]), "metrics"),
    "a single count": (metric("examples", 20), "metrics"),
    "too few counts": (metric("examples", [20]), "examples"),
    "too many counts": (metric("examples", [20, 20, 20]), "examples"),
    "negative samples": (metric("samples", -20), "counts"),
    "fractional samples": (metric("samples", 20.0), "metrics"),
    "more right than samples": (metric("correct", 21), "counts"),
    "fewer right than none": (metric("correct", -1), "counts"),
    "negative detections": (metric("detections", -1), "counts"),
    "negative work": (metric("flops", -1.0), "counts"),
    "endless work": (metric("flops", float("inf")), "counts"),
    "undefined work": (metric("flops", float("nan")), "counts"),
    "a block of another network": (extra_block("9"), "extra block"),
    "no weights": (without("weights"), "missing record"),
    "no metrics": (without("metrics"), "missing record"),
    "no report": (without("report"), "missing record"),
    "weights of another kind": (put("weights", MetricRecord({"0": 1.0})), "missing record"),
    "an unknown record": (put("more", ConfigRecord({"a": 1})), "extra record"),
    "another version": (put("report", ConfigRecord({"version": 0, "digest": DIGEST})), "version"),
    "no digest": (without("report", "digest"), "metrics"),
    **{
        f"no {key}": (without("metrics", key), "metrics") for key in ("samples", "correct", "loss", "flops", "examples")
    },
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("tamper", "reason"), TAMPERED.values(), ids=TAMPERED.keys())
def test_it_is_refused_and_named(tamper: Callable[[RecordDict], None], reason: str) -> None:
    records = honest()
    tamper(records)
    with pytest.raises(WireError) as caught:
        check(records)
    assert caught.value.reason == reason
    assert str(caught.value)


@pytest.mark.parametrize("record", ["metrics", "report"])
def test_an_extra_key_is_refused(record: str) -> None:
    records = honest()
    records[record]["more"] = 1
    with pytest.raises(WireError) as caught:
        check(records)
    assert "extra" in caught.value.reason


def test_an_honest_report_passes() -> None:
    report = check(honest())
    assert report.examples == {"0": 20, "2": 20}
    np.testing.assert_array_equal(report.weights["2"], np.linspace(-1, 1, 4, dtype=np.float32))


def test_a_device_without_samples_passes() -> None:
    assert check(Report(DIGEST).to_records()).samples == 0


def test_a_part_of_what_was_ordered_passes() -> None:
    records = honest()
    del records["weights"]["0"]
    records["metrics"]["examples"] = [20]
    assert list(check(records).weights) == ["2"]


def test_a_block_that_was_not_ordered_is_refused() -> None:
    with pytest.raises(WireError, match="'2' was not ordered") as caught:
        check(honest(), ordered=("0",))
    assert caught.value.reason == "extra block"


def test_a_wish_for_blocks_that_there_are_not_is_refused() -> None:
    records = honest()
    records["report"]["trainable"], records["report"]["wanted"] = ["2", "9"], 1
    with pytest.raises(WireError, match=r"no blocks \['9'\]") as caught:
        check(records)
    assert caught.value.reason == "extra block"
    records["report"]["trainable"] = ["0", "2"]
    assert check(records).trainable == ("0", "2")


@pytest.mark.parametrize("wanted", [0, -1])
def test_a_wish_for_no_block_is_refused(wanted: int) -> None:
    records = honest()
    records["report"]["trainable"], records["report"]["wanted"] = ["2"], wanted
    with pytest.raises(WireError, match="impossible wish"):
        check(records)


def test_an_error_of_the_device_is_passed_on() -> None:
    with pytest.raises(WireError, match="out of memory") as caught:
        check(Error(2, "out of memory"))
    assert caught.value.reason == "device error"


scalars = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats())
numbers = st.one_of(scalars, st.lists(st.integers(-5, 25), max_size=3), st.lists(st.floats(), max_size=3))
arrays = st.one_of(
    st.lists(st.floats(width=32), max_size=8).map(lambda v: Array(np.array(v, np.float32))),
    st.builds(
        Array,
        st.sampled_from(["float32", "float64", "complex128", "object", ""]),
        st.lists(st.integers(-3, 8), max_size=3).map(tuple),
        st.sampled_from(["numpy.ndarray", "torch", ""]),
        st.binary(max_size=200),
    ),
)
names = st.one_of(st.sampled_from(["0", "2", "samples", "examples", "version", "digest", "flops"]), st.text(max_size=4))
records = st.one_of(
    st.dictionaries(names, arrays, max_size=4).map(ArrayRecord),
    st.dictionaries(names, numbers, max_size=8).map(MetricRecord),
    st.dictionaries(names, st.one_of(scalars, st.text(max_size=9), st.booleans()), max_size=4).map(ConfigRecord),
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.one_of(st.sampled_from(["weights", "metrics", "report"]), st.text(max_size=3)), records))
def test_whatever_comes_is_a_report_or_a_wire_error(content: dict[str, object]) -> None:
    records = honest()
    records.update(content)
    with contextlib.suppress(WireError):
        report = check(records)
        assert set(report.weights) <= set(SIZES)
        assert all(np.isfinite(weights).all() for weights in report.weights.values())
        assert all(1 <= count <= report.samples for count in report.examples.values())
