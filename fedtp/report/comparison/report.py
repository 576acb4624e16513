"""The report of a comparison, from its cards to the definitions of what it measures."""

from __future__ import annotations

import fedtp
from fedtp.interval import Interval
from fedtp.report.comparison.accuracy import accuracy_part
from fedtp.report.comparison.dots import dots_panel
from fedtp.report.comparison.figures import FIGURES, Figure
from fedtp.report.comparison.results import ComparisonResults
from fedtp.report.figures import signed
from fedtp.report.fleet.measures import MEASURES
from fedtp.report.page import Card, Page, Part, Section, Source, Table
from fedtp.report.units import MISSING, count

# More rows than this are left to the file of runs.
_MOST_RUNS = 100
_CARDS = ("prequential_accuracy", "final_accuracy", "bytes_up", "joules")


def comparison_report(results: ComparisonResults) -> str:
    """Write the report of a comparison as one HTML page that opens anywhere and asks the network for nothing.

    Parameters
    ----------
    results
        What is compared.

    Returns
    -------
    str
        The page, about 5 MB: plotly.js, which draws the figures, is in it.
    """
    return Page(
        kind=results.kind,
        title=results.title,
        description=results.description,
        facts=results.facts,
        cards=[_card(results, one) for one in FIGURES if one.key in _CARDS],
        sections=_sections(results),
        footer=f"fedtp {fedtp.__version__}",
    ).html()


def _card(results: ComparisonResults, one: Figure) -> Card:
    best = results.best(one)
    if best is None:
        whole = {results.interval(group, one).mean for group in results.groups}
        value = one.text(Interval(whole.pop(), None, 1)) if len(whole) == 1 else MISSING
        return Card(one.label.capitalize(), value, "the same for all" if len(results.groups) > 1 else "", lead=True)
    value, _, margin = one.text(results.interval(best, one)).partition(" ± ")
    which = "Best" if one.more_is_better else "Least"
    note = f"± {margin}, by {best}" if margin else f"by {best}"
    return Card(f"{which} {one.label}", value, note, lead=True)


def _sections(results: ComparisonResults) -> list[Section]:
    several = len(results.groups) > 1
    numbers: list[Part] = [_table(results)]
    if several:
        numbers.append(_difference_table(results))
    sections = [
        Section("Accuracy", [accuracy_part(results)]),
        Section("Figures", [dots_panel(results), *numbers]),
    ]
    settings: list[Part] = []
    if results.settings:
        settings.append(_settings_table(results))
    if results.scenario_toml:
        settings.append(Source("The scenario that all have in common, defaults included (TOML)", results.scenario_toml))
    if settings:
        sections.append(Section("Settings", settings))
    if results.repeated:
        sections.append(Section("Runs", [_run_table(results)]))
    definitions = [
        *MEASURES,
        (
            "± in a table",
            "Half the width of the 95% confidence interval of the mean over seeds, by Student's t.",
        ),
        (
            "Difference",
            "Mean over pairs of runs with the same seed, which share devices, data and luck; the interval is that of "
            "this mean, so a difference is sure where it is larger than what follows ±.",
        ),
    ]
    text = frozenset({0, 1})
    measures = Table("What is measured", ("measure", "definition"), definitions, text=text, wide=True)
    return [*sections, Section("Measures", [measures])]


def _table(results: ComparisonResults) -> Table:
    columns = ["", *(one.label for one in results.shown)]
    rows = [[group, *(one.text(results.interval(group, one)) for one in results.shown)] for group in results.groups]
    caption = "Means over seeds with their 95% confidence intervals. " if results.repeated else ""
    same = [one.label for one in FIGURES if one not in results.shown]
    if same and len(results.groups) > 1:
        caption += f"The same for all: {', '.join(same)}."
    return Table("In numbers", columns, rows, caption=caption.strip(), wide=True)


def _difference_table(results: ComparisonResults) -> Table:
    first, *others = results.groups
    columns = ["", *(one.label for one in results.shown)]
    rows = [[group, *(signed(results.difference(group, one), one.text) for one in results.shown)] for group in others]
    caption = "Paired by seed; differences of percentages are in points."
    return Table(f"Against {first}", columns, rows, caption=caption, wide=True)


def _settings_table(results: ComparisonResults) -> Table:
    columns = ["setting", *results.groups]
    everywhere = frozenset(range(len(columns)))
    return Table("What differs", columns, results.settings, text=everywhere, wide=True)


def _run_table(results: ComparisonResults) -> Table:
    rows = [
        [
            row["run"],
            str(row["seed"]),
            *(one.text(Interval(row[one.key], None, 1)) for one in results.shown),
        ]
        for row in results.runs.head(_MOST_RUNS).iter_rows(named=True)
    ]
    more = results.runs.height - len(rows)
    return Table(
        "Every run",
        ["run", "seed", *(one.label for one in results.shown)],
        rows,
        caption=f"{count(more)} more are in the table of runs." if more else "",
        wide=True,
    )
