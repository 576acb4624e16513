"""What a training order and a training report hold: the names and types of their records.

This is the one module of `fedtp` that knows Flower. Clients and servers agree on it and on nothing else. A block
travels as one array, packed as `fedtp.blocks` says; projections never travel, only their digest does.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from reprlib import repr as _short
from typing import Any, TypeVar, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedtp.blocks import Packed
from fedtp.errors import WireError

R = TypeVar("R", ArrayRecord, ConfigRecord, MetricRecord)
T = TypeVar("T")

#: The version of this format. Both sides refuse another.
VERSION = 1

#: What NumPy's ``.npy`` format puts before the numbers of a vector.
_HEADER_BYTES = 128

#: Letters in the name of a report.
_LONGEST_ID = 100

#: No order brings more samples than this; sums of such counts stay whole in every number type.
_MOST_SAMPLES = 2**31 - 1


@dataclass(frozen=True)
class Order:
    """What the server asks of a device.

    Parameters
    ----------
    round
        Number of the round, from 1.
    now
        The server's time, s: what has arrived by then is to be learnt from.
    digest
        Digest of the projections that the device must use.
    weights
        The blocks' current weights, packed. A block that is absent stays as the device has it.
    blocks
        Names of the blocks to train; empty to predict only.
    paces
        For each of them what its learning rate is multiplied with; empty if all learn as usual.
    heard
        Of devices that number their reports, the latest report of each that the server has.
    clip
        The largest norm that an update may have, over all blocks together; 0: any.
    """

    round: int
    now: float
    digest: str
    weights: Mapping[str, Packed]
    blocks: tuple[str, ...]
    paces: tuple[float, ...] = ()
    heard: tuple[str, ...] = ()
    clip: float = 0.0

    @cached_property
    def numbers(self) -> int:
        """How many weights there are in all."""
        return sum(packed.size for packed in self.weights.values())

    def to_records(self) -> RecordDict:
        """Write the order as Flower's records."""
        return RecordDict(
            {
                "weights": ArrayRecord({name: pack_array(w) for name, w in self.weights.items()}),
                "order": ConfigRecord(
                    {
                        "version": VERSION,
                        "round": self.round,
                        "now": float(self.now),
                        "digest": self.digest,
                        "blocks": list(self.blocks),
                        "paces": list(self.paces),
                        **({"heard": list(self.heard)} if self.heard else {}),
                        **({"clip": float(self.clip)} if self.clip else {}),
                    }
                ),
            }
        )

    @classmethod
    def from_records(cls, records: RecordDict) -> Order:
        """Read an order.

        Raises
        ------
        WireError
            If it does not hold what an order holds.
        """
        config = _record(records, "order", ConfigRecord)
        _check_version(config)
        _check_no_more(records, "record", "order", "weights")
        _check_no_more(config, "key", "version", "round", "now", "digest", "blocks", "paces", "heard", "clip")
        number, now = _value(config, "round", int), _value(config, "now", float)
        if number < 1 or not math.isfinite(now):
            raise WireError("counts", f"impossible: round {number} at {now} s")
        blocks, paces = tuple(_list(config, "blocks", str)), tuple(_list(config, "paces", float))
        if len(paces) not in (0, len(blocks)) or not all(0 < pace < math.inf for pace in paces):
            raise WireError("paces", f"impossible paces {_short(list(paces))} for {len(blocks)} blocks")
        clip = _value(config, "clip", float) if "clip" in config else 0.0
        if not 0 <= clip < math.inf:
            raise WireError("counts", f"impossible bound {clip} of an update's norm")
        return cls(
            round=number,
            now=now,
            digest=_value(config, "digest", str),
            weights=_weights(records),
            blocks=blocks,
            paces=paces,
            heard=tuple(_list(config, "heard", str)) if "heard" in config else (),
            clip=clip,
        )


