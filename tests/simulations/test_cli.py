import json
import os
import shutil
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
from simulations.checkpoint import Checkpoint
from simulations.checkpoints import Checkpoints
from simulations.cli import FLOWER
from simulations.results import CHECKPOINT, RUNS
from simulations.run_folder import scenario_of

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

    scenario: Scenario
    summary: dict[str, Any]

    def save(self, folder: Path, force: bool = False) -> Path:
        with RUNS.completed(folder) if RUNS.unfinished(folder) else RUNS.fresh_folder(folder, force) as fresh:
            (fresh / "scenario.toml").write_text(self.scenario.to_toml())
            summary = {**self.summary, "scenario": self.scenario.name, "seed": self.scenario.run.seed}
            (fresh / "summary.json").write_text(json.dumps(summary))
        return folder / "report.html"


@dataclass
class FakeSimulation:
    """Stands in for `simulations.simulation.simulate`, and remembers what it was asked for."""

    scenarios: list[Scenario] = field(default_factory=list)
    error: BaseException | None = None
    #: The rounds from which it was told to go on.
    resumed: list[int] = field(default_factory=list)

    def simulate(
        self, scenario: Scenario, on_round: Callable[[Any], None] | None = None, *, checkpoints: Checkpoints
    ) -> FakeRun:
        self.scenarios.append(scenario)
        if checkpoints.latest is not None:
            self.resumed.append(checkpoints.latest.round)
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
        return FakeRun(scenario, SUMMARY)


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
    assert json.loads(result.stdout) == {**SUMMARY, "scenario": "digits-rotating", "seed": 1}
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


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """The folder of a run that was stopped after 7 rounds."""
    scenario = Scenario.load("sea-sudden", ["server.rounds=50"], 5)
    Checkpoints(tmp_path / "half").save(lambda: Checkpoint(scenario, 7, {}))
    return Path("half")


def test_a_run_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, simulation: FakeSimulation, unfinished: Path) -> None:
    result = fedtp(monkeypatch, "simulate", "--resume", str(unfinished))
    assert result.exit_code == 0, result.output
    assert simulation.resumed == [7]
    assert simulation.scenarios == [Scenario.load("sea-sudden", ["server.rounds=50"], 5)]
    assert written(unfinished) == ["scenario.toml", "summary.json"]
    assert "SEA, two sudden changes" in result.stdout
    assert result.stdout.splitlines()[-1] == "report: half/report.html"


def test_a_finished_run_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, simulation: FakeSimulation, unfinished: Path
) -> None:
    fedtp(monkeypatch, "simulate", "--resume", str(unfinished))
    (unfinished / CHECKPOINT).write_text("left by a process that was killed just before its end")
    again = fedtp(monkeypatch, "simulate", "--resume", str(unfinished))
    assert (again.exit_code, again.stdout) == (0, "half is finished: there is nothing to go on with\n")
    assert len(simulation.scenarios) == 1
    assert written(unfinished) == ["scenario.toml", "summary.json"]
    as_json = fedtp(monkeypatch, "simulate", "--resume", str(unfinished), "--json")
    assert json.loads(as_json.stdout) == json.loads((unfinished / "summary.json").read_text())
    assert as_json.stderr == again.stdout


def test_an_unfinished_run_is_replaced_only_by_force(
    monkeypatch: pytest.MonkeyPatch, simulation: FakeSimulation, unfinished: Path
) -> None:
    refused = fedtp(monkeypatch, "simulate", "sea-sudden", "--out", str(unfinished))
    assert refused.exit_code == 2
    expected = "half holds a run that is not finished: go on with it with --resume half, or replace it with --force"
    assert refused.stderr == f"error: {expected}\n"
    assert simulation.scenarios == []
    assert fedtp(monkeypatch, "simulate", "sea-sudden", "--out", str(unfinished), "--force").exit_code == 0
    assert simulation.resumed == []


@pytest.mark.parametrize("command", [["report", "half"], ["compare", "half", "other"]])
def test_an_unfinished_run_is_nothing_to_look_at_yet(
    monkeypatch: pytest.MonkeyPatch, unfinished: Path, command: list[str]
) -> None:
    result = fedtp(monkeypatch, *command)
    assert result.exit_code == 2
    assert "half: this run is not finished: go on with it with `fedtp simulate --resume half`" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "spoil", "message"),
    [
        (["sea-sudden"], None, "--resume goes on with a run as it was begun: leave out NAME_OR_FILE"),
        (["--seed", "0", "--force"], None, "as it was begun: leave out --seed, --force"),
        (["--set", "server.rounds=3", "--out", "x"], None, "leave out --out, --set"),
        (["--processes", "2", "--threads", "2"], None, "leave out --threads, --processes"),
        ([], lambda folder: shutil.rmtree(folder), "half: there is no such folder"),
        ([], lambda folder: (folder / "scenario.toml").unlink(), "half: this folder holds no run"),
        ([], lambda folder: (folder / "scenario.toml").write_text("seed"), "scenario.toml is damaged: not valid TOML"),
        ([], lambda folder: spoil_scenario(folder), "belongs to a run of other settings than half/scenario.toml"),
        ([], lambda folder: cut(folder, 100), "checkpoint.safetensors cannot be read as a safetensors file"),
        ([], lambda folder: cut(folder, 0), "checkpoint.safetensors cannot be read as a safetensors file"),
        ([], lambda folder: from_version(folder, "0.0.9"), "was written by fedtp 0.0.9, and only that version is sure"),
    ],
)
def test_what_cannot_be_gone_on_with(
    monkeypatch: pytest.MonkeyPatch,
    simulation: FakeSimulation,
    unfinished: Path,
    arguments: list[str],
    spoil: Callable[[Path], object] | None,
    message: str,
) -> None:
    if spoil is not None:
        spoil(unfinished)
    result = fedtp(monkeypatch, "simulate", "--resume", str(unfinished), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert simulation.scenarios == []


def spoil_scenario(folder: Path) -> None:
    text = (folder / "scenario.toml").read_text()
    (folder / "scenario.toml").write_text(text.replace("rounds = 50", "rounds = 60"))


def cut(folder: Path, size: int) -> None:
    with (folder / CHECKPOINT).open("r+b") as file:
        file.truncate(size)


def from_version(folder: Path, version: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedtp.archive.version", lambda _: version)
        Checkpoint(scenario_of(folder), 7, {}).save(folder)
