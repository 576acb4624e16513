"""The report of a fleet: complete, true to the summary, and whole whatever the run was like."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import polars as pl
import pytest

from fedtp.errors import DataError
from fedtp.report import FleetResults, fleet_report
from fedtp.report.fleet.results import DEVICES, EVENTS, ROUNDS

FIGURES = [
    "Accuracy over time",
    "Around a drift",
    "Delay of detection",
    "Accuracy of every device",
    "Accuracy by device class",
    "Time per order",
    "Updates of each block",
    "Traffic",
    "Energy",
    "Outcomes of orders",
]
TABLES = [
    "Waves of drift",
    "Device classes in numbers",
    "Memory of training",
    "Outcomes in numbers",
    "What is measured",
]


@pytest.fixture(scope="module")
def html(fleet):
    return fleet_report(fleet)


@pytest.fixture(scope="module")
def page(html, read):
    return read(html)


def headings(page) -> list[str]:
    return [text for _, text in page.all("h3")]


def cards(page) -> dict[str, str]:
    return {label: value for (_, label), (_, value) in zip(page.all("dt")[7:], page.all("dd", "value"), strict=True)}


def test_every_figure_and_table_is_there(page):
    assert [title for title in headings(page) if title in FIGURES] == FIGURES
    assert len(page.figures) == len(FIGURES) == len(page.all("figure"))
    assert [title for title in headings(page) if title in TABLES] == TABLES
    assert all(view["data"] for views in page.figures for view in views)


def test_headings_are_in_order(page):
    levels = [int(tag[1]) for tag, _, _ in page.elements if tag in {"h1", "h2", "h3", "h4"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_figures_are_described_in_words(page):
    words = [attributes["aria-label"] for attributes, _ in page.all("div", "plot")]
    assert len(words) == len(FIGURES)
    assert all(text.endswith(".") and len(text) > 40 for text in words)
    assert "100 true drifts" in words[0]


def test_accuracy_is_shown_over_virtual_time_and_over_rounds(page):
    titles = [view["layout"]["xaxis"]["title"]["text"] for view in page.figures[0]]
    assert titles == ["virtual time (min)", "round"]


def test_axes_have_titles(page):
    for views in page.figures:
        for view in views:
            titles = {
                name: axis.get("title", {}).get("text")
                for name, axis in view["layout"].items()
                if name.startswith(("xaxis", "yaxis"))
            }
            if view["data"][0]["type"] == "heatmap":
                titles["xaxis"] = view["layout"]["annotations"][0]["text"]
                titles["yaxis"] = view["layout"]["yaxis"]["ticktext"][0]
            # Device classes name themselves.
            of_classes = any(isinstance(trace["y"][0], str) for trace in view["data"] if isinstance(trace["y"], list))
            assert titles["xaxis"]
            assert all(titles.values()) or of_classes


def test_cards_tell_of_samples_that_were_not_learnt_at_once_if_there_were_any(fleet, read):
    told = {"samples_dropped": 1234, "samples_unlabelled": 0, "label_delay_seconds": 90.0}
    found = cards(read(fleet_report(replace(fleet, summary={**fleet.summary, **told}))))
    assert found["Samples dropped"] == "1,234"
    assert found["Label delay"] == "1 min 30 s"
    assert "Samples unlabelled" not in found


def test_cards_say_what_the_summary_says(page, fleet):
    summary = fleet.summary
    assert cards(page) == {
        "Prequential accuracy": f"{100 * summary['prequential_accuracy']:.1f}%",
        "Final accuracy": "87.3%",
        "Kappa": "0.812",
        "Drifts detected": f"{summary['drifts_detected']} of 100",
        "False alarms": str(summary["false_alarms"]),
        "Client rounds": "6,000",
        "Updates refused": str(summary["updates_refused"]),
        "Updates late": str(summary["updates_late"]),
        "Updates lost": str(summary["updates_lost"]),
        "Virtual time": "1 h",
        "Wall time": "41.2 s",
        "Traffic up": f"{summary['bytes_up'] / 1e6:.0f} MB",
        "Traffic down": f"{summary['bytes_down'] / 1e6:.0f} MB",
        "Energy": f"{summary['joules'] / 1e3:.1f} kJ",
    }


def test_header_names_what_was_run(page):
    facts = dict(zip((t for _, t in page.all("dt")), (t for _, t in page.all("dd")), strict=False))
    assert [text for _, text in page.all("h1")] == ["Digits that turn"]
    assert len(page.all("p", "description")) == 2
    assert facts == facts | {
        "Method": "tpsgd",
        "Readout": "shared",
        "Adaptor": "none",
        "Seed": "1",
        "Scenario": "digits-rotating",
    }


def test_refusals_are_named(page):
    rows = [text for attributes, text in page.all("th") if attributes.get("scope") == "row"]
    assert [row for row in rows if row.startswith("refused: ")] == [
        "refused: not-finite",
        "refused: shape",
        "refused: projection-digest",
    ]


def test_the_scenario_is_folded_away(page, fleet):
    assert [text for _, text in page.all("code")] == [fleet.scenario_toml]
    assert all("open" not in attributes for attributes, _ in page.all("details"))


def test_size(html, page):
    assert len(html) < 5_100_000


def test_the_same_results_make_the_same_page(html, make):
    assert fleet_report(make()) == html


def test_names_from_a_scenario_are_text(make, read):
    evil = '</script><img src="http://example.org/x" onerror="alert(1)">'
    results = make(devices=8, rounds=12, concepts=(evil,))
    renamed = replace(
        results,
        title=evil,
        description=evil,
        devices=results.devices.with_columns(device_class=pl.lit(evil)),
        events=results.events.with_columns(device_class=pl.lit(evil)),
        scenario_toml=evil,
        summary={**results.summary, "scenario": evil, "method": evil, "refusals": {evil: 1}},
    )
    page = read(fleet_report(renamed))
    assert not page.all("img")
    assert evil in headings(page) or [text for _, text in page.all("h1")] == [evil]
    names = [trace.get("name", "") for views in page.figures for view in views for trace in view["data"]]
    # Plotly reads tags in names and texts, so they are escaped once more for it.
    assert "&lt;img" in "".join(names)
    assert "<img" not in "".join(names)


DEGENERATE = {
    "no drift": {"drift_at": ()},
    "one round": {"rounds": 1},
    "two rounds": {"rounds": 2},
    "one device": {"devices": 1},
    "one device, one round": {"devices": 1, "rounds": 1, "drift_at": ()},
    "no samples": {"rate": 0.0},
    "few samples": {"rate": 0.02},
    "drifts in step": {"drift_at": (0.2, 0.4, 0.6, 0.8), "stagger": 0.0},
    "many drifts": {"drift_at": tuple(i / 30 for i in range(1, 30)), "stagger": 0.02},
    "drifts at the end": {"drift_at": (0.9999,), "stagger": 0.0},
    "long": {"devices": 3, "rounds": 5_000},
}


@pytest.mark.parametrize("kind", DEGENERATE)
def test_every_kind_of_run_makes_a_whole_page(kind, make, read):
    results = make(**{"devices": 12, "rounds": 30, **DEGENERATE[kind]})
    page = read(fleet_report(results))
    expected = FIGURES if results.drifts.height else [title for title in FIGURES if "rift" not in title]
    expected = [title for title in expected if title != "Delay of detection" or results.drifts.height]
    assert [title for title in headings(page) if title in FIGURES] == expected


def test_a_run_without_events(make, read):
    results = make(devices=5, rounds=10, events=pl.DataFrame(schema=EVENTS))
    page = read(fleet_report(results))
    assert "yaxis2" not in page.figures[0][0]["layout"]
    assert "Waves of drift" not in headings(page)


def test_no_rounds_at_all(read):
    nothing = {"rounds": ROUNDS, "devices": DEVICES, "events": EVENTS}
    frames = {name: pl.DataFrame(schema=schema) for name, schema in nothing.items()}
    page = read(fleet_report(FleetResults("Nothing", "", {}, scenario_toml="", **frames)))
    assert set(cards(page).values()) == {"–"}


def test_what_a_summary_lacks_is_a_dash(make, read):
    results = make(devices=3, rounds=5, summary={"kappa": None, "joules": float("nan"), "bytes_up": 0})
    shown = cards(read(fleet_report(results)))
    assert (shown["Kappa"], shown["Energy"], shown["Wall time"]) == ("–", "–", "–")
    assert shown["Traffic up"] == "0 B"


def test_five_thousand_devices(make, read):
    html = fleet_report(make(devices=5_000, rounds=20))
    assert len(html) < 5_300_000
    heat = next(views[0] for views in read(html).figures if views[0]["data"][0]["type"] == "heatmap")
    rows = sum(int(trace["z"]["shape"].split(",")[0]) for trace in heat["data"] if trace["type"] == "heatmap")
    assert 190 <= rows <= 210


def test_a_frame_that_lacks_a_column_is_named(fleet):
    with pytest.raises(DataError, match=r"rounds lacks joules"):
        replace(fleet, rounds=fleet.rounds.drop("joules"))


def test_a_column_of_another_type_is_named(fleet):
    with pytest.raises(DataError, match=r"frame of devices"):
        replace(fleet, devices=fleet.devices.with_columns(samples=pl.lit("many")))


def test_empty_frames_of_no_type_will_do(make):
    events = pl.DataFrame({name: [] for name in EVENTS})
    assert make(devices=2, rounds=3, events=events).events.schema == pl.Schema(EVENTS)