@dataclass(frozen=True)
class Report:
    """What a device answers.

    Parameters
    ----------
    digest
        Digest of the projections that the device used.
    weights
        The blocks that it trained, packed.
    examples
        How many samples each of those blocks learnt from.
    samples
        How many samples were scored.
    correct
        How many of them were predicted rightly, each before it was learnt from.
    loss
        Mean loss of the last block over them; NaN when it was not computed.
    detections
        How many drifts the device's detector flagged.
    flops
        Floating-point operations spent.
    trainable, wanted
        Names of the blocks that the device could train, and of how many of them it wants orders, where it leaves the
        choice to the server; none where it chooses itself.
    id
        The report's own name, of a device that sends it again until the server has heard it; empty of others.
    """

    digest: str
    weights: Mapping[str, Packed] = field(default_factory=dict)
    examples: Mapping[str, int] = field(default_factory=dict)
    samples: int = 0
    correct: int = 0
    loss: float = math.nan
    detections: int = 0
    flops: float = 0.0
    trainable: tuple[str, ...] = ()
    wanted: int = 0
    id: str = ""

    def to_records(self) -> RecordDict:
        """Write the report as Flower's records."""
        own: dict[str, Any] = {"trainable": list(self.trainable), "wanted": self.wanted} if self.trainable else {}
        if self.id:
            own["id"] = self.id
        return RecordDict(
            {
                "weights": ArrayRecord({name: pack_array(w) for name, w in self.weights.items()}),
                "metrics": MetricRecord(
                    {
                        "examples": [int(self.examples[name]) for name in self.weights],
                        "samples": self.samples,
                        "correct": self.correct,
                        "loss": self.loss,
                        "detections": self.detections,
                        "flops": self.flops,
                    }
                ),
                "report": ConfigRecord({"version": VERSION, "digest": self.digest, **own}),
            }
        )

    @classmethod
    def from_records(cls, records: RecordDict) -> Report:
        """Read a report, believing nothing: every record, key, type and range is checked.

        Raises
        ------
        WireError
            Its `reason` names the kind of fault.
        """
        config = _record(records, "report", ConfigRecord)
        _check_version(config)
        metrics = _record(records, "metrics", MetricRecord)
        _check_no_more(records, "record", "weights", "metrics", "report")
        _check_no_more(config, "key", "version", "digest", "trainable", "wanted", "id")
        _check_no_more(metrics, "key", "examples", "samples", "correct", "loss", "detections", "flops")
        weights = _weights(records)
        examples = _list(metrics, "examples", int)
        if len(examples) != len(weights):
            raise WireError("examples", f"{len(examples)} example counts for {len(weights)} blocks")
        samples, correct = _value(metrics, "samples", int), _value(metrics, "correct", int)
        detections, flops = _value(metrics, "detections", int), _value(metrics, "flops", float)
        loss = _value(metrics, "loss", float)
        if not (0 <= correct <= samples <= _MOST_SAMPLES and 0 <= detections <= samples and 0 <= flops < math.inf):
            raise WireError(
                "counts", f"impossible counts: {correct} right of {samples}, {detections} detections, {flops} FLOPs"
            )
        if loss < 0 or loss == math.inf:
            raise WireError("loss", f"impossible loss {loss}")
        trainable = tuple(_list(config, "trainable", str)) if "trainable" in config else ()
        wanted = _value(config, "wanted", int) if trainable else 0
        if (trainable and wanted < 1) or len(set(trainable)) < len(trainable):
            raise WireError("counts", f"impossible wish: {_short(wanted)} of the blocks {_short(trainable)}")
        name = _value(config, "id", str) if "id" in config else ""
        if len(name) > _LONGEST_ID:
            raise WireError("metrics", f"a report called {_short(name)}")
        if any(count < 1 or count > samples for count in examples):
            raise WireError("examples", f"impossible example counts {_short(examples)} of {samples} samples")
        return cls(
            digest=_value(config, "digest", str),
            weights=weights,
            examples=dict(zip(weights, examples, strict=True)),
            samples=samples,
            correct=correct,
            loss=loss,
            detections=detections,
            flops=flops,
            trainable=trainable,
            wanted=wanted,
            id=name,
        )


