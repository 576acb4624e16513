"""The report of a real federation, from what its server wrote down."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fedtp import cli
from fedtp.errors import DataError, FedtpError
from server.federation.folder import ServerFolder
from server.federation.results import fleet_results, read_events


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli.build(), ["federation", "report", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_the_report_tells_what_the_server_knows(folder: ServerFolder, learn) -> None:
    learn()
    results = fleet_results(folder)
    assert results.summary["rounds"] == 3
    assert results.summary["samples"] == 60
    assert results.summary["prequential_accuracy"] == pytest.approx(0.7)
    assert results.summary["updates_accepted"] == 6
    assert set(results.devices["device_class"]) == {"one", "two"}
    run(folder.path)
    page = (folder.path / "report.html").read_text()
    assert "<h1>Two boards</h1>" in page
    assert "70.0" in page


def test_many_devices_are_one_class(folder: ServerFolder, learn) -> None:
    learn()
    lines = folder.events.read_text().splitlines()
    order = next(json.loads(line) for line in lines if '"order"' in line)
    more = [json.dumps({**order, "device": f"board-{number}"}) for number in range(20)]
    folder.events.write_text("\n".join([*lines, *more, ""]))
    assert set(fleet_results(folder).devices["device_class"]) == {"device"}


def test_files_that_were_closed_come_first(folder: ServerFolder, learn) -> None:
    learn()
    events = read_events(folder.events)
    lines = folder.events.read_text().splitlines(keepends=True)
    folder.events.with_name("events.jsonl.2").write_text("".join(lines[:2]))
    folder.events.with_name("events.jsonl.1").write_text("".join(lines[2:5]))
    folder.events.write_text("".join(lines[5:]) + '{"kind": "rou')
    assert read_events(folder.events) == events
    folder.events.write_text("nonsense\n" + "".join(lines[5:]))
    with pytest.raises(DataError, match=r"events\.jsonl, line 1: is no event"):
        read_events(folder.events)
    assert "line 1" in run(folder.path, code=2)


def test_before_it_learns_there_is_nothing_to_tell(folder: ServerFolder) -> None:
    with pytest.raises(FedtpError, match="has not learnt yet"):
        fleet_results(folder)


def test_a_page_that_cannot_be_written_is_said(folder: ServerFolder, learn) -> None:
    learn()
    assert "cannot write" in run(folder.path, "--out", folder.path / "no" / "such.html", code=2)
