import json
import os
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedtp import cli as fedtp_cli
from fedtp.errors import DataError
from simulations import Scenario, shipped
from simulations.cli import FLOWER
from simulations.results import RUNS

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
SUMMARY = {
    "readout": "learnt",
    "prequential_accuracy": 0.8123,
    "final_accuracy": 0.9,
    "kappa": None,
    "drifts_true": 20,
    "drifts_detected": 15,
    "false_alarms": 2,
    "samples_dropped": 4321,
    "samples_unlabelled": 0,
    "label_delay_seconds": 90.0,
    "updates_accepted": 1200,
    "updates_refused": 1,
    "updates_late": 2,
    "updates_lost": 3,
    "bytes_up": 12_345_678,
    "bytes_down": 999,
    "joules": 1234.5,
    "virtual_seconds": 3600.0,
    "wall_seconds": 1.5,
}


@dataclass
class FakeRun:
    """As much of a run as the command line touches."""

    summary: dict[str, Any]

    def save(self, folder: Path, force: bool = False) -> Path:
        with RUNS.fresh_folder(folder, force) as fresh:
            (fresh / "scenario.toml").write_text("")
            (fresh / "summary.json").write_text(json.dumps(self.summary))
        return folder / "report.html"


@dataclass
class FakeSimulation:
    """Stands in for `simulations.simulation.simulate`, and remembers what it was asked for."""

    scenarios: list[Scenario] = field(default_factory=list)
    error: BaseException | None = None

    def simulate(self, scenario: Scenario, on_round: Callable[[Any], None] | None = None) -> FakeRun:
        self.scenarios.append(scenario)
        assert on_round is not None
        for accuracy in (None, 0.5):
            on_round(
                SimpleNamespace(
                    round=1,
                    rounds=2,
                    virtual_seconds=60.0,
                    accuracy=accuracy,
                    refused=0,
                    late=0,
                    detections=0,
                )
            )
        if self.error:
            raise self.error
        return FakeRun(SUMMARY)


@pytest.fixture(autouse=True)
def simulation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeSimulation:
    fake = FakeSimulation()
    module = ModuleType("simulations.simulation")
    module.simulate = fake.simulate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "simulations.simulation", module)
    monkeypatch.chdir(tmp_path)
    for variable in FLOWER:
        monkeypatch.setenv(variable, "")  # so that whatever is set is taken back
        monkeypatch.delenv(variable)
    return fake


