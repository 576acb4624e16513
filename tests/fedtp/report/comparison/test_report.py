"""The report of a comparison: its statistics, and that it is whole whatever was compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from fedtp.errors import DataError
from fedtp.report.comparison import ComparisonResults, comparison_report
from fedtp.report.comparison.figures import FIGURES
from fedtp.report.comparison.results import RUNS

ACCURACY = FIGURES[0]
EVIL = "</script><b>lr=1"


def make(
    groups: tuple[str, ...] = ("lr=0.1", "lr=1"), seeds: int = 3, rounds: int = 12, curves: Any = None, **changes: Any
) -> ComparisonResults:
    """Runs that never ran: a seed moves all groups by the same amount, and each group lies a point above the last."""
    runs, rows = [], []
    for place, group in enumerate(groups):
        for seed in range(1, seeds + 1):
            name = f"{group} {seed}"
            accuracy = 0.8 + 0.01 * place + 0.03 * seed
            figures = {
                "prequential_accuracy": accuracy,
                "final_accuracy": accuracy,
                "bytes_up": 1e6 * (1 + place),
                "samples": 500.0,
                "detected_share": None,
            }
            runs.append({"group": group, "seed": seed, "run": name, **figures})
            rows += [(name, n, 60.0 * (n - 1), 60.0 * n, 100, round(100 * accuracy)) for n in range(1, rounds + 1)]
    schema = ["run", "round", "started_seconds", "ended_seconds", "samples", "correct"]
    parts: dict[str, Any] = {
        "kind": "Sweep",
        "title": "Boards",
        "description": "What they learn.",
        "facts": {"Seeds": "3"},
        "runs": pl.DataFrame(runs, schema=RUNS),
        "rounds": pl.DataFrame(rows, schema=schema, orient="row") if curves is None else curves,
    }
    return ComparisonResults(**{**parts, **changes})


def test_an_interval_is_that_of_students_t() -> None:
    found = make().interval("lr=1", ACCURACY)
    values = [0.84, 0.87, 0.90]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.margin == pytest.approx((high - low) / 2)
    assert found.runs == 3


def test_what_a_seed_brings_falls_out_of_differences() -> None:
    difference = make().difference("lr=1", ACCURACY)
    assert difference.mean == pytest.approx(0.01)
    assert difference.margin == pytest.approx(0, abs=1e-12)


def test_only_seeds_of_both_are_paired() -> None:
    results = make()
    fewer = ComparisonResults(**{**vars(results), "runs": results.runs.filter(~(pl.col("run") == "lr=1 2"))})
    assert fewer.difference("lr=1", ACCURACY).runs == 2
    none = ComparisonResults(
        **{**vars(results), "runs": results.runs.with_columns(seed=pl.int_range(pl.len(), dtype=pl.Int64))}
    )
    assert none.difference("lr=1", ACCURACY).mean is None


def test_columns_are_those_that_matter() -> None:
    assert [figure.key for figure in make().shown] == ["prequential_accuracy", "final_accuracy", "bytes_up"]
    alone = make(groups=("lr=1",))
    assert "samples" in [figure.key for figure in alone.shown]
    assert "joules" not in [figure.key for figure in alone.shown]


def test_the_best_is_named_by_what_is_better() -> None:
    results = make()
    by_key = {figure.key: figure for figure in FIGURES}
    assert results.best(by_key["prequential_accuracy"]) == "lr=1"
    assert results.best(by_key["bytes_up"]) == "lr=0.1"
    assert results.best(by_key["samples"]) is None
    assert results.best(by_key["detected_share"]) is None


def names(view: dict[str, Any]) -> list[str]:
    return [trace["name"] for trace in view["data"] if "name" in trace]


def bands(view: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in view["data"] if trace.get("fill") == "toself"]


def test_a_line_and_a_band_for_every_group(read: Callable[[str], Any]) -> None:
    page = read(comparison_report(make()))
    for view in page.figures[0]:
        assert names(view) == ["lr=0.1", "lr=1"]
        assert len(bands(view)) == 2
    assert [text for _, text in page.all("h3")] == [
        "Accuracy over time",
        "Side by side",
        "In numbers",
        "Against lr=0.1",
        "Every run",
        "What is measured",
    ]
    cells = [text for _, text in page.all("td")]
    assert "87.00% ± 7.45" in cells
    assert "+1.00%" in " ".join(cells)


def test_single_runs_have_no_bands(read: Callable[[str], Any]) -> None:
    settings = [["learner.lr", "0.1", "1"]]
    page = read(comparison_report(make(seeds=1, settings=settings)))
    assert not bands(page.figures[0][0])
    titles = [text for _, text in page.all("h3")]
    assert "What differs" in titles
    assert "Every run" not in titles


@pytest.mark.parametrize(
    "results",
    [
        make(groups=("a",), seeds=1),
        make(rounds=1),
        make(groups=tuple(f"group {n}" for n in range(20)), seeds=2),
        make(rounds=1_000, seeds=1),
        make(curves=make().rounds.with_columns(samples=0, correct=0)),
    ],
    ids=["one run", "one round", "many groups", "many rounds", "no samples"],
)
def test_the_page_is_whole(results: ComparisonResults, read: Callable[[str], Any]) -> None:
    page = read(comparison_report(results))
    assert all(view["data"] for views in page.figures for view in views)
    assert all(len(trace.get("x", [])) <= 1_000 for views in page.figures for view in views for trace in view["data"])


def test_many_groups_wait_for_a_click(read: Callable[[str], Any]) -> None:
    page = read(comparison_report(make(groups=tuple(f"group {n}" for n in range(20)))))
    shown = [trace["visible"] for trace in page.figures[0][0]["data"] if "name" in trace]
    assert shown == [True] * 8 + ["legendonly"] * 12


def test_names_are_text(read: Callable[[str], Any]) -> None:
    html = comparison_report(make(groups=(EVIL, "b"), settings=[[EVIL, EVIL, EVIL]]))
    assert not read(html).all("b")


def test_a_frame_without_a_column_is_refused() -> None:
    with pytest.raises(DataError, match="rounds lacks correct"):
        make(curves=make().rounds.drop("correct"))
