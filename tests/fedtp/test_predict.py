from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from fedtp import cli
from fedtp.data.schema import Schema
from fedtp.errors import DataError
from fedtp.learner import learner_for
from fedtp.learner_spec import LearnerSpec
from fedtp.model_file import load_model, save_model

SCHEMA = Schema(features=("a", "b"), label="y", classes=("no", "yes"), offset=(1.0, 0.0), scale=(2.0, 1.0))
LEARNER = learner_for(LearnerSpec(hidden=(5,), seed=3), SCHEMA.sample_shape, 2)
ROWS = [{"id": str(i), "a": str(0.3 * i), "b": str(1 - 0.1 * i), "y": "yes" if i % 2 else "no"} for i in range(9)]
CSV = "\n".join([",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS), ""])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(size=size).astype(np.float32) for name, size in LEARNER.sizes.items()}
    save_model(tmp_path / "model.safetensors", LEARNER, weights, {"schema": SCHEMA.model_dump_json(), "round": "7"})
    return tmp_path / "model.safetensors"


def fedtp(*arguments: str | Path, code: int = 0):
    result = CliRunner().invoke(cli.build(), ["predict", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def expected(model: Path) -> list[str]:
    saved = load_model(model)
    x = np.array([saved.schema.parse(row)[0] for row in ROWS])
    return [SCHEMA.classes[index] for index in saved.probabilities(x).argmax(1)]


def test_a_model_says_how_likely_classes_are(model: Path) -> None:
    saved = load_model(model)
    found = saved.probabilities(np.zeros((3, 2), np.float32))
    assert (saved.round, found.shape) == (7, (3, 2))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_of_a_file_are_answered(model: Path, tmp_path: Path, form: str) -> None:
    rows = tmp_path / f"rows.{form}"
    rows.write_text(CSV if form == "csv" else "\n".join(map(json.dumps, ROWS)))
    result = fedtp(model, rows, "--keep", "id")
    found = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["prediction"] for row in found] == expected(model)
    assert [row["id"] for row in found] == [row["id"] for row in ROWS]
    assert all(0.5 <= float(row["probability"]) <= 1 for row in found)
    right = sum(row["y"] == one for row, one in zip(ROWS, expected(model), strict=True))
    assert f"{right} of 9 rows with labels are right: {right / 9:.4f}" in result.stderr


def test_json_goes_to_a_file(model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(CSV)
    fedtp(model, tmp_path / "rows.csv", tmp_path / "rows.csv", "--json", "--out", tmp_path / "out.jsonl")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in found] == 2 * expected(model)


def test_bad_rows_are_told_of_and_others_answered(model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"a,b\n1,2\nx,2\n1\n\xff,1\n3,4\n")
    result = fedtp(model, tmp_path / "rows.csv", code=1)
    assert len(result.stdout.splitlines()) == 3
    for text in ('line 3: "a" is "x"', "line 4: the line has 1 cells", "line 5: 'utf-8'", "3 rows could not be used"):
        assert text in result.stderr
    result = fedtp(model, tmp_path / "rows.csv", "--strict", code=2)
    assert "line 3" in result.stderr


def test_who_waits_for_an_answer_gets_it_at_once(model: Path) -> None:
    command = [sys.executable, "-c", "from fedtp.cli import main; main()", "predict", str(model), "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for row, answer in zip(ROWS, expected(model), strict=True):
            process.stdin.write(json.dumps(row) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["prediction"] == answer
        process.stdin.close()
        assert process.wait(10) == 0


def test_what_is_no_model_is_said(model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    save_model(bare, LEARNER, LEARNER.initial_weights())
    assert "does not say which columns its rows have" in fedtp(bare, code=2).stderr
    assert "cannot be read as a model" in fedtp(tmp_path / "none", code=2).stderr
    assert "cannot be opened" in fedtp(model, tmp_path / "none.csv", code=2).stderr
    with safe_open(model, "pt") as file:
        told, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, change in {
        "schema": {"schema": "{"},
        "classes": {"schema": SCHEMA.model_copy(update={"classes": ("a", "b", "c")}).model_dump_json()},
        "seed": {"learner": LearnerSpec(hidden=(5,), seed=4).model_dump_json()},
        "network": {"learner": LearnerSpec(hidden=(6,), seed=3).model_dump_json()},
    }.items():
        save_file(tensors, tmp_path / name, {**told, **change})
        with pytest.raises(DataError, match="is damaged"):
            load_model(tmp_path / name)
    tensors["0.bias"][0] = float("nan")
    save_file(tensors, tmp_path / "nan", told)
    with pytest.raises(DataError, match="not finite"):
        load_model(tmp_path / "nan")