def fedtp(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """Run the command as pyproject.toml registers it, installed or not."""
    group = PYPROJECT["project"]["entry-points"][fedtp_cli.GROUP]
    commands = [EntryPoint(name, value, fedtp_cli.GROUP) for name, value in group.items()]
    monkeypatch.setattr(fedtp_cli, "entry_points", lambda group: commands)
    return CliRunner().invoke(fedtp_cli.build(), arguments)


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_scenarios(monkeypatch: pytest.MonkeyPatch) -> None:
    result = fedtp(monkeypatch, "scenarios")
    assert result.exit_code == 0
    for name in shipped():
        assert name in result.stdout
        assert Scenario.load(name).title in result.stdout


def test_scenarios_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(fedtp(monkeypatch, "scenarios", "--json").stdout)
    assert [entry["name"] for entry in found] == sorted(shipped())
    assert found[0].keys() == {"name", "title", "description", "data", "devices", "rounds"}


def test_simulate(monkeypatch: pytest.MonkeyPatch, simulation: FakeSimulation, tmp_path: Path) -> None:
    result = fedtp(monkeypatch, "simulate", "digits-rotating")
    assert result.exit_code == 0, result.output
    assert simulation.scenarios == [Scenario.load("digits-rotating")]
    assert (tmp_path / "runs/digits-rotating-1/summary.json").is_file()
    assert result.stdout.splitlines()[-1] == "report: runs/digits-rotating-1/report.html"
    for text in (
        "0.8123",
        "0.9000",
        "15 of 20",
        "samples dropped",
        "4,321",
        "0:01:30",
        "1,200 accepted",
        "12.3 MB, 999 B",
        "1:00:00",
        "learnt",
    ):
        assert text in result.stdout
    assert "unlabelled" not in result.stdout
    assert result.stderr == ""


def test_settings_reach_the_scenario(monkeypatch: pytest.MonkeyPatch, simulation: FakeSimulation) -> None:
    changes = (
        "--set",
        "learner.method=backprop",
        "--set",
        "server.rounds=50",
        "--seed",
        "7",
        "--threads",
        "2",
    )
    assert fedtp(monkeypatch, "simulate", "digits-rotating", *changes, "--out", "here").exit_code == 0
    (scenario,) = simulation.scenarios
    assert (scenario.learner.method, scenario.server.rounds) == ("backprop", 50)
    assert (scenario.run.seed, scenario.learner.seed, scenario.run.threads) == (7, 7, 2)


def test_json_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    result = fedtp(monkeypatch, "simulate", "digits-rotating", "--json", "--out", "here")
    assert json.loads(result.stdout) == SUMMARY
    assert result.stderr == ""


def test_flower_keeps_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    fedtp(monkeypatch, "simulate", "digits-rotating")
    assert {name: os.environ[name] for name in FLOWER} == {**FLOWER, "FLWR_TELEMETRY_ENABLED": "1"}


def test_an_earlier_run_is_replaced_only_by_force(monkeypatch: pytest.MonkeyPatch, simulation: FakeSimulation) -> None:
    simulate = ("simulate", "digits-rotating")
    assert fedtp(monkeypatch, *simulate).exit_code == 0
    refused = fedtp(monkeypatch, *simulate)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: runs/digits-rotating-1 holds a run already")
    assert len(simulation.scenarios) == 1  # it was refused before the work
    assert fedtp(monkeypatch, *simulate, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits-rotatng"], 'error: there is no scenario "digits-rotatng"'),
        (["none.toml"], "error: none.toml: there is no such file"),
        (
            ["digits-rotating", "--set", "server.rouns=3"],
            "error: --set server.rouns=3: server.rouns is not a known",
        ),
        (["digits-rotating", "--set", "devices=[{class='pi', count=0}]"], "devices has 0 in all"),
        (["digits-rotating", "--set", "server.rounds=2"], "must be before the end of the run at 120"),
        (["digits-rotating", "--out", "file"], "error: cannot write results to file: it is a file"),
        (
            ["digits-rotating", "--out", "file/below"],
            "error: cannot write results to file/below: Not a directory",
        ),
        (["digits-rotating", "--out", "/proc/fedtp"], "error: cannot write results to /proc/fedtp: "),
        (
            ["digits-rotating", "--out", "."],
            "error: cannot write results to .: it holds something that is not a run",
        ),
        (["digits-rotating", "--seed", "-1"], "Invalid value for '--seed'"),
        (["digits-rotating", "--threads", "0"], "Invalid value for '--threads'"),
        ([], "Missing argument"),
    ],
)
def test_bad_input(
    monkeypatch: pytest.MonkeyPatch,
    simulation: FakeSimulation,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "file").write_text("")
    result = fedtp(monkeypatch, "simulate", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert simulation.scenarios == []
    assert written(tmp_path) == ["file"]


@pytest.mark.parametrize(("error", "code"), [(DataError("no data"), 2), (KeyboardInterrupt(), 130)])
def test_nothing_is_left_of_what_failed(
    monkeypatch: pytest.MonkeyPatch,
    simulation: FakeSimulation,
    tmp_path: Path,
    error: BaseException,
    code: int,
) -> None:
    simulation.error = error
    result = fedtp(monkeypatch, "simulate", "digits-rotating")
    assert result.exit_code == code
    assert result.stdout == ""
    assert written(tmp_path) == []
