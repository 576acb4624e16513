from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedtp import cli
from fedtp.federation import alone
from server.federation.certificates import expiry
from server.federation.folder import ServerFolder

ROWS = "hour,load,price\n1,0.5,UP\n2,0.25,DOWN\n3,1,UP\n"


def fedtp(*arguments: str | Path) -> str:
    result = CliRunner().invoke(cli.build(), ["federation", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return str(result.output)


def refused(*arguments: str | Path) -> str:
    result = CliRunner().invoke(cli.build(), ["federation", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return path


@pytest.fixture
def made(tmp_path: Path, rows: Path) -> Path:
    fedtp("init", tmp_path / "fed", "--like", rows, "--label", "price", "--devices", "2", "--hidden", "8,4")
    return tmp_path / "fed"


def test_a_federation_begins_with_a_sample_of_rows(made: Path) -> None:
    spec = ServerFolder.of(made).spec()
    assert (spec.data.features, spec.data.classes, spec.learner.hidden) == (("hour", "load"), ("DOWN", "UP"), (8, 4))
    assert spec.data.offset == pytest.approx((2.0, 7 / 12), abs=1e-6)
    assert sorted(path.name for path in (made / "devices").iterdir()) == ["device-1", "device-2"]


def test_what_cannot_begin_is_said(tmp_path: Path, rows: Path, made: Path) -> None:
    new = tmp_path / "new"
    assert "holds a federation already" in refused("init", made, "--like", rows, "--label", "price")
    assert 'no column "prize"; did you mean "price"' in refused("init", new, "--like", rows, "--label", "prize")
    assert "none.csv cannot be read" in refused("init", new, "--like", tmp_path / "none.csv")
    assert "--hidden" in refused("init", new, "--like", rows, "--label", "price", "--hidden", "many")
    assert "--hidden" in refused("init", new, "--like", rows, "--label", "price", "--hidden", "0")
    assert not new.exists()
    for command in ("start", "stop", "status", "server", "renew"):
        assert "is not the folder of a federation" in refused(command, new)


def test_without_a_server_it_says_so(made: Path) -> None:
    assert "no server runs here" in fedtp("start", made)
    assert ServerFolder.of(made).wish == "learn"
    with alone(made / "server", "the server"):
        assert "no server runs" not in fedtp("stop", made)
        assert json.loads(fedtp("status", made, "--json"))["process"]
    assert ServerFolder.of(made).wish == "rest"


def test_status_shows_every_device(made: Path) -> None:
    shown = fedtp("status", made)
    assert "has not learnt yet" in shown
    assert "device-2" in shown
    ServerFolder.of(made).write_status(
        {
            "state": "learning",
            "round": 3,
            "rounds": 1000,
            "accuracy": 0.75,
            "samples": 40,
            "correct": 30,
            "drifts": 1,
            "refusals": {"digest": 2},
            "seconds": 180.0,
            "devices": {
                "device-1": {"rounds": 3, "samples": 40, "correct": 30, "drifts": 1, "refused": 2, "last_seen": 0.0}
            },
        }
    )
    told = json.loads(fedtp("status", made, "--json"))
    assert (told["round"], told["devices"]["device-1"]["refused"], told["devices"]["device-2"]) == (3, 2, {})
    shown = fedtp("status", made)
    for text in ("3 of 1,000", "0.7500", "2 digest", "0:03:00", "never"):
        assert text in shown


def test_a_device_is_added_and_the_certificate_renewed(made: Path) -> None:
    fedtp("add", made, "garden")
    assert (made / "devices" / "garden" / "device.key").is_file()
    assert "called garden already" in refused("add", made, "garden")
    before = expiry(made / "server" / "server.pem")
    fedtp("renew", made, "--days", "2000")
    assert expiry(made / "server" / "server.pem") > before


def test_settings_that_are_wrong_are_named_before_the_start(made: Path) -> None:
    path = made / "federation.toml"
    path.write_text(path.read_text() + "\n[server]\nrounds = 0\n")
    assert "federation.toml: server.rounds is 0" in refused("start", made)
    assert ServerFolder.of(made).wish == "rest"


def test_a_server_whose_certificate_has_ended_does_not_start(made: Path) -> None:
    fedtp("renew", made, "--days", "-1")
    assert "the server's certificate ended on" in refused("server", made)


def test_a_device_without_its_key_does_not_start(made: Path) -> None:
    own = made / "devices" / "device-1"
    (own / "device.key").unlink()
    assert "device.key is missing: copy the device's whole folder" in refused("device", own)
    assert "cannot be read" in refused("device", made / "devices" / "none")


def test_insecure_is_said(tmp_path: Path, rows: Path) -> None:
    assert "nobody else can read or change" in fedtp(
        "init", tmp_path / "new", "--like", rows, "--label", "price", "--insecure"
    )
    assert "it has no certificate" in refused("renew", tmp_path / "new")
