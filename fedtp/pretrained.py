"""Weights that a network begins with, from a file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedtp.errors import DataError, ModelError


def load_pretrained(model: nn.Module, path: str | Path) -> None:
    """Set a model's weights to those of a file.

    Parameters
    ----------
    model
        Its parameters and buffers are changed in place, all or none.
    path
        A safetensors file that holds the model's ``state_dict``: the ``model.safetensors`` of a run, say.

    Raises
    ------
    DataError
        If there is no such file, or it is none of that kind.
    ModelError
        If it holds another model, or a number that is not finite.
    """
    path = Path(path).expanduser()
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f'The pretrained weights "{path}" cannot be read as a safetensors file: {error}') from None
    expected = model.state_dict()
    if differing := sorted(expected.keys() ^ found.keys()):
        whose = "the network has not" if differing[0] in found else "the file has not"
        raise ModelError(f'The pretrained weights "{path}" are not the network\'s: {differing[0]!r} {whose}.')
    for name, tensor in expected.items():
        if _form(found[name]) != _form(tensor):
            raise ModelError(
                f'The pretrained weights "{path}" are not the network\'s: '
                f"{name!r} is {_form(found[name])} instead of {_form(tensor)}."
            )
        if not torch.isfinite(found[name]).all():
            raise ModelError(f'The pretrained weights "{path}" hold NaN or infinity in {name!r}.')
    model.load_state_dict(found)


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
