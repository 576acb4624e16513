"""The command ``fedtp export``: a model that a federation exported, as ONNX for whatever runs on a device."""

from __future__ import annotations

import json
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtp.errors import FedtpError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedtp.model_file import SavedModel

_INSTALL = 'an ONNX file needs onnx, onnxscript and onnxruntime: pip install "fedtp[onnx]"'
#: How far the answers of the two may be apart: both compute in float32, in another order.
_RTOL, _ATOL = 1e-3, 1e-5
_ROWS = (1, 7)


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", show_default=False, help="A federation's model.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="By default MODEL with the ending .onnx.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a model as ONNX: rows of numbers in, how likely each class is out.

    The input `rows` holds the features as they are, in the order of `features` in the file's metadata; the output
    `probabilities` has the order of `classes` there. The file is checked against PyTorch before it is kept.
    """
    from fedtp.model_file import load_model

    path = out or model.with_suffix(".onnx")
    if path.exists() and not force:
        raise FedtpError(f"{path} is there already: choose another --out, or give --force")
    write_onnx(load_model(model), path)
    typer.echo(f"{path}: the same answers as PyTorch's")


def write_onnx(saved: SavedModel, path: Path) -> None:
    """Write a model as ONNX; what the file held is there until the new one has been found right.

    Raises
    ------
    FedtpError
        If the extra is not installed, the network has parts that ONNX lacks, the file cannot be written, or it gives
        other answers than PyTorch.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
        import torch
    except ImportError:
        raise FedtpError(_INSTALL) from None

    schema = saved.schema
    rows = torch.zeros(2, len(schema.features))
    try:
        with _quiet():
            program = torch.onnx.export(
                _whole(saved),
                (rows,),
                input_names=["rows"],
                output_names=["probabilities"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter stumbles over
        said = " ".join(str(error).split())[:300]
        raise FedtpError(f"this network cannot be written as ONNX: {type(error).__name__}: {said}") from None
    assert program is not None
    made = program.model_proto
    told = {
        "features": json.dumps(schema.features),
        "classes": json.dumps(schema.classes),
        "round": str(saved.round),
        "digest": saved.learner.digest,
        "seed": str(saved.learner.spec.seed),
    }
    onnx.helper.set_model_props(made, told)
    new = path.with_name(path.name + ".new")
    try:
        new.write_bytes(made.SerializeToString())
        _check(saved, onnxruntime.InferenceSession(new, providers=["CPUExecutionProvider"]))
        new.replace(path)
    except OSError as error:
        raise FedtpError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        new.unlink(missing_ok=True)


def _whole(saved: SavedModel) -> Any:
    """Return a module from rows as they are to probabilities."""
    import torch

    from fedtp.blocks import Chain

    schema, learner = saved.schema, saved.learner

    class Whole(torch.nn.Module):
        offset: torch.Tensor
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            width = len(schema.features)
            self.network = saved.network.eval()
            self.register_buffer("offset", torch.tensor(schema.offset or [0.0] * width, dtype=torch.float64))
            self.register_buffer("scale", torch.tensor(schema.scale or [1.0] * width, dtype=torch.float64))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            # As `Schema.parse` does: large values that lie close together lose nothing.
            x = ((rows.double() - self.offset) / self.scale).float()
            return Chain(self.network).forward(x.unflatten(-1, learner.input_shape)).softmax(-1)

    return Whole().eval()


def _check(saved: SavedModel, session: Any) -> None:
    """Compare answers on random rows.

    Raises
    ------
    FedtpError
        If they differ.
    """
    import numpy as np

    schema, rng = saved.schema, np.random.default_rng(0)
    offset, scale = np.array(schema.offset or 0.0), np.array(schema.scale or 1.0)
    for count in _ROWS:
        rows = (offset + scale * rng.normal(size=(count, len(schema.features)))).astype(np.float32)
        x = ((rows.astype(np.float64) - offset) / scale).astype(np.float32)
        (found,) = session.run(None, {"rows": rows})
        expected = saved.probabilities(x)
        if found.shape != expected.shape or not np.allclose(found, expected, _RTOL, _ATOL):
            raise FedtpError("the ONNX file gives other answers than PyTorch, and was not kept: please report it")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling of its steps."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
