"""The README and the docs are true to the letter: what they tell to run is run, what they define exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from clients.federation.settings import DeviceSpec
from clients.sources.settings import SourceSpec
from fedtp.data.schema import Schema
from server.federation.spec import FederationSpec, KeepSpec, NetworkSpec
from simulations import Scenario, simulate

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
BIN = Path(sys.executable).parent


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shell_lines(*texts: str) -> list[str]:
    return [line for text in texts for block in blocks(text, "sh") for line in block.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}


#: Processes that work together for minutes: tests/integration/federation runs these lines.
FEDERATION = "fedtp federation "
COMMANDS = [line for line in shell_lines(README, *DOCS) if line.startswith("fedtp ")]


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith(FEDERATION)])
def test_command(line: str, tmp_path: Path) -> None:
    done = subprocess.run(
        line, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.slow
def test_readme_make_demo(tmp_path: Path) -> None:
    if not (ROOT / ".venv" / "run.stamp").exists() or shutil.which("make") is None:
        pytest.skip("the environment was not made by `make`")
    made = (ROOT / ".venv" / "run.stamp").stat().st_mtime
    if any((ROOT / name).stat().st_mtime > made for name in ("pyproject.toml", "constraints.txt")):
        pytest.skip("make would install the copy into this very environment; run `make demo` first")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in tracked.stdout.splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)  # with its time, so that make sees nothing to install again
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    done = subprocess.run(
        ["make", "demo"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/demo/report.html").is_file()


def test_every_other_command_is_known() -> None:
    others = [line for line in shell_lines(README, *DOCS) if not line.startswith("fedtp ")]
    # `make test` runs this very test; the activation is what a test's own interpreter stands for. Flower's own commands
    # are run by tests/integration/test_executors.py, on ports that are free.
    flower = ("export FLWR_", "flower-superlink --simulation ", "flwr run . ")
    assert [line for line in others if not line.startswith(flower)] == [
        "make demo",
        "make test",
        ". .venv/bin/activate",
        "make bench",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks(README, "python"))
def test_readme_python(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))])
def test_links_and_tables(document: str) -> None:
    path = ROOT / document
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), link
    for table in re.findall(r"<!-- table: (\S+) -->", text):
        results = pl.read_csv(ROOT / table)
        after = text.split(f"<!-- table: {table} -->", 1)[1]
        rows = [line for line in after.strip().split("\n\n", 1)[0].splitlines()[2:] if line.startswith("|")]
        assert len(rows) == len(results)
        for row, expected in zip(rows, results.drop("machine").iter_rows(), strict=True):
            shown = [cell.strip() for cell in row.strip("| ").split("|")]
            known = {str(value) for value in expected} | {
                f"{value:g}" for value in expected if isinstance(value, float)
            }
            assert set(shown) <= known, f"{row} is not in {table}"


def test_every_summary_key_is_defined() -> None:
    settings = ["server.rounds=2", "drift=[]", "devices=[{class='pi',count=3}]"]
    summary = simulate(Scenario.load("digits-rotating", settings)).summary
    measures = (ROOT / "docs/measures.md").read_text(encoding="utf-8")
    assert [key for key in summary if f"`{key}`" not in measures] == []


def test_every_setting_is_explained() -> None:
    scenarios = (ROOT / "docs/scenarios.md").read_text(encoding="utf-8")
    schema = Scenario.model_json_schema()
    names = {key for table in [schema, *schema["$defs"].values()] for key in table.get("properties", {})}
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", scenarios)) == []


def test_every_setting_of_a_federation_is_explained() -> None:
    text = (ROOT / "docs/federation.md").read_text(encoding="utf-8")
    tables = [FederationSpec, NetworkSpec, KeepSpec, Schema, DeviceSpec, SourceSpec]
    names = {name for table in tables for name in table.model_fields}
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", text)) == []
