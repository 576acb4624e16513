"""What a study leaves behind: figures of every model, frames, a report and a folder with all of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fedtp
from fedtp.folder import Results
from fedtp.interval import interval
from fedtp.streaming.studies.models import Model
from fedtp.streaming.studies.prequential import Outcome, Protocol
from fedtp.streaming.studies.source import Source

if TYPE_CHECKING:
    import polars as pl


#: The folder of a study.
STUDIES = Results("study", ("curves.parquet", "summary.json"))


@dataclass(frozen=True)
class Run:
    """One model on one stream with one seed."""

    model: str
    seed: int
    outcome: Outcome


def _mean(values: list[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


#: The figures of a run, by the names that they have in the summary and in the frame of runs.
MEASURES: dict[str, Callable[[Outcome], float | None]] = {
    "accuracy": lambda outcome: outcome.accuracy,
    "kappa": lambda outcome: outcome.kappa,
    "kappa_t": lambda outcome: outcome.kappa_t,
    "recovery_samples": lambda outcome: _mean([recovery.samples for recovery in outcome.recoveries]),
    "drifts_recovered": lambda outcome: sum(recovery.samples is not None for recovery in outcome.recoveries),
    "area_lost": lambda outcome: _mean([recovery.area_lost for recovery in outcome.recoveries]),
    "detection_delay": lambda outcome: _mean(list(outcome.delays)),
    "drifts_detected": lambda outcome: sum(delay is not None for delay in outcome.delays),
    "false_alarms": lambda outcome: outcome.false_alarms,
    "detections": lambda outcome: len(outcome.detections),
    "reactions": lambda outcome: len(outcome.reactions),
    "cpu_us_per_sample": lambda outcome: 1e6 * outcome.cpu_seconds / outcome.samples,
    "state_bytes": lambda outcome: outcome.state_bytes,
}
_COUNTS = {"drifts_recovered", "drifts_detected", "false_alarms", "detections", "reactions", "state_bytes"}
# Undefined, and not zero, where no true drift is known.
_OF_DRIFTS = {"recovery_samples", "drifts_recovered", "area_lost", "detection_delay", "drifts_detected"}


@dataclass(frozen=True, eq=False)
class StudyResult:
    """What a study found.

    Parameters
    ----------
    source, models, seeds, protocol
        What was studied, and how.
    runs
        Every model with every seed.
    """

    source: Source
    models: tuple[Model, ...]
    seeds: tuple[int, ...]
    protocol: Protocol
    runs: tuple[Run, ...]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures as ``summary.json`` holds them: for each model and measure a mean over seeds with its margin.

        All but ``cpu_us_per_sample`` are the same to the last bit whenever the same command is run again. Within one
        Python process the last bytes of ``state_bytes`` vary too, as CPython shares parts of objects.
        """
        return {
            "stream": self.source.name,
            "title": self.source.title,
            "samples": self.runs[0].outcome.samples,
            "drifts": None if self.source.drifts is None else list(self.source.drifts),
            "seeds": list(self.seeds),
            **asdict(self.protocol),
            "version": fedtp.__version__,
            "models": {
                model.name: {"spec": model.spec, **{name: asdict(self._over_seeds(model, name)) for name in MEASURES}}
                for model in self.models
            },
        }

    @cached_property
    def frames(self) -> Mapping[str, pl.DataFrame]:
        """The tables behind the figures.

        ``runs``
            One row per model and seed, with every measure of the summary.
        ``curves``
            One row per model, seed and window of the stream: `start` and `end` (samples, from 0, the end not included),
            `correct` and `accuracy`.
        ``drifts``
            One row per model, seed and true drift: accuracy `before`, `recovery_samples`, `area_lost`,
            `detection_delay`.
        ``events``
            One row per detection from outside (`kind` ``"detection"``) and per drift that a model reported itself
            (``"reaction"``): the newest `sample` predicted by then, and of a reaction `rises`, how far the local loss
            of each block had risen.
        """
        import polars as pl

        key = {"model": pl.String, "seed": pl.Int64}
        types = {name: pl.Int64 if name in _COUNTS else pl.Float64 for name in MEASURES}
        rises = pl.List(pl.Struct({"block": pl.String, "rise": pl.Float64}))

        def frame(rows: list[tuple[Any, ...]], columns: Mapping[str, Any]) -> pl.DataFrame:
            return pl.DataFrame(rows, schema={**key, **columns}, orient="row")

        return {
            "runs": frame(
                [
                    (
                        run.model,
                        run.seed,
                        run.outcome.samples,
                        run.outcome.correct,
                        *(self._measure(run.outcome, name) for name in MEASURES),
                    )
                    for run in self.runs
                ],
                {"samples": pl.Int64, "correct": pl.Int64, **types},
            ),
            "curves": frame(
                [(run.model, run.seed, *row) for run in self.runs for row in _curve(run.outcome)],
                {"start": pl.Int64, "end": pl.Int64, "correct": pl.Int64, "accuracy": pl.Float64},
            ),
            "drifts": frame(
                [
                    (run.model, run.seed, after.drift, after.before, after.samples, after.area_lost, delay)
                    for run in self.runs
                    for after, delay in zip(run.outcome.recoveries, run.outcome.delays, strict=True)
                ],
                {
                    "drift": pl.Int64,
                    "before": pl.Float64,
                    "recovery_samples": pl.Int64,
                    "area_lost": pl.Float64,
                    "detection_delay": pl.Int64,
                },
            ),
            "events": frame(
                [(run.model, run.seed, *row) for run in self.runs for row in _events(run.outcome)],
                {"kind": pl.String, "sample": pl.Int64, "rises": rises},
            ),
        }

    def report(self) -> str:
        """Return the study's report, a self-contained HTML page."""
        from fedtp.report.stream import StreamResults, stream_report

        return stream_report(StreamResults(summary=self.summary, **self.frames))

    def save(self, folder: str | Path, force: bool = False) -> Path:
        """Write the folder of results, all or nothing.

        Parameters
        ----------
        folder
            Where to; it must not exist yet, or be empty.
        force
            Replace an earlier study that is there.

        Returns
        -------
        Path
            The report's path.

        Raises
        ------
        FedtpError
            If the folder cannot be written, or holds something and `force` is not given.
        """
        folder = Path(folder)
        with STUDIES.fresh_folder(folder, force) as fresh:
            for name, frame in self.frames.items():
                frame.write_parquet(fresh / f"{name}.parquet")
            (fresh / "summary.json").write_text(json.dumps(self.summary, indent=2) + "\n", encoding="utf-8")
            (fresh / "report.html").write_text(self.report(), encoding="utf-8")
        return folder / "report.html"

    def _over_seeds(self, model: Model, measure: str) -> Any:
        return interval(self._measure(run.outcome, measure) for run in self.runs if run.model == model.name)

    def _measure(self, outcome: Outcome, name: str) -> float | None:
        if name in _OF_DRIFTS and not self.source.drifts:
            return None
        if self.protocol.detector == "none" and name in {"detections", "drifts_detected"}:
            return None
        return MEASURES[name](outcome)


def _curve(outcome: Outcome) -> list[tuple[int, int, int, float]]:
    rows = []
    start = 0
    for samples, correct in outcome.windows:
        rows.append((start, start + samples, correct, correct / samples))
        start += samples
    return rows


def _events(outcome: Outcome) -> list[tuple[str, int, list[dict[str, object]] | None]]:
    found: list[tuple[str, int, list[dict[str, object]] | None]] = [
        ("detection", sample, None) for sample in outcome.detections
    ]
    found += [
        (
            "reaction",
            reaction.sample,
            [{"block": str(name), "rise": float(rise)} for name, rise in reaction.rises.items()],
        )
        for reaction in outcome.reactions
    ]
    return sorted(found, key=lambda event: event[1])
