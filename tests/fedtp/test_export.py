"""Models as ONNX: the same answers, for every kind of network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedtp import cli, export
from fedtp.data.schema import Schema
from fedtp.errors import FedtpError
from fedtp.learner import learner_for
from fedtp.learner_spec import LearnerSpec
from fedtp.model_file import load_model, save_model

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

NETWORKS = {
    "mlp": (LearnerSpec(hidden=(5, 4)), ()),
    "conv": (LearnerSpec(network="cnn", channels=(4, 6), hidden=(8,)), (8, 8)),
    **{cell: (LearnerSpec(network="recurrent", cell=cell, hidden=(6,)), (8, 8)) for cell in ("rnn", "gru", "lstm")},
}


def saved(folder: Path, name: str = "mlp") -> Path:
    spec, shape = NETWORKS[name]
    width = int(np.prod(shape)) if shape else 3
    features = tuple(f"f{index}" for index in range(width))
    # Like times in seconds since 1970: float32 tells them apart only as they are, and as they are scaled in double.
    offset, scale = tuple(1000.0 + index for index in range(width)), (0.5,) * width
    schema = Schema(features=features, classes=("no", "yes", "maybe"), shape=shape, offset=offset, scale=scale)
    learner = learner_for(spec, schema.sample_shape, 3)
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(0, 0.5, size).astype(np.float32) for name, size in learner.sizes.items()}
    path = folder / "model.safetensors"
    save_model(path, learner, weights, {"schema": schema.model_dump_json(), "round": "7"})
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_the_answers_are_the_same(tmp_path: Path, name: str) -> None:
    path, out = saved(tmp_path, name), tmp_path / "model.onnx"
    model = load_model(path)
    export.write_onnx(model, out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == ["no", "yes", "maybe"]
    assert json.loads(told["features"]) == list(model.schema.features)
    assert told["round"] == "7"
    rng = np.random.default_rng(5)
    for count in (1, 2, 33):
        rows = (1000 + rng.normal(size=(count, len(model.schema.features)))).astype(np.float32)
        (found,) = session.run(["probabilities"], {"rows": rows})
        named = [dict(zip(model.schema.features, row, strict=True)) for row in rows.tolist()]
        x = np.array([model.schema.parse(row)[0] for row in named])
        np.testing.assert_allclose(found, model.probabilities(x), rtol=1e-3, atol=1e-5)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.safetensors"]


def test_the_command(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for arguments, code in (([], 0), ([], 2), (["--force"], 0)):
        result = CliRunner().invoke(cli.build(), ["export", str(path), *arguments])
        assert result.exit_code == code, result.output
    assert (tmp_path / "model.onnx").is_file()


def test_a_file_with_other_answers_is_not_kept(tmp_path: Path, monkeypatch) -> None:
    model, out = load_model(saved(tmp_path)), tmp_path / "model.onnx"
    out.write_bytes(b"before")
    monkeypatch.setattr(type(model), "probabilities", lambda self, x: np.full((len(x), 3), 1 / 3, np.float32))
    with pytest.raises(FedtpError, match="other answers than PyTorch"):
        export.write_onnx(model, out)
    assert out.read_bytes() == b"before"
    assert not (tmp_path / "model.onnx.new").exists()


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch) -> None:
    model = load_model(saved(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(FedtpError, match=r"fedtp\[onnx\]"):
        export.write_onnx(model, tmp_path / "model.onnx")
    monkeypatch.undo()
    with pytest.raises(FedtpError, match="no-such"):
        export.write_onnx(model, tmp_path / "no-such" / "model.onnx")
