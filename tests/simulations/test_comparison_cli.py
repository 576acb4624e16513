"""`fedtp compare` and `fedtp report`, and what is typed wrongly into them and into `fedtp sweep`."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedtp import cli as fedtp_cli
from simulations import Run, simulate
from simulations.comparison import differing
from simulations.comparison_cli import members_of

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def runs(small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four finished runs: two methods, two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for lr in ("0.1", "1"):
        for seed in (1, 2):
            run = simulate(small("server.rounds=2", f"learner.lr={lr}", f"run.seed={seed}"))
            run.save(folder / f"lr-{lr}" / f"seed-{seed}")
    return folder


@pytest.fixture
def fedtp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run the command as pyproject.toml registers it, in an empty folder with a file and a folder."""
    group = PYPROJECT["project"]["entry-points"][fedtp_cli.GROUP]
    commands = [EntryPoint(name, value, fedtp_cli.GROUP) for name, value in group.items()]
    monkeypatch.setattr(fedtp_cli, "entry_points", lambda group: commands)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    return lambda *arguments: CliRunner().invoke(fedtp_cli.build(), [str(argument) for argument in arguments])


def test_runs_side_by_side(fedtp: Callable[..., Result], runs: Path, tmp_path: Path) -> None:
    result = fedtp("compare", runs / "lr-0.1/seed-1", runs / "lr-1/seed-1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "report: runs/comparison.html"
    for text in ("lr-0.1/seed-1", "lr-1/seed-1", "against lr-0.1/seed-1", "Small"):
        assert text in result.stdout
    page = (tmp_path / "runs/comparison.html").read_text()
    assert "What differs" in page
    assert "learner.lr" in page
    assert fedtp("compare", runs / "lr-0.1/seed-1", runs / "lr-1/seed-1").exit_code == 0  # a report is replaced


def test_figures_as_json(fedtp: Callable[..., Result], runs: Path) -> None:
    result = fedtp("compare", runs / "lr-0.1/seed-1", runs / "lr-1/seed-1", "--json", "--out", "here.html")
    figures = json.loads(result.stdout)
    summaries = [Run.load(runs / name / "seed-1").summary for name in ("lr-0.1", "lr-1")]
    first, second = (summary["prequential_accuracy"] for summary in summaries)
    assert list(figures) == ["lr-0.1/seed-1", "lr-1/seed-1"]
    assert figures["lr-0.1/seed-1"]["prequential_accuracy"] == {"mean": first, "margin": None, "runs": 1}
    difference = figures["lr-1/seed-1"]["prequential_accuracy"]["difference"]
    assert difference["mean"] == pytest.approx(second - first)


def test_settings_that_differ(runs: Path) -> None:
    names = [runs / name for name in ("lr-0.1/seed-1", "lr-1/seed-2")]
    assert differing(members_of(names)) == [["run.seed", "1", "2"], ["learner.lr", "0.1", "1.0"]]
    assert differing(members_of([runs / "lr-1/seed-1", runs / "lr-1/seed-2"])) == [["run.seed", "1", "2"]]


def test_a_report_is_written_anew(fedtp: Callable[..., Result], runs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(runs / "lr-1/seed-1", tmp_path / "run")
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert fedtp("report", "run").stdout == "report: run/report.html\n"
    assert (folder / "report.html").read_text() == before


SWEEP = ("sweep", "digits-rotating")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sweep",), "Missing argument"),
        (("sweep", "digits-rotatng"), 'there is no scenario "digits-rotatng"'),
        ((*SWEEP, "--vary", "learner.lr"), "--vary learner.lr: write key=a,b,c"),
        ((*SWEEP, "--vary", "learner.lr=1,,2"), "a value is missing"),
        ((*SWEEP, "--vary", "learner.hidden=[64,32"), "a ] is missing"),
        ((*SWEEP, "--vary", "learner.rate=1,2"), "--vary learner.rate=1: learner.rate is not a known key"),
        ((*SWEEP, "--vary", "learner.lr=1,-2"), "--vary learner.lr=-2: learner.lr is -2, but must be"),
        ((*SWEEP, "--vary", "run.seed=1,2"), "--seeds says how many seeds there are"),
        ((*SWEEP, "--set", "learner.lr=x"), "--set learner.lr=x: learner.lr is"),
        ((*SWEEP, "--seeds", "0"), "Invalid value for '--seeds'"),
        ((*SWEEP, "--jobs", "none"), "Invalid value for '--jobs'"),
        ((*SWEEP, "--out", "file"), "cannot write results to file: it is a file"),
        ((*SWEEP, "--out", "file/below"), "cannot write results to file/below"),
        ((*SWEEP, "--out", "."), "it holds something that is not a sweep"),
        (("compare",), "Missing argument"),
        (("compare", "RUN"), "there is one run only"),
        (("compare", "RUN", "RUN"), "is named twice: leave one out"),
        (("compare", "RUN", "nowhere"), "nowhere: there is no such folder"),
        (("compare", "RUN", "file"), "file: this is a file, and a run is a folder"),
        (("compare", "RUN", "empty"), "this folder holds no run, for there is no scenario.toml in it"),
        (("compare", "RUN", "OTHER", "--out", "file"), "it holds something that is not a report"),
        (("compare", "RUN", "OTHER", "--out", "empty"), "cannot write empty: Is a directory"),
        (("compare", "RUN", "OTHER", "--out", "file/below"), "cannot write file/below: Not a directory"),
        (("report",), "Missing argument"),
        (("report", "nowhere"), "nowhere: there is no such folder"),
        (("report", "empty"), "this folder holds no run"),
    ],
)
def test_what_is_typed_wrongly(
    fedtp: Callable[..., Result], runs: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    known = {"RUN": runs / "lr-1/seed-1", "OTHER": runs / "lr-0.1/seed-1"}
    result = fedtp(*(known.get(argument, argument) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    if result.stderr.startswith("error: "):
        assert len(result.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
