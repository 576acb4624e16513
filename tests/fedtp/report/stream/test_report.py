"""The report of a stream study: complete, true to the summary, and whole whatever the study was like."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedtp.report.stream import StreamResults, stream_report

MEASURES = [
    "accuracy",
    "kappa",
    "kappa_t",
    "recovery_samples",
    "drifts_recovered",
    "area_lost",
    "detection_delay",
    "drifts_detected",
    "false_alarms",
    "detections",
    "reactions",
    "cpu_us_per_sample",
    "state_bytes",
]
NOTHING = {"mean": None, "margin": None, "runs": 0}


def make(
    models: tuple[str, ...] = ("tp", "no-change"),
    seeds: int = 2,
    drifts: tuple[int, ...] | None = (400,),
    events: bool = True,
) -> StreamResults:
    """Results of a study of 1,000 samples that never was: the first model is the best, and has drifts of its own."""
    numbers = range(1, seeds + 1)
    margin = 0.0125 if seeds > 1 else None
    known = {
        "accuracy": 0.9,
        "kappa": 0.8,
        "kappa_t": 0.75,
        "cpu_us_per_sample": 12.5,
        "state_bytes": 34_000,
        "detections": 2,
        "reactions": 1,
    }
    known |= {} if drifts is None else {"false_alarms": 1}
    known |= (
        {
            "recovery_samples": 321,
            "drifts_recovered": len(drifts),
            "area_lost": 45,
            "detection_delay": 67,
            "drifts_detected": 1,
        }
        if drifts
        else {}
    )
    figures = {
        model: {
            "spec": f"{model}()",
            **{
                name: {"mean": known[name] / (1 + index), "margin": margin, "runs": seeds} if name in known else NOTHING
                for name in MEASURES
            },
        }
        for index, model in enumerate(models)
    }
    curve = [
        (model, seed, start, start + 50, 45 - (seed + place) % 5, 0.0)
        for place, model in enumerate(models)
        for seed in numbers
        for start in range(0, 1_000, 50)
    ]
    happened = [
        (model, seed, kind, sample, [{"block": "0", "rise": 0.25}] if kind == "reaction" else None)
        for model in models
        for seed in numbers
        for kind, sample in (("detection", 467), ("detection", 900), ("reaction", 430))
        if model == models[0] or kind == "detection"
    ]
    after = [
        (model, seed, drift, 0.9, 321 if model == models[0] else None, 45.0, 67)
        for model in models
        for seed in numbers
        for drift in drifts or ()
    ]
    key = {"model": pl.String, "seed": pl.Int64}
    rises = pl.List(pl.Struct({"block": pl.String, "rise": pl.Float64}))

    def frame(rows: list[Any], **columns: Any) -> pl.DataFrame:
        return pl.DataFrame(rows, schema={**key, **columns}, orient="row")

    return StreamResults(
        summary={
            "stream": "letters",
            "title": "letters, one after the other",
            "samples": 1_000,
            "drifts": None if drifts is None else list(drifts),
            "seeds": list(numbers),
            "label_delay": 0,
            "detector": "adwin",
            "detection_window": 200,
            "version": "0.1.0",
            "models": figures,
        },
        runs=frame([]),
        curves=frame(curve, start=pl.Int64, end=pl.Int64, correct=pl.Int64, accuracy=pl.Float64),
        drifts=frame(
            after,
            drift=pl.Int64,
            before=pl.Float64,
            recovery_samples=pl.Int64,
            area_lost=pl.Float64,
            detection_delay=pl.Int64,
        ),
        events=frame(happened if events else [], kind=pl.String, sample=pl.Int64, rises=rises),
    )


@pytest.fixture(scope="module")
def page(read: Callable[[str], Any]) -> Any:
    return read(stream_report(make()))


def titles(page: Any) -> list[str]:
    return [text for _, text in page.all("h3")]


def cards(page: Any) -> dict[str, tuple[str, str]]:
    values, notes = ([text for _, text in page.all("dd", kind)] for kind in ("value", "note"))
    labels = [text for _, text in page.all("dt")][-len(values) :]
    return {label: (value, note) for label, value, note in zip(labels, values, notes, strict=True)}


def names(view: dict[str, Any]) -> list[str]:
    return [trace["name"] for trace in view["data"] if "name" in trace]


def values(array: Any) -> list[float]:
    """Numbers as plotly writes them: a list, or binary."""
    if isinstance(array, list):
        return array
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]).tolist()


def test_every_figure_and_table_is_there(page: Any) -> None:
    assert titles(page) == [
        "Accuracy over the stream",
        "Accuracy and time",
        "Lost to a drift",
        "Models in numbers",
        "Drift in numbers",
        "Every drift",
        "Which block suffered",
        "What is measured",
    ]
    assert all(view["data"] for views in page.figures for view in views)


def test_figures_are_described_in_words(page: Any) -> None:
    words = [attributes["aria-label"] for attributes, _ in page.all("div", "plot")]
    assert len(words) == len(page.figures)
    assert all(text.endswith(".") for text in words)
    assert "tp 90.0%, no-change 45.0%" in words[0]
    assert "1 true drifts are marked, and 8 detections" in words[0]


def test_cards_are_of_the_best_model(page: Any) -> None:
    found = cards(page)
    assert found["Best accuracy"] == ("90.00%", "± 1.25, by tp; all the rest here is of this model")
    assert found["Kappa_t"][0] == "0.750"
    assert found["Recovery"] == ("321", "± 0.0, samples until accuracy is back")
    assert found["Time"] == ("12.5", "± 0.0, µs of the processor per sample")
    assert found["False alarms"] == ("1", "± 0.0, of 2 detections")
    assert found["State"][0] == "34 kB"


def test_accuracy_by_window_and_since_the_start(page: Any) -> None:
    windows, since = page.figures[0]
    assert names(windows) == ["tp", "no-change", "detection", "false alarm", "found by the model"]
    assert names(since) == names(windows)
    lines = [next(trace for trace in view["data"] if trace.get("name") == "tp") for view in (windows, since)]
    # 44 of 50 samples with seed 1, 43 of 50 with seed 2, in every window.
    assert [values(line["y"]) for line in lines] == [pytest.approx([0.87] * 20)] * 2
    assert values(lines[0]["x"])[:2] == [25, 75]
    assert values(lines[1]["x"])[:2] == [50, 100]
    bands = [trace for trace in windows["data"] if trace.get("fill") == "toself"]
    assert len(bands) == 2


def test_drifts_are_marked(page: Any) -> None:
    for view in page.figures[0]:
        assert [shape["x0"] for shape in view["layout"]["shapes"]] == [400]


def test_one_seed_has_no_bands(read: Callable[[str], Any]) -> None:
    page = read(stream_report(make(seeds=1)))
    assert not [trace for trace in page.figures[0][0]["data"] if trace.get("fill")]
    assert cards(page)["Best accuracy"] == ("90.00%", "by tp; all the rest here is of this model")


def test_numbers_are_in_the_tables(page: Any) -> None:
    cells = [text for _, text in page.all("td")]
    for text in ("90.00% ± 1.25", "0.800 ± 0.013", "12.5 ± 0.0", "34 kB", "1 of 1", "321", "never"):
        assert text in cells


def test_without_known_drifts(read: Callable[[str], Any]) -> None:
    page = read(stream_report(make(drifts=None)))
    assert "Lost to a drift" not in titles(page)
    assert "Every drift" not in titles(page)
    assert names(page.figures[0][0]) == ["tp", "no-change", "detection", "found by the model"]
    assert cards(page)["Recovery"] == ("–", "no true drift is known")


def test_nothing_happened(read: Callable[[str], Any]) -> None:
    page = read(stream_report(make(drifts=(), events=False)))
    assert names(page.figures[0][0]) == ["tp", "no-change"]
    assert "Which block suffered" not in titles(page)


def test_more_models_than_colours(read: Callable[[str], Any]) -> None:
    page = read(stream_report(make(models=tuple(f"model {number}" for number in range(13)))))
    lines = [trace["line"] for trace in page.figures[0][0]["data"] if trace.get("name", "").startswith("model")]
    assert len({(line["color"], line["dash"]) for line in lines}) == 13


def test_the_setting_is_folded_away(page: Any) -> None:
    ((_, text),) = page.all("code")
    assert json.loads(text)["models"] == {"tp": "tp()", "no-change": "no-change()"}
    assert json.loads(text)["detection_window"] == 200


def test_names_are_text(read: Callable[[str], Any]) -> None:
    evil = '</script><img src="x" onerror="alert(1)"><b>'
    results = make(models=(evil, "other"))
    page = read(stream_report(replace(results, summary={**results.summary, "stream": evil})))
    assert not page.all("img")
    assert [text for _, text in page.all("h1")] == [evil]
    assert not any("<b>" in text for view in page.figures[0] for text in names(view))


def test_the_same_results_make_the_same_page() -> None:
    assert stream_report(make()) == stream_report(make())


def test_size() -> None:
    assert len(stream_report(make())) < 5_100_000
