"""The report of a fleet, from its cards to the definitions of what it measures."""

from __future__ import annotations

from collections.abc import Sequence

from fedtp.report.fleet.accuracy import accuracy_part, around_part
from fedtp.report.fleet.blocks import coverage_part, memory_table
from fedtp.report.fleet.classes import class_accuracy_part, class_table, class_time_part
from fedtp.report.fleet.costs import energy_panel, traffic_panel
from fedtp.report.fleet.delays import delay_part
from fedtp.report.fleet.drifts import waves
from fedtp.report.fleet.heatmap import heatmap_part
from fedtp.report.fleet.measures import MEASURES
from fedtp.report.fleet.orders import outcome_part, outcome_table
from fedtp.report.fleet.results import FleetResults
from fedtp.report.page import Card, Page, Part, Section, Source, Table
from fedtp.report.units import MISSING, count, data_size, duration, energy, percent

# More waves than this make a list that nobody reads.
_MOST_WAVES = 12


def fleet_report(results: FleetResults) -> str:
    """Write the report of a fleet as one HTML page that opens anywhere and asks the network for nothing.

    Parameters
    ----------
    results
        What the fleet did.

    Returns
    -------
    str
        The page, about 5 MB: plotly.js, which draws the figures, is in it.

    Examples
    --------
    >>> import polars as pl
    >>> from fedtp.report.fleet.results import DEVICES, EVENTS, ROUNDS
    >>> nothing = [pl.DataFrame(schema=schema) for schema in (ROUNDS, DEVICES, EVENTS)]
    >>> page = fleet_report(FleetResults("No rounds yet", "", {}, *nothing, scenario_toml=""))
    >>> "<h1>No rounds yet</h1>" in page
    True
    """
    return Page(
        kind="Fleet report",
        title=results.title,
        description=results.description,
        facts=_facts(results),
        cards=_cards(results),
        sections=_sections(results),
        footer=f"fedtp {_text(results, 'version')}",
    ).html()


def _facts(results: FleetResults) -> dict[str, str]:
    return {
        "Scenario": _text(results, "scenario"),
        "Method": _text(results, "method"),
        "Readout": _text(results, "readout"),
        "Adaptor": _text(results, "adaptor"),
        "Seed": _text(results, "seed"),
        "Devices": count(results.number("devices")),
        "Rounds": count(results.number("rounds")),
    }


def _cards(results: FleetResults) -> list[Card]:
    number = results.number
    drifts, found, window = (
        number("drifts_true"),
        number("drifts_detected"),
        number("detection_window_seconds"),
    )
    kappa, kappa_t = number("kappa"), number("kappa_t")
    return [
        Card(
            "Prequential accuracy",
            percent(number("prequential_accuracy")),
            "each sample predicted, then learnt",
            lead=True,
        ),
        Card("Final accuracy", percent(number("final_accuracy")), "last global model, held-out data", lead=True),
        Card("Kappa", _score(kappa), f"agreement beyond chance; kappa_t {_score(kappa_t)}", lead=True),
        Card(
            "Drifts detected",
            f"{count(found)} of {count(drifts)}" if drifts else MISSING,
            f"within {duration(window)} each" if drifts else "no true drift is known",
            lead=True,
        ),
        Card("False alarms", count(number("false_alarms")), "detections without a drift"),
        Card(
            "Client rounds",
            count(number("client_rounds")),
            f"{count(number('updates_accepted'))} updates accepted",
        ),
        Card("Updates refused", count(number("updates_refused")), "by a check of the server"),
        *_privacy_cards(results),
        Card("Updates late", count(number("updates_late")), "after the deadline"),
        Card("Updates lost", count(number("updates_lost")), "never arrived"),
        *_sample_cards(results),
        Card("Virtual time", duration(number("virtual_seconds")), "that the fleet lived through"),
        Card("Wall time", duration(number("wall_seconds")), "that the computer took"),
        Card("Traffic up", data_size(number("bytes_up")), "devices to server"),
        Card("Traffic down", data_size(number("bytes_down")), "server to devices"),
        Card("Energy", energy(number("joules")), "all devices"),
    ]


def _privacy_cards(results: FleetResults) -> list[Card]:
    """Tell what the model may have told of a device, if noise hides what it has learnt."""
    epsilon, delta = results.number("epsilon"), results.number("delta")
    if epsilon is None or delta is None:
        return []
    return [Card("Privacy loss", f"ε {epsilon:.3g}", f"of any device at most, by all models; δ {delta:.0e}")]


def _sample_cards(results: FleetResults) -> list[Card]:
    """Tell of samples whose labels were late or missing, and of those that no buffer held, if there were any."""
    dropped, unlabelled, delay = (
        results.number(key) for key in ("samples_dropped", "samples_unlabelled", "label_delay_seconds")
    )
    return [
        *([Card("Samples dropped", count(dropped), "pushed out of full buffers")] if dropped else []),
        *([Card("Samples unlabelled", count(unlabelled), "predicted, and never learnt")] if unlabelled else []),
        *([Card("Label delay", duration(delay), "from a sample to its label, mean")] if delay else []),
    ]


def _sections(results: FleetResults) -> list[Section]:
    accuracy: list[Part] = [accuracy_part(results)]
    if results.drifts.height:
        accuracy += [around_part(results), delay_part(results), _wave_table(results)]
    return [
        Section("Accuracy and drift", accuracy),
        Section("Devices", [heatmap_part(results)]),
        Section("Device classes", [class_accuracy_part(results), class_time_part(results), class_table(results)]),
        Section("Blocks", [coverage_part(results), memory_table(results)]),
        Section("Cost", [traffic_panel(results), energy_panel(results)]),
        Section("Orders", [outcome_part(results), outcome_table(results)]),
        Section("Scenario", [Source("The whole scenario, defaults included (TOML)", results.scenario_toml)]),
        Section("Measures", [_measures()]),
    ]


def _wave_table(results: FleetResults) -> Table:
    gathered = waves(results)
    rows = [
        (
            wave.concept,
            duration(wave.start),
            duration(wave.end),
            count(wave.drifts),
            percent(wave.detected / wave.drifts),
            duration(wave.median_delay),
        )
        for wave in gathered[:_MOST_WAVES]
    ]
    more = len(gathered) - len(rows)
    return Table(
        title="Waves of drift",
        columns=("to concept", "first drift", "last drift", "drifts", "detected", "median delay"),
        rows=rows,
        caption="Drifts to one concept that follow each other closely, in virtual time."
        + (f" {count(more)} later waves are not listed." if more else ""),
        wide=True,
    )


def _measures() -> Table:
    rows: Sequence[tuple[str, str]] = MEASURES
    return Table("What is measured", ("measure", "definition"), rows, text=frozenset({0, 1}), wide=True)


def _score(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _text(results: FleetResults, key: str) -> str:
    value = results.summary.get(key)
    return MISSING if value is None else str(value)
