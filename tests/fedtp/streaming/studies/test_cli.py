from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedtp import cli as fedtp_cli
from fedtp.streaming.studies import names


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Two commands, as Typer takes a single one for the whole program.
    commands = [
        EntryPoint("stream", "fedtp.streaming.studies.cli:stream", "fedtp.commands"),
        EntryPoint("scenarios", "simulations.cli:scenarios", "fedtp.commands"),
    ]
    monkeypatch.setattr(fedtp_cli, "entry_points", lambda group: commands)


def stream(*arguments: str) -> Any:
    return CliRunner().invoke(fedtp_cli.build(), ["stream", *arguments])


QUICK = ("sea", "--samples", "300", "--model", "no-change")


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_study(tmp_path: Path) -> None:
    result = stream(*QUICK, "--model", "nb = river.naive_bayes.GaussianNB", "--drift-at", "250")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "report: runs/stream-sea/report.html"
    for text in ("sea: 300 samples", "no-change", "nb", "accuracy", "kappa_t", "never", "CPU per sample"):
        assert text in result.stdout
    assert result.stderr == ""
    assert (tmp_path / "runs/stream-sea/report.html").is_file()


def test_the_options_reach_the_study() -> None:
    options = ("--seeds", "2", "--seed", "5", "--label-delay", "7", "--detector", "ddm", "--detection-window", "50")
    result = stream(*QUICK, *options, "--drift-at", "100", "--drift-at", "200", "--json", "--out", "here")
    summary = json.loads(result.stdout)
    assert summary["seeds"] == [5, 6]
    assert (summary["label_delay"], summary["detector"], summary["detection_window"]) == (7, "ddm", 50)
    assert (summary["samples"], summary["drifts"]) == (300, [100, 200])
    assert summary == json.loads(Path("here/summary.json").read_text())
    assert result.stderr == ""


def test_a_csv_file() -> None:
    rows = "".join(f"{n},{'red' if n % 2 else 'blue'},{n % 2}\n" for n in range(100))
    Path("data.csv").write_text("n,colour,odd\n" + rows)
    result = stream("--csv", "data.csv", "--target", "odd", "--drop", "n", "--model", "river.naive_bayes.BernoulliNB")
    assert result.exit_code == 0, result.output
    summary = json.loads(Path("runs/stream-data/summary.json").read_text())
    assert summary["title"] == "data.csv, target odd"
    assert summary["models"]["BernoulliNB"]["accuracy"]["mean"] > 0.9


def test_an_earlier_study_is_replaced_only_by_force() -> None:
    assert stream(*QUICK).exit_code == 0
    refused = stream(*QUICK)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: runs/stream-sea holds a study already")
    assert stream(*QUICK, "--force").exit_code == 0


def test_list() -> None:
    result = stream("--list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in names())
    assert {one["name"] for one in json.loads(stream("--list", "--json").stdout)} == set(names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: name one stream, or a file"),
        (["sea", "--csv", "data.csv"], "error: name one stream, or a file"),
        (["--csv", "data.csv"], "error: which column of data.csv is the label?"),
        (["--csv", "data.csv", "--target", "no"], "error: data.csv has no column 'no' (target); it has: n, odd"),
        (["--csv", "data.csv", "--target", "odd"], "error: data.csv, line 3: the target 'odd' is missing"),
        (["--csv", "none.csv", "--target", "odd"], "error: none.csv cannot be read: No such file"),
        (["sea", "--target", "x"], "error: --target, --text, --drop and --separator belong to --csv FILE"),
        (["sae"], "error: there is no stream 'sae': did you mean 'sea'"),
        (["sea", "--model", "nobody"], 'error: There is no model "nobody"'),
        (["sea", "--model", "river.tree.HoeffdingTreeClassifier(x=1)"], "unexpected keyword argument 'x'"),
        (["sea", "--drift-at", "20000"], "error: a drift at sample 20,000 is not within the stream sea"),
        (["sea", "--detector", "nobody", "--model", "no-change"], "error: There is no drift detector 'nobody'"),
        (["sea", "--out", "data.csv"], "error: cannot write results to data.csv: it is a file"),
        (["sea", "--samples", "0"], "Invalid value for '--samples'"),
        (["sea", "--label-delay", "-1"], "Invalid value for '--label-delay'"),
        (["sea", "--seeds", "0"], "Invalid value for '--seeds'"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: list[str], message: str) -> None:
    Path("data.csv").write_text("n,odd\n1,1\n2,\n")
    result = stream(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert written(tmp_path) == ["data.csv"]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (ValueError, 2)])
def test_nothing_is_left_of_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], code: int
) -> None:
    from river import dummy

    def fail(self: Any, x: Any, y: Any) -> None:
        raise error

    monkeypatch.setattr(dummy.NoChangeClassifier, "learn_one", fail)
    result = stream(*QUICK)
    assert result.exit_code == code
    assert result.stdout == ""
    assert written(tmp_path) == []


def test_the_command_starts_without_heavy_libraries() -> None:
    heavy = {"torch", "river.drift", "river.datasets", "polars", "plotly"}
    code = f"import sys, fedtp.streaming.studies.cli; print(*({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
