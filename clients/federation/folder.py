"""A device on disk: what it has learnt, where it is in its stream, and the report that the server may not have heard.

All of it is in one file that is replaced as a whole. So after whatever has happened a sample was learnt from, and is in
a report that the server will hear, or it will be taken from the stream again; never both, and never neither.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from clients.device import Device
from fedtp.archive import Archive
from fedtp.errors import DataError, FedtpError
from fedtp.streaming.state import State, apart, together
from fedtp.wire import Order, Report

#: A report that the server has not heard after so many attempts it does not want.
_MOST_SENDS = 3
_ARCHIVE = Archive("fedtp.device", "state of a device", version=1)


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
        return self.path / "state" / "device.safetensors"

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
            record, arrays = _ARCHIVE.read(self.state)
            parts = apart(State(arrays, record["state"]))
            device.load_state(parts["device"])
            if record.get("cursor"):
                device.stream.cursor = record["cursor"]  # type: ignore[attr-defined]
            self.reports, self.sends = int(record["reports"]), int(record["sends"])
            self.unheard = None if record["report"] is None else _report(record["report"], parts["report"])
        except (DataError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.state} cannot be gone on with ({error}): move it away to have the device begin anew with the "
                "server's model"
            ) from None

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
            told = {key: value for key, value in asdict(report).items() if key != "weights"}
            told["loss"] = None if np.isnan(report.loss) else report.loss
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
        _ARCHIVE.write(self.state, json.loads(json.dumps(record)), whole.arrays)
        self.unheard, self.sends = report, sends

    def reading(self) -> str:
        """Return the name of the file that the device's stream reads from; empty if it has not begun."""
        try:
            record, _ = _ARCHIVE.read(self.state)
            return str(record["cursor"]["file"])
        except (DataError, KeyError, TypeError):
            return ""

    def to_send_again(self, order: Order) -> Report | None:
        """Return the latest report, if the server that gives this order has not heard it and could use it."""
        report = self.unheard
        if report is None or report.id in order.heard or self.sends >= _MOST_SENDS:
            return None
        fits = report.digest == order.digest and set(report.weights) <= set(order.blocks)
        return report if fits else None


def _report(told: dict[str, Any], weights: State) -> Report:
    """Return a report that was kept."""
    names = {field.name for field in fields(Report)} - {"weights"}
    if told.keys() != names:
        raise FedtpError("its report does not hold what reports hold")
    loss = float("nan") if told["loss"] is None else float(told["loss"])
    given = {**told, "loss": loss, "trainable": tuple(told["trainable"])}
    return Report(weights=weights.arrays, **given)
