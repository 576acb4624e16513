"""How long it takes devices to recover from a drift: each from its own, in samples of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Counts = NDArray[np.int64]

#: A device has recovered once its accuracy over so many samples, all of them after the drift, ...
WINDOW = 50
#: ... is this share of what it was before any device drifted, over at most so many of its samples.
SHARE, BEFORE = 0.95, 200


@dataclass(frozen=True)
class DeviceRecovery:
    """How one device came through its first drift.

    Parameters
    ----------
    device
        Its number.
    samples
        How many samples it took until accuracy was back; if it was not, how many there were until its next drift or
        the end of the run.
    recovered
        Whether it was.
    """

    device: int
    samples: int
    recovered: bool


def recoveries(orders: pl.DataFrame, events: pl.DataFrame) -> list[DeviceRecovery]:
    """Return how each device that drifted came through its first drift.

    Accuracy is compared with that of the device before the *fleet's* first drift: what the fleet's model loses while
    others drift must not make recovery easier. It is looked at where an order ends, over the latest whole orders that
    hold at least `WINDOW` samples. Devices that have seen fewer before, or none since, are left out.

    Parameters
    ----------
    orders, events
        A run's tables of those names (`simulations.Run`), the first being `devices`.
    """
    drifts = events.filter(pl.col("kind") == "drift").sort("time_seconds")
    if drifts.is_empty():
        return []
    first = float(drifts["time_seconds"][0])
    times = drifts.group_by("device", maintain_order=True).agg(pl.col("time_seconds"))
    own: dict[int, list[float]] = dict(zip(times["device"].to_list(), times["time_seconds"].to_list(), strict=True))
    seen = orders.filter(pl.col("device").is_in(list(own)) & (pl.col("samples") > 0)).sort("device", "round")
    found = []
    for (device,), rows in seen.group_by("device", maintain_order=True):
        start, *later = own[int(device)]
        began, samples, correct = (rows[name].to_numpy() for name in ("started_seconds", "samples", "correct"))
        after = (began >= start) & (began < (later[0] if later else np.inf))
        recovery = _recovery(samples[began < first], correct[began < first], samples[after], correct[after])
        if recovery is not None:
            found.append(DeviceRecovery(int(device), *recovery))
    return found


def _recovery(
    samples_before: Counts, correct_before: Counts, samples: Counts, correct: Counts
) -> tuple[int, bool] | None:
    """Return after how many samples accuracy was back, and True; or how many there were, and False."""
    recent = np.cumsum(samples_before[::-1]) - samples_before[::-1] < BEFORE
    before = int(samples_before[::-1][recent].sum())
    if before < WINDOW or not len(samples):
        return None
    aim = SHARE * float(correct_before[::-1][recent].sum()) / before
    total, right = np.concatenate([[0], np.cumsum(samples)]), np.concatenate([[0], np.cumsum(correct)])
    for end in range(1, len(total)):
        start = int(np.searchsorted(total, total[end] - WINDOW, side="right")) - 1
        if start >= 0 and right[end] - right[start] >= aim * (total[end] - total[start]) - 1e-9:
            return int(total[end]), True
    return int(total[-1]), False
