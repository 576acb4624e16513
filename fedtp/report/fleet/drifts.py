"""True drifts and their detections, as the report tells them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from fedtp.report.fleet.results import FleetResults
from fedtp.report.fleet.timeline import Floats, share

# How many rounds are shown before and after a drift.
BEFORE, AFTER = 10, 20
# A device has recovered when it is back at this share of its accuracy before the drift.
RECOVERED = 0.95


@dataclass(frozen=True)
class Wave:
    """Drifts to one concept that follow each other closely.

    Parameters
    ----------
    concept
        The concept to which the devices drift.
    start, end
        When the first and when the last of them began to, in virtual seconds.
    drifts
        How many they are.
    detected
        How many of them were detected.
    median_delay
        How long it took, in virtual seconds, until a device that detected its drift did so; None if none did.
    """

    concept: str
    start: float
    end: float
    drifts: int
    detected: int
    median_delay: float | None


def waves(results: FleetResults) -> list[Wave]:
    """Gather the drifts of a run into waves: a concept's drifts with no long pause between them.

    A pause is long from a twentieth of the run on, or three rounds if that is more.
    """
    rounds = max(1, results.rounds.height)
    pause = results.end_seconds * max(0.05, 3 / rounds)
    ordered = delays(results).with_columns(pl.col("concept").fill_null("another concept"))
    numbered = ordered.sort("concept", "time_seconds").with_columns(
        wave=(pl.col("time_seconds").diff().over("concept").fill_null(0.0) > pause).cum_sum().over("concept")
    )
    gathered = (
        numbered.group_by("concept", "wave")
        .agg(
            start=pl.col("time_seconds").min(),
            end=pl.col("time_seconds").max(),
            drifts=pl.len(),
            detected=pl.col("detected").sum(),
            median_delay=pl.col("delay").median(),
        )
        .sort("start", "concept")
    )
    return [Wave(**row) for row in gathered.drop("wave").iter_rows(named=True)]


def delays(results: FleetResults) -> pl.DataFrame:
    """List the true drifts with `delay`, the virtual seconds until detection; null where there was none."""
    found = results.detections.select("device", "time_seconds", found="time_seconds")
    return (
        results.drifts.join_asof(found, on="time_seconds", by="device", strategy="forward", check_sortedness=False)
        .with_columns(detected=pl.col("detected").fill_null(False))
        .with_columns(delay=pl.when("detected").then(pl.col("found") - pl.col("time_seconds")))
        .drop("found")
    )


@dataclass(frozen=True, eq=False)
class Around:
    """Accuracy around a drift, over all drifts of the run, each seen from its own device.

    Parameters
    ----------
    offsets
        Rounds since the device first answered after its drift: negative before it.
    accuracy
        The accuracy over all samples at that distance from a drift, ``[offsets]``; NaN where there were none.
    samples
        How many those are, ``[offsets]``.
    before
        The accuracy over all samples before a drift; NaN where there were none.
    """

    offsets: Floats
    accuracy: Floats
    samples: Floats
    before: float

    @property
    def recovery(self) -> int | None:
        """Rounds from the first answer after a drift until accuracy has recovered; None if it never has."""
        after = self.offsets >= 0
        accuracy = self.accuracy[after]
        if np.isnan(accuracy).all() or np.isnan(self.before):
            return None
        lowest = int(np.nanargmin(accuracy))
        back = np.flatnonzero(accuracy[lowest:] >= RECOVERED * self.before)
        return lowest + int(back[0]) if len(back) else None


def around(results: FleetResults) -> Around | None:
    """Gather accuracy by the rounds before and after a drift; None if no drift has samples near it.

    A sample counts after the last drift of its device and before the next one, never across another drift.
    """
    rounds = results.rounds.select("round", "started_seconds").sort("started_seconds")
    if not rounds.height:
        return None
    end = results.rounds["round"][-1] + 1
    # An order hands out what arrived before it: the first to start after a drift is the first to show it.
    turns = (
        results.drifts.select("device", "time_seconds")
        .join_asof(
            rounds,
            left_on="time_seconds",
            right_on="started_seconds",
            strategy="forward",
            allow_exact_matches=False,
        )
        .select("device", turn=pl.col("round").fill_null(end))
        .unique()
        .sort("turn")
        .with_columns(round="turn")
    )
    answers = (
        results.devices.filter(pl.col("samples") > 0).select("device", "round", "samples", "correct").sort("round")
    )
    since = answers.join_asof(turns, on="round", by="device", strategy="backward", check_sortedness=False)
    until = answers.join_asof(
        turns, on="round", by="device", strategy="forward", allow_exact_matches=False, check_sortedness=False
    )
    near = (
        pl.concat([since, until])
        .select("samples", "correct", offset=pl.col("round") - pl.col("turn"))
        .filter(pl.col("offset").is_between(-BEFORE, AFTER))
    )
    if not near.height:
        return None
    offsets = pl.DataFrame({"offset": np.arange(-BEFORE, AFTER + 1)})
    sums = near.group_by("offset").agg(pl.col("samples", "correct").sum())
    table = offsets.join(sums, on="offset", how="left", maintain_order="left").fill_null(0)
    earlier = table.filter(pl.col("offset") < 0).sum()
    return Around(
        offsets=table["offset"].to_numpy().astype(float),
        accuracy=share(table["correct"], table["samples"]),
        samples=table["samples"].to_numpy().astype(float),
        before=float(share(earlier["correct"], earlier["samples"])[0]),
    )
