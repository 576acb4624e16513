"""What happened in a federation: events as JSON lines, and how things stand, for whoever looks."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fedtp.folder import append_lines
from fedtp.wire import report_bytes
from server.federation.folder import ServerFolder
from server.round import Round
from server.verdict import Verdict, score

#: A file of events is closed when it is so large, and so many are kept.
_BYTES, _FILES = 20_000_000, 5


class Journal:
    """Writes down what happens; one that is opened again goes on.

    Parameters
    ----------
    folder
        Where to.
    rounds
        How many rounds there shall be.
    """

    def __init__(self, folder: ServerFolder, rounds: int) -> None:
        self._folder = folder
        self._names = folder.names()
        status = folder.status()
        self._status: dict[str, Any] = {
            "state": "waiting",
            "round": 0,
            "seconds": 0.0,
            "samples": 0,
            "correct": 0,
            "accuracy": None,
            "drifts": 0,
            "refusals": {},
            "epsilon": None,
            "devices": {},
            **status,
            "rounds": rounds,
        }

    def say(self, state: str, kind: str, **told: Any) -> None:
        """Note an event that is not a round, and the state that the server is in from now on."""
        self._write({"kind": kind, **told})
        self._status["state"] = state
        self._save()

    def round(self, done: Round, sizes: Mapping[str, int], digest: str) -> None:
        """Note a round and every order of it."""
        status = self._status
        samples, correct = score(done.verdicts.values())
        reasons = Counter(verdict.reason for verdict in done.verdicts.values() if verdict.status == "refused")
        drifts = sum(verdict.report.detections for verdict in done.verdicts.values() if verdict.report)
        down = 4 * sum(sizes.values())
        known = {node for node, _ in (*done.verdicts, *done.waiting)}
        silent = [node for node in dict.fromkeys(done.ordered) if node not in known]
        rows = [self._order(done, node, verdict, sizes, digest, down) for (node, _), verdict in done.verdicts.items()]
        rows += [self._order(done, node, None, sizes, digest, down) for node in silent]
        status["state"] = "learning"
        status["round"], status["seconds"] = done.number, done.ended
        status["samples"] += samples
        status["correct"] += correct
        status["drifts"] += drifts
        status["accuracy"] = correct / samples if samples else status["accuracy"]
        status["epsilon"] = done.epsilon
        status["refusals"] = dict(Counter(status["refusals"]) + reasons)
        self._write(
            {
                "kind": "round",
                "round": done.number,
                "started_seconds": done.started,
                "ended_seconds": done.ended,
                "orders": len(done.ordered),
                "samples": samples,
                "correct": correct,
                "aggregations": done.aggregations,
                "late": len(done.late),
                "epsilon": done.epsilon,
            },
            *rows,
        )
        self._save()

    def name(self, node: int) -> str:
        """Return the name of a device."""
        return self._names.get(str(node), f"node {node}")

    def _order(
        self, done: Round, node: int, verdict: Verdict | None, sizes: Mapping[str, int], digest: str, down: int
    ) -> dict[str, Any]:
        """Return what came of a device's order, and add it to what is known of the device."""
        name, report = self.name(node), verdict.report if verdict else None
        device = self._status["devices"].setdefault(
            name, {"rounds": 0, "samples": 0, "correct": 0, "drifts": 0, "refused": 0, "last_seen": None, "said": ""}
        )
        if verdict is not None:
            device["last_seen"] = time.time()
            device["said"] = verdict.detail if verdict.status == "refused" else ""
            device["refused"] += verdict.status == "refused"
        if report is not None:
            device["rounds"] += 1
            device["samples"] += report.samples
            device["correct"] += report.correct
            device["drifts"] += report.detections
        late = node in done.late
        return {
            "kind": "order",
            "round": done.number,
            "device": name,
            "seconds": done.started,
            "status": verdict.status if verdict else ("late" if late else "lost"),
            "reason": verdict.reason if verdict else "",
            "samples": report.samples if report else 0,
            "correct": report.correct if report else 0,
            "loss": report.loss if report and math.isfinite(report.loss) else None,
            "detections": report.detections if report else 0,
            "blocks": list(report.weights) if report else [],
            "flops": report.flops if report else 0.0,
            "bytes_up": report_bytes(tuple((b, sizes[b]) for b in report.weights), digest) if report else 0,
            "bytes_down": down,
        }

    def _write(self, *events: Mapping[str, Any]) -> None:
        now = time.time()
        lines = [json.dumps({"time": now, **event}) for event in events]
        append_lines(self._folder.events, lines, most_bytes=_BYTES, files=_FILES)

    def _save(self) -> None:
        self._status["updated"] = time.time()
        self._folder.write_status(self._status)
