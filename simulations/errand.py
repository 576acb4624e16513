"""An order's way to a device and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from clients.training import Outcome


@dataclass(frozen=True, eq=False)
class Errand:
    """An order's way to a device and back, as the world sees it and the server does not.

    Parameters
    ----------
    node, device
        The node's id, and the device's number from 0.
    started, arrived
        When the order was sent and the answer is there, s; infinite if it is lost.
    bytes_down, bytes_up
        Size of the order and of the answer.
    compute_seconds, transfer_seconds
        How long the device computed, and how long it sent and received.
    joules
        Energy that the device spent.
    outcome
        What came of it on the device.
    lost
        Why the answer never arrives, in a few words for counting; empty if it does. The energy of a device that
        was broken off is spent all the same, up to then.
    delivered
        Whether the answer is part of the node's reply: a gateway leaves out what comes too late.
    """

    node: int
    device: int
    started: float
    arrived: float
    bytes_down: int
    bytes_up: int
    compute_seconds: float
    transfer_seconds: float
    joules: float
    outcome: Outcome
    lost: str = ""
    delivered: bool = True


#: The columns of errands in a table; with a dot those of their outcomes.
COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "node": pl.Int64,
    "device": pl.Int64,
    "started": pl.Float64,
    "arrived": pl.Float64,
    "bytes_down": pl.Int64,
    "bytes_up": pl.Int64,
    "compute_seconds": pl.Float64,
    "transfer_seconds": pl.Float64,
    "joules": pl.Float64,
    "lost": pl.String,
    "delivered": pl.Boolean,
    "outcome.labels": pl.List(pl.Int64),
    "outcome.predicted": pl.List(pl.Int64),
    "outcome.correct": pl.Int64,
    "outcome.loss": pl.Float64,
    "outcome.detections": pl.List(pl.Int64),
    "outcome.blocks": pl.List(pl.String),
    "outcome.flops": pl.Float64,
    "outcome.bytes_up": pl.Int64,
    "outcome.dropped": pl.Int64,
    "outcome.unlabelled": pl.Int64,
    "outcome.label_delay_seconds": pl.Float64,
    "outcome.error": pl.String,
}
_OUTCOME = "outcome."


def to_table(errands: Sequence[Errand]) -> pl.DataFrame:
    """Return errands as a table, one row each."""
    rows = [{**vars(one), **{_OUTCOME + key: value for key, value in vars(one.outcome).items()}} for one in errands]
    return pl.DataFrame([[row[name] for name in COLUMNS] for row in rows], schema=COLUMNS, orient="row")


def from_table(table: pl.DataFrame) -> list[Errand]:
    """Return the errands in a table.

    >>> from_table(to_table([Errand(3, 2, 0.0, 5.0, 1, 1, 1.0, 1.0, 0.5, Outcome(blocks=("0",)))]))[0].outcome.blocks
    ('0',)
    """
    return [_errand(row) for row in table.to_dicts()]


def _errand(row: dict[str, Any]) -> Errand:
    own = {key: value for key, value in row.items() if not key.startswith(_OUTCOME)}
    came = {key.removeprefix(_OUTCOME): value for key, value in row.items() if key.startswith(_OUTCOME)}
    for name in ("labels", "predicted"):
        came[name] = np.array(came[name], np.int64)
    return Errand(**own, outcome=Outcome(**{**came, "blocks": tuple(came["blocks"])}))