def content_bytes(message: Message) -> int:
    """Bytes of a message's content: array data with their headers, keys, and eight bytes per number.

    Flower's framing adds about 40 bytes per block and 40 per message when it is sent.
    """
    return _records_bytes(message.content)


def _records_bytes(records: RecordDict) -> int:
    total = 0
    for key, record in records.items():
        total += len(key.encode())
        for name, value in record.items():
            total += len(name.encode()) + _value_bytes(value)
    return total


@lru_cache(maxsize=1024)
def report_bytes(sizes: tuple[tuple[str, int], ...], digest: str, trainable: tuple[str, ...] = ()) -> int:
    """Bytes of the content of a report on blocks of these names and sizes, as `content_bytes` counts them.

    Examples
    --------
    >>> report_bytes((("0", 10),), "d1") - report_bytes((), "d1")  # a header, a name, the numbers, a count
    177
    """
    weights = {name: np.zeros(size, np.float32) for name, size in sizes}
    report = Report(digest, weights, dict.fromkeys(weights, 1), samples=1, trainable=trainable)
    return _records_bytes(report.to_records())


def _value_bytes(value: object) -> int:
    if isinstance(value, Array):
        return len(value.data)
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, list):
        return sum(_value_bytes(v) for v in value)
    return 8


def pack_array(weights: Packed) -> Array:
    """Return Flower's array for a packed block; the same bytes that ``Array(weights)`` makes, sooner."""
    weights = np.ascontiguousarray(weights, dtype=np.float32)
    return Array("float32", weights.shape, "numpy.ndarray", _header(weights.size) + weights.tobytes())


def unpack_array(name: str, array: Array) -> Packed:
    """Return the packed block in Flower's array, read-only.

    Raises
    ------
    WireError
        If it is not a vector of float32, whatever it claims to be.
    """
    if array.stype != "numpy.ndarray" or array.dtype != "float32" or len(array.shape) != 1:
        raise WireError(
            "dtype" if array.dtype != "float32" else "shape",
            f"block {_short(name)} is {_short(array.dtype)} of shape {_short(array.shape)}, not a float32 vector",
        )
    (size,) = array.shape
    # The length comes first: nothing is built on a mere claim.
    if type(size) is not int or len(array.data) != _HEADER_BYTES + 4 * size or not array.data.startswith(_header(size)):
        raise WireError("shape", f"block {_short(name)} does not hold the {_short(size)} numbers that it claims")
    return np.frombuffer(array.data, np.float32, offset=_HEADER_BYTES)


@lru_cache(maxsize=1024)
def _header(size: int) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (size,)})
    return buffer.getvalue()


def _record(records: RecordDict, key: str, kind: type[R]) -> R:
    record = records.get(key)
    if not isinstance(record, kind):
        raise WireError("missing record", f"no {kind.__name__} called {key!r}")
    return record


def _weights(records: RecordDict) -> dict[str, Packed]:
    return {name: unpack_array(name, array) for name, array in _record(records, "weights", ArrayRecord).items()}


def _value(record: Mapping[str, object], key: str, kind: type[T]) -> T:
    value = record.get(key)
    if type(value) is not kind:
        raise WireError("metrics", f"{key!r} is {_short(value)}, not {kind.__name__}")
    return value


def _list(record: Mapping[str, object], key: str, kind: type[T]) -> list[T]:
    values = record.get(key)
    if not isinstance(values, list) or any(type(v) is not kind for v in values):
        raise WireError("metrics", f"{key!r} is {_short(values)}, not a list of {kind.__name__}")
    return cast("list[T]", values)


def _check_version(config: ConfigRecord) -> None:
    version = config.get("version")
    if type(version) is not int or version != VERSION:
        raise WireError("version", f"format version {_short(version)}, this side speaks {VERSION}")


def _check_no_more(names: Iterable[str], what: str, *expected: str) -> None:
    if extra := sorted(set(names) - set(expected)):
        raise WireError(f"extra {what}", f"unknown {what}s {_short(extra)}")
