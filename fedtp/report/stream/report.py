"""The report of a stream study, from its cards to the definitions of what it measures."""

from __future__ import annotations

import json
from collections.abc import Iterator

import polars as pl

from fedtp.interval import Interval
from fedtp.report.figures import brief, mean, micros, number, score, share, size
from fedtp.report.page import Card, Page, Part, Section, Source, Table
from fedtp.report.stream.accuracy import accuracy_panel
from fedtp.report.stream.costs import blocks_panel, cost_panel, lost_panel
from fedtp.report.stream.figures import recovery
from fedtp.report.stream.measures import MEASURES
from fedtp.report.stream.results import StreamResults
from fedtp.report.units import MISSING, count

# More rows than this are left to the file of drifts.
_MOST_DRIFT_ROWS = 60


def stream_report(results: StreamResults) -> str:
    """Write the report of a study as one HTML page that opens anywhere and asks the network for nothing.

    Parameters
    ----------
    results
        What the study found.

    Returns
    -------
    str
        The page, about 5 MB: plotly.js, which draws the figures, is in it.
    """
    return Page(
        kind="Stream study",
        title=str(results.summary["stream"]),
        description=str(results.summary["title"]),
        facts=_facts(results),
        cards=_cards(results),
        sections=_sections(results),
        footer=f"fedtp {results.summary['version']}",
    ).html()


def _facts(results: StreamResults) -> dict[str, str]:
    summary = results.summary
    delay = summary["label_delay"]
    return {
        "Samples": count(results.samples),
        "Models": count(len(results.models)),
        "Seeds": ", ".join(str(seed) for seed in summary["seeds"]),
        "Labels": f"{count(delay)} samples late" if delay else "at once",
        "True drifts": "not known" if summary["drifts"] is None else count(len(summary["drifts"])),
        "Detector": str(summary["detector"]),
    }


def _cards(results: StreamResults) -> list[Card]:
    best = results.best
    ours = results.figures(best)
    drifts = bool(results.true_drifts)
    window = count(results.summary["detection_window"])

    def card(label: str, text: str, note: str, lead: bool = False) -> Card:
        value, _, margin = text.partition(" ± ")
        return Card(label, value, f"± {margin}, {note}" if margin else note, lead)

    return [
        card("Best accuracy", share(ours["accuracy"]), f"by {best}; all the rest here is of this model", lead=True),
        card("Kappa_t", score(ours["kappa_t"]), "beyond repeating the newest known label", lead=True),
        card(
            "Recovery",
            recovery(results, best) if drifts else MISSING,
            "samples until accuracy is back" if drifts else "no true drift is known",
            lead=True,
        ),
        card("Time", micros(ours["cpu_us_per_sample"]), "µs of the processor per sample", lead=True),
        card("Kappa", score(ours["kappa"]), "agreement beyond chance"),
        card("Area lost", number(ours["area_lost"]), "errors that a drift costs"),
        card("Detection delay", number(ours["detection_delay"]), f"samples, of {window} at most"),
        card("False alarms", number(ours["false_alarms"]), f"of {number(mean(ours['detections']))} detections"),
        card("State", size(mean(ours["state_bytes"])), "after the stream"),
    ]


def _sections(results: StreamResults) -> list[Section]:
    models: list[Part] = [cost_panel(results)]
    if results.true_drifts:
        models.append(lost_panel(results))
    models.append(_model_table(results))
    sections = [Section("Accuracy and drift", [accuracy_panel(results)]), Section("Models", models)]
    drifts: list[Part] = [_detection_table(results)]
    if results.true_drifts:
        drifts.append(_drift_table(results))
    if results.events.filter(pl.col("rises").list.len() > 0).height:
        drifts.append(blocks_panel(results))
    sections.append(Section("Drifts", drifts))
    setting = {key: value for key, value in results.summary.items() if key != "models"}
    setting["models"] = {name: figures["spec"] for name, figures in results.summary["models"].items()}
    sections.append(Section("Setting", [Source("The whole setting (JSON)", json.dumps(setting, indent=2))]))
    text = frozenset({0, 1})
    sections.append(
        Section("Measures", [Table("What is measured", ("measure", "definition"), MEASURES, text=text, wide=True)])
    )
    return sections


def _model_table(results: StreamResults) -> Table:
    columns = ("model", "accuracy", "kappa", "kappa_t", "µs per sample", "state")
    rows = [
        (
            brief(model),
            share(one["accuracy"]),
            score(one["kappa"]),
            score(one["kappa_t"]),
            micros(one["cpu_us_per_sample"]),
            size(mean(one["state_bytes"])),
        )
        for model, one in _all(results)
    ]
    return Table("Models in numbers", columns, rows, caption=_spread(results), wide=True)


def _detection_table(results: StreamResults) -> Table:
    with_drifts, known = bool(results.true_drifts), results.summary["drifts"] is not None
    columns = ["model", "detections"]
    columns += ["recovery", "area lost", "delay", "drifts detected"] if with_drifts else []
    columns += ["false alarms"] if known else []
    columns += ["found by the model"]
    rows = []
    for model, one in _all(results):
        row = [brief(model), number(one["detections"])]
        if with_drifts:
            row += [recovery(results, model), number(one["area_lost"]), number(one["detection_delay"])]
            row += [f"{number(mean(one['drifts_detected']))} of {len(results.true_drifts)}"]
        row += [number(one["false_alarms"])] if known else []
        rows.append([*row, number(one["reactions"])])
    caption = "Recovery and delay in samples, area lost in errors. " if with_drifts else ""
    return Table("Drift in numbers", columns, rows, caption=caption + _spread(results), wide=True)


def _all(results: StreamResults) -> Iterator[tuple[str, dict[str, Interval]]]:
    for model in results.models:
        yield model, results.figures(model)


def _spread(results: StreamResults) -> str:
    return f"Means over {results.seeds} seeds with their 95% confidence intervals." if results.seeds > 1 else ""


def _drift_table(results: StreamResults) -> Table:
    means = (
        results.drifts.group_by("drift", "model", maintain_order=True)
        .agg(
            pl.col("before", "recovery_samples", "area_lost", "detection_delay").mean(),
            recovered=pl.col("recovery_samples").count(),
            detected=pl.col("detection_delay").count(),
        )
        .sort("drift", maintain_order=True)
    )

    def of(number_of: int) -> str:
        return "" if number_of in (0, results.seeds) else f" ({number_of} of {results.seeds})"

    rows = [
        (
            count(row["drift"]),
            brief(row["model"]),
            MISSING if row["before"] is None else f"{100 * row['before']:.2f}%",
            ("never" if row["before"] is not None else MISSING)
            if row["recovery_samples"] is None
            else count(row["recovery_samples"]) + of(row["recovered"]),
            count(row["area_lost"]),
            count(row["detection_delay"]) + of(row["detected"]),
        )
        for row in means.head(_MOST_DRIFT_ROWS).iter_rows(named=True)
    ]
    more = means.height - len(rows)
    caption = "Mean over seeds; in brackets of how many, if not of all. " if results.seeds > 1 else ""
    caption += f"{count(more)} more rows are in drifts.parquet." if more else ""
    return Table(
        "Every drift",
        ("drift at sample", "model", "accuracy before", "recovery", "area lost", "delay"),
        rows,
        text=frozenset({1}),
        caption=caption.strip(),
        wide=True,
    )
