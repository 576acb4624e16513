"""A device on disk: what it has learnt, where it is in its stream, and the report that the server may not have heard.

All of it is in one file that is replaced as a whole. So after whatever has happened a sample was learnt from, and is in
a report that the server will hear, or it will be taken from the stream again; never both, and never neither.
"""

from __future__ import annotations

import fcntl
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from clients.device import Device
from clients.federation.place import ARCHIVE, STATE
from fedtp.errors import DataError
from fedtp.streaming.state import State, parted, together
from fedtp.wire import Order, Report

# Flower shows what its own logger and those below it are told.
log = logging.getLogger("flwr.fedtp")

#: A report that the server has not heard after so many attempts it does not want.
_MOST_SENDS = 10


class _KeptReport(BaseModel, extra="forbid", strict=True, allow_inf_nan=False):
    """A report without its weights; no loss stands for NaN."""

    digest: str
    examples: dict[str, int]
    samples: int
    correct: int
    loss: float | None
    detections: int
    flops: float
    trainable: list[str]
    wanted: int
    id: str


class _Kept(BaseModel, extra="ignore", strict=True):
    """What a device keeps beside its state: the cursor of its stream, and its latest report."""

    cursor: dict[str, str | int | list[str] | dict[str, int] | None] | None
    reports: int = Field(ge=0)
    sends: int = Field(ge=0)
    report: _KeptReport | None


@dataclass
class DeviceFolder:
    """Where a device keeps itself.

    Parameters
    ----------
    path
        The device's folder.

    Attributes
    ----------
    unheard
        Its latest report, if it has made one.
    reports
        How many it has made.
    sends
        How often the latest one has been sent.
    """

    path: Path
    unheard: Report | None = None
    reports: int = 0
    sends: int = 0

    @property
    def state(self) -> Path:
        """The file."""
        return self.path / STATE

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process work for the device meanwhile: wait until it has ended."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        with (self.state.parent / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def restore(self, device: Device) -> None:
        """Have a new device go on where it was; one that never was stays new.

        Raises
        ------
        DataError
            If its file is damaged, or of another network: a sentence says what can be done.
        """
        for left in self.state.parent.glob(".*.new"):  # of a process that was killed
            left.unlink(missing_ok=True)
        if not self.state.exists():
            return
        try:
            record, arrays = ARCHIVE.read(self.state)
            kept = _Kept.model_validate(record)
            if not isinstance(record.get("state"), dict):
                raise DataError("it does not say what its arrays are")
            parts = parted(State(arrays, record["state"]), ["device", "report"])
            unheard = None if kept.report is None else _report(kept.report, parts["report"], device)
            device.load_state(parts["device"])
        except (DataError, ValidationError) as error:
            said = f"{error.error_count()} of its notes do not fit" if isinstance(error, ValidationError) else error
            raise DataError(
                f"{self.state} cannot be gone on with ({said}): move it away to have the device begin anew with the "
                "server's model"
            ) from None
        if kept.cursor:
            device.stream.cursor = kept.cursor  # type: ignore[attr-defined]
        self.reports, self.sends, self.unheard = kept.reports, kept.sends, unheard

    def commit(self, device: Device, report: Report | None) -> None:
        """Keep what the device knows now, and its report, at once.

        Raises
        ------
        DataError
            If it cannot be written: then the device is what it was before.
        """
        parts = {"device": device.state(), "report": State({})}
        told = None
        if report is not None:
            parts["report"] = State(dict(report.weights))
            loss = None if math.isnan(report.loss) else report.loss
            own = {name: getattr(report, name) for name in _KeptReport.model_fields}
            told = _KeptReport(**own | {"loss": loss, "trainable": list(report.trainable)}).model_dump()
        whole = together(parts)
        self.state.parent.mkdir(parents=True, exist_ok=True)
        sends = self.sends + 1 if report is self.unheard else 1
        record = {
            "state": whole.record,
            "cursor": getattr(device.stream, "cursor", None),
            "reports": self.reports,
            "sends": sends,
            "report": told,
        }
        ARCHIVE.write(self.state, record, whole.arrays)
        self.unheard, self.sends = report, sends

    def to_send_again(self, order: Order) -> Report | None:
        """Return the latest report, if the server that gives this order has not heard it and could use it."""
        report = self.unheard
        if report is None or report.id in order.heard or self.sends > _MOST_SENDS:
            return None
        if self.sends == _MOST_SENDS:
            log.warning("the server took report %s at none of %d attempts: giving it up", report.id, self.sends)
            return None
        fits = report.digest == order.digest and set(report.weights) <= set(order.blocks)
        return report if fits else None


def _report(kept: _KeptReport, weights: State, device: Device) -> Report:
    """Return a report that was kept.

    Raises
    ------
    DataError
        If its weights are not those of a network like the device's.
    """
    sizes = device.learner.sizes
    if unknown := weights.arrays.keys() - sizes.keys() or weights.arrays.keys() ^ kept.examples.keys():
        raise DataError(f"its report is on the blocks {', '.join(sorted(unknown))}")
    packed = {name: weights.typed(name, np.float32, sizes[name]) for name in weights.arrays}
    loss = math.nan if kept.loss is None else kept.loss
    told = {**kept.model_dump(), "loss": loss, "trainable": tuple(kept.trainable)}
    return Report(weights=packed, **told)
