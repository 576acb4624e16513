"""What is written down while a fleet runs: every order, every round, every drift."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from clients.budget import peak_bytes
from fedtp.errors import DataError
from fedtp.measures import kappa, kappa_t, match_detections
from fedtp.streaming.state import State
from server.round import Round
from simulations.checkpoint import from_frame, to_frame
from simulations.errand import COLUMNS as ERRANDS
from simulations.errand import Errand, from_table, to_table
from simulations.recovery import recoveries
from simulations.world import World

#: A drift counts as detected if a detection follows on that device within so many rounds.
DETECTION_WINDOW_ROUNDS = 10

_DEVICES = {
    "round": pl.Int64,
    "device": pl.Int64,
    "device_class": pl.String,
    "started_seconds": pl.Float64,
    "arrived_seconds": pl.Float64,
    "status": pl.String,
    "reason": pl.String,
    "samples": pl.Int64,
    "correct": pl.Int64,
    "loss": pl.Float64,
    "detections": pl.Int64,
    "dropped": pl.Int64,
    "unlabelled": pl.Int64,
    "label_delay_seconds": pl.Float64,
    "staleness": pl.Float64,
    "bytes_up": pl.Int64,
    "bytes_down": pl.Int64,
    "joules": pl.Float64,
    "compute_seconds": pl.Float64,
    "transfer_seconds": pl.Float64,
    "blocks": pl.String,
    "peak_bytes": pl.Int64,
}
_ROUNDS = {
    "round": pl.Int64,
    "started_seconds": pl.Float64,
    "ended_seconds": pl.Float64,
    **dict.fromkeys(["orders", "accepted", "refused", "late", "lost", "empty", "samples", "correct"], pl.Int64),
    "accuracy": pl.Float64,
    "loss": pl.Float64,
    **dict.fromkeys(["drifts", "detections", "dropped", "unlabelled", "bytes_up", "bytes_down"], pl.Int64),
    "joules": pl.Float64,
    "aggregations": pl.Float64,
    "staleness": pl.Float64,
    "epsilon": pl.Float64,
}
_EVENTS = {
    "device": pl.Int64,
    "device_class": pl.String,
    "time_seconds": pl.Float64,
    "kind": pl.String,
    "concept": pl.String,
    "detected": pl.Boolean,
}


#: What a round adds up of its orders, beside samples.
_SUMS = ("detections", "dropped", "unlabelled", "bytes_up", "bytes_down", "joules")


class _Notes(BaseModel, extra="forbid", allow_inf_nan=False):
    """What a recorder keeps beside tables, as JSON holds it."""

    refusals: dict[str, int]
    updates: dict[str, int]
    peaks: list[tuple[tuple[str, ...], int]]
    detections: dict[int, list[float]]
    same: int
    label_delay: float
    until: float


class Recorder:
    """Collects what happens, and adds it up.

    Parameters
    ----------
    world
        The world that it happens in.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._errands: list[Errand] = []
        self._devices: list[tuple[Any, ...]] = []
        self._rounds: list[dict[str, Any]] = []
        self._refusals: Counter[str] = Counter()
        self._updates: Counter[str] = Counter()
        self._peaks: dict[tuple[str, ...], int] = {}
        self._detections: dict[int, list[float]] = {}
        classes = world.learner.classes
        self._confusion: NDArray[np.int64] = np.zeros((classes, classes), np.int64)
        self._last_label: dict[int, int] = {}
        self._same = 0
        self._label_delay = 0.0
        self._until = 0.0
        self._window = DETECTION_WINDOW_ROUNDS * world.scenario.server.round_seconds
        self._drift_times = np.array(
            [change.at_seconds for line in world.timelines for change in line.changes], dtype=np.float64
        )

    def errand(self, errand: Errand) -> None:
        """Note an order when it is sent."""
        self._errands.append(errand)

    def round(self, done: Round) -> None:
        """Note a round when it has ended, with the orders of which it is known what became of them."""
        errands = [errand for errand in self._errands if (errand.node, errand.started) not in done.waiting]
        self._errands = [errand for errand in self._errands if (errand.node, errand.started) in done.waiting]
        rows = [self._device_row(done, errand) for errand in errands]
        self._devices += rows
        self._score(errands)
        column = {name: [row[i] for row in rows] for i, name in enumerate(_DEVICES)}
        status = Counter(column["status"])
        samples, correct = sum(column["samples"]), sum(column["correct"])
        losses = [
            (row_loss, n) for row_loss, n in zip(column["loss"], column["samples"], strict=True) if row_loss is not None
        ]
        learnt = sum(n for _, n in losses)
        stale = [value for value in column["staleness"] if value is not None]
        since, self._until = self._until, max(done.ended, done.started + self._world.scenario.server.interval_seconds)
        self._rounds.append(
            {
                "round": done.number,
                "started_seconds": done.started,
                "ended_seconds": done.ended,
                "orders": len(rows),
                **{name: status[name] for name in ("accepted", "refused", "late", "lost", "empty")},
                "samples": samples,
                "correct": correct,
                "accuracy": correct / samples if samples else None,
                "loss": sum(value * n for value, n in losses) / learnt if learnt else None,
                "drifts": int(np.count_nonzero((self._drift_times >= since) & (self._drift_times < self._until))),
                **{name: sum(column[name]) for name in _SUMS},
                "aggregations": done.aggregations,
                "staleness": sum(stale) / len(stale) if stale else None,
                "epsilon": done.epsilon,
            }
        )

    @property
    def latest(self) -> dict[str, Any]:
        """The latest round's row."""
        return self._rounds[-1]

    def total(self, name: str) -> int:
        """Return the sum of a count over all rounds so far."""
        return int(sum(row[name] for row in self._rounds))

    def rounds(self) -> pl.DataFrame:
        """Return one row per round."""
        return pl.DataFrame(self._rounds, schema=_ROUNDS)

    def devices(self) -> pl.DataFrame:
        """Return one row per order."""
        return pl.DataFrame(self._devices, schema=_DEVICES, orient="row")

    def events(self) -> tuple[pl.DataFrame, int, int, int]:
        """Return one row per drift and detection; and how many drifts there were, were detected, and false alarms."""
        rows: list[tuple[Any, ...]] = []
        drifts = found = false_alarms = 0
        for device, line in enumerate(self._world.timelines):
            name = self._world.fleet.classes[device]
            times = self._detections.get(device, [])
            detected, false = match_detections([c.at_seconds for c in line.changes], times, self._window)
            drifts, found, false_alarms = drifts + len(detected), found + sum(detected), false_alarms + false
            rows += [
                (device, name, change.at_seconds, "drift", change.concept, hit)
                for change, hit in zip(line.changes, detected, strict=True)
            ]
            rows += [(device, name, time, "detection", None, None) for time in times]
        rows.sort(key=lambda row: (row[2], row[0]))
        return pl.DataFrame(rows, schema=_EVENTS, orient="row"), drifts, found, false_alarms

    def summary(self) -> dict[str, Any]:
        """Return the totals that a run's summary holds."""
        events, drifts, detected, false_alarms = self.events()
        recovered = recoveries(self.devices(), events)
        samples, correct = self.total("samples"), self.total("correct")
        return {
            "prequential_accuracy": correct / samples if samples else None,
            "kappa": kappa(self._confusion),
            "kappa_t": kappa_t(correct, self._same, samples),
            "rounds": len(self._rounds),
            "client_rounds": self.total("orders"),
            "samples": samples,
            "samples_dropped": self.total("dropped"),
            "samples_unlabelled": self.total("unlabelled"),
            "label_delay_seconds": self._label_delay / samples if samples else None,
            "virtual_seconds": self._rounds[-1]["ended_seconds"],
            "bytes_up": self.total("bytes_up"),
            "bytes_down": self.total("bytes_down"),
            "joules": float(sum(row["joules"] for row in self._rounds)),
            "updates_accepted": self.total("accepted"),
            "updates_refused": self.total("refused"),
            "updates_late": self.total("late"),
            "updates_lost": self.total("lost"),
            "orders_empty": self.total("empty"),
            "updates_by_block": {name: self._updates[name] for name in self._world.learner.sizes},
            "peak_bytes": max(self._peaks.values(), default=0),
            "backprop_peak_bytes": self._world.backprop_bytes(),
            "aggregations": float(sum(row["aggregations"] for row in self._rounds)),
            "staleness": self._staleness(),
            "refusals": dict(sorted(self._refusals.items())),
            "epsilon": self._rounds[-1]["epsilon"],
            "delta": self._world.scenario.privacy.delta if self._rounds[-1]["epsilon"] is not None else None,
            "drifts_true": drifts,
            "drifts_detected": detected,
            "false_alarms": false_alarms,
            "recovery_samples": sum(one.samples for one in recovered) / len(recovered) if recovered else None,
            "recovered_share": sum(one.recovered for one in recovered) / len(recovered) if recovered else None,
            "detection_window_seconds": self._window,
        }

    def state(self) -> State:
        """Return all that was noted so far, between two rounds."""
        return State(
            {
                "rounds": from_frame(self.rounds()),
                "devices": from_frame(self.devices()),
                "errands": from_frame(to_table(self._errands)),
                "confusion": self._confusion,
                "last_label": np.array(list(self._last_label.items()), np.int64).reshape(-1, 2),
            },
            _Notes(
                refusals=self._refusals,
                updates=self._updates,
                peaks=list(self._peaks.items()),
                detections=self._detections,
                same=self._same,
                label_delay=self._label_delay,
                until=self._until,
            ).model_dump(mode="json"),
        )

    def load_state(self, state: State) -> None:
        """Go on where another recorder of the same world was.

        Raises
        ------
        DataError
            If it was none.
        """
        rounds = to_frame(state.arrays.get("rounds"), _ROUNDS)
        devices = to_frame(state.arrays.get("devices"), _DEVICES)
        errands = to_frame(state.arrays.get("errands"), ERRANDS)
        confusion, labels = state.arrays.get("confusion"), state.arrays.get("last_label")
        if confusion is None or confusion.dtype != np.int64 or confusion.shape != self._confusion.shape:
            raise DataError(f"the confusion matrix is not one of {len(self._confusion)} classes")
        if labels is None or labels.dtype != np.int64 or labels.shape[1:] != (2,):
            raise DataError("the last labels are missing")
        try:
            notes = _Notes.model_validate(state.record)
        except ValidationError as error:
            raise DataError(f"{error.error_count()} of its notes do not fit") from None
        self._rounds, self._devices, self._errands = rounds.to_dicts(), devices.rows(), from_table(errands)
        self._confusion, self._last_label = confusion.copy(), dict(labels.tolist())
        self._refusals, self._updates = Counter(notes.refusals), Counter(notes.updates)
        self._peaks, self._detections = dict(notes.peaks), notes.detections
        self._same, self._label_delay, self._until = notes.same, notes.label_delay, notes.until

    def _staleness(self) -> float | None:
        """Return the mean staleness of the updates that were used."""
        column = list(_DEVICES).index("staleness")
        stale = [row[column] for row in self._devices if row[column] is not None]
        return sum(stale) / len(stale) if stale else None

    def _device_row(self, done: Round, errand: Errand) -> tuple[Any, ...]:
        device, outcome = errand.device, errand.outcome
        verdict = done.verdicts.get((errand.node, errand.started)) if errand.delivered else None
        arrived = errand.arrived if math.isfinite(errand.arrived) else None
        if verdict is None:
            status = "lost" if arrived is None else "late"
        elif verdict.status == "accepted" and not outcome.samples:
            status = "empty"  # other devices of its gateway had samples
        else:
            status = verdict.status
        if status == "refused" and verdict is not None:
            self._refusals[verdict.reason] += 1
        if status == "accepted":
            self._updates.update(outcome.blocks)
        if outcome.detections:
            self._detections.setdefault(device, []).extend([errand.started] * len(outcome.detections))
        return (
            done.number,
            device,
            self._world.fleet.classes[device],
            errand.started,
            arrived,
            status,
            (verdict.reason if verdict else errand.lost) or None,
            outcome.samples,
            outcome.correct,
            outcome.loss if math.isfinite(outcome.loss) else None,
            len(outcome.detections),
            outcome.dropped,
            outcome.unlabelled,
            outcome.label_delay_seconds if outcome.samples else None,
            verdict.staleness if verdict and status == "accepted" and math.isfinite(verdict.staleness) else None,
            errand.bytes_up,
            errand.bytes_down,
            errand.joules,
            errand.compute_seconds,
            errand.transfer_seconds,
            " ".join(outcome.blocks),
            self._peak(outcome.blocks) if outcome.samples else 0,
        )

    def _peak(self, blocks: tuple[str, ...]) -> int:
        if blocks not in self._peaks:
            self._peaks[blocks] = peak_bytes(self._world.learner, blocks)
        return self._peaks[blocks]

    def _score(self, errands: list[Errand]) -> None:
        """Add the round's predictions to the confusion matrix, and count labels that repeat."""
        scored = [(e.device, e.outcome) for e in errands if e.outcome.samples]
        if not scored:
            return
        for device, outcome in scored:
            self._label_delay += outcome.label_delay_seconds * outcome.samples
            y = outcome.labels
            self._same += int(np.count_nonzero(y[1:] == y[:-1])) + (self._last_label.get(device) == int(y[0]))
            self._last_label[device] = int(y[-1])
        truth = np.concatenate([outcome.labels for _, outcome in scored])
        predicted = np.concatenate([outcome.predicted for _, outcome in scored])
        classes = len(self._confusion)
        counts = np.bincount(truth * classes + predicted, minlength=classes**2)
        self._confusion += counts.reshape(classes, classes)
