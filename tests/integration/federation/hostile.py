"""A device that lies, as its `source.function`: how, a file says, for as long as it says so."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Message

from clients.app import answer
from clients.federation import app
from fedtp.data.stream import Samples, Stream
from fedtp.run_config import ConfigValue
from fedtp.wire import Order, Report, pack_array
from simulations import world

#: The environment variable that names the file.
LIES = "FEDTP_TEST_LIES"


def open_stream(config: Mapping[str, ConfigValue]) -> Stream:
    """Open an honest stream, and from now on answer orders as the file says."""
    file = Path(os.environ[LIES])
    way, stream = file.read_text("utf-8"), world.open_stream(config)
    kept = file.with_name(f"replayed-{config['partition-id']}")

    def answer_falsely(message: Message, result: Report | str) -> Message:
        if isinstance(result, str):
            return answer(message, result)
        if way == "replayed":
            if not kept.exists():
                kept.write_bytes(pickle.dumps(result))
            result = pickle.loads(kept.read_bytes())
        reply = answer(message, _falsified(way, result, message))
        if way == "oversized":
            reply.content["weights"]["more"] = pack_array(np.zeros(1_000_000, np.float32))
        if way == "malformed records":
            reply.content["metrics"] = ConfigRecord({"samples": "many"})
        return reply

    app.answer = answer_falsely  # type: ignore[attr-defined]
    return _Swapped(stream) if way == "label-flipped" else stream


def _falsified(way: str, report: Report, message: Message) -> Report:
    if way == "foreign seed":
        return replace(report, digest="f" * len(report.digest))
    sent = Order.from_records(message.content).weights
    weights = dict(report.weights)
    for name, packed in weights.items():
        if way == "NaN":
            weights[name] = np.full_like(packed, np.nan)
        if way == "huge weights":
            weights[name] = 1e6 * packed
        if way == "sign-flipped" and name in sent:
            weights[name] = 2 * sent[name] - packed
    return replace(report, weights=weights)


class _Swapped:
    """A stream whose labels are false."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def position(self) -> int:
        return self._stream.position

    @position.setter
    def position(self, position: int) -> None:
        self._stream.position = position

    def take(self, now: float) -> Samples:
        samples = self._stream.take(now)
        return replace(samples, y=9 - samples.y)
