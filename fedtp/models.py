"""Builders of plain ``nn.Sequential`` networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from fedtp.errors import ModelError
from fedtp.recurrent import Output, Recurrent

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky-relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}
CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}

#: Channels of the convolutions of each stage; a stage ends in a pooling. Simonyan and Zisserman, arXiv 1409.1556.
VGG = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


def mlp(
    features: int, hidden: Sequence[int], classes: int, *, activation: str = "tanh", seed: int = 0
) -> nn.Sequential:
    """Build a multilayer perceptron, initialised from `seed` alone.

    Parameters
    ----------
    features, classes
        Numbers of inputs and outputs.
    hidden
        Width of each hidden layer; none for a linear model.
    activation
        One of `ACTIVATIONS`.
    seed
        Of the initial weights, drawn as PyTorch draws them (uniform on ``±1/√inputs``).

    Raises
    ------
    ModelError
        If there is no such activation, or a layer has no unit.

    Examples
    --------
    >>> [tuple(p.shape) for p in mlp(4, [8], 3).parameters()]
    [(8, 4), (8,), (3, 8), (3,)]
    """
    widths = _counts([features, *hidden, classes])
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, device="meta"), _activation(activation)]
    return _initialised(layers[:-1], seed)


def cnn(
    shape: tuple[int, int, int],
    channels: Sequence[int],
    classes: int,
    *,
    hidden: Sequence[int] = (256,),
    kernel: int = 3,
    activation: str = "relu",
    norm: bool = True,
    seed: int = 0,
) -> nn.Sequential:
    """Build a convolutional network, initialised from `seed` alone.

    Each convolution keeps the size of the picture, and is followed by a batch normalisation, an activation and a
    pooling that halves the picture; the dense layers by a batch normalisation and an activation.

    Parameters
    ----------
    shape
        Channels, height and width of a picture.
    channels
        Of each convolution.
    classes
        Number of outputs.
    hidden
        Width of each dense layer.
    kernel
        Height and width of the convolutions' kernels, odd.
    activation
        One of `ACTIVATIONS`.
    norm
        Whether there is batch normalisation.
    seed
        Of the initial weights, drawn as PyTorch draws them.

    Raises
    ------
    ModelError
        If there is no such activation, a layer has no unit, or the picture is too small to be halved so often.

    Examples
    --------
    >>> sum(p.numel() for p in cnn((1, 28, 28), [32], 10, hidden=[1000], kernel=5, norm=False).parameters())
    6283842
    """
    _counts([*shape, *channels, *hidden, classes])
    if kernel < 1 or kernel % 2 == 0:
        raise ModelError(f"A kernel that keeps the size of a picture is odd, got {kernel}.")
    layers: list[nn.Module] = []
    inputs, *size = shape
    for outputs in channels:
        layers.append(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, device="meta"))
        layers += [nn.BatchNorm2d(outputs)] if norm else []
        layers += [_activation(activation), nn.MaxPool2d(2)]
        inputs, size = outputs, [_halved(n) for n in size]
    layers.append(nn.Flatten())
    widths = [inputs * math.prod(size), *hidden, classes]
    for wide, outputs in pairwise(widths[:-1]):
        layers.append(nn.Linear(wide, outputs, device="meta"))
        layers += [nn.BatchNorm1d(outputs)] if norm else []
        layers.append(_activation(activation))
    return _initialised([*layers, nn.Linear(widths[-2], classes, device="meta")], seed)


def vgg(
    classes: int,
    *,
    depth: Literal[11, 13, 16] = 11,
    shape: tuple[int, int, int] = (3, 32, 32),
    width: float = 1.0,
    hidden: Sequence[int] = (512,),
    seed: int = 0,
) -> nn.Sequential:
    """Build a VGG with batch normalisation for small pictures, initialised from `seed` alone.

    Parameters
    ----------
    classes
        Number of outputs.
    depth
        Layers with weights of the published network; here the dense ones are `hidden` and the last.
    shape
        Channels, height and width of a picture, at least 32 by 32.
    width
        What the published numbers of channels are multiplied by.
    hidden
        Width of each dense layer before the last.
    seed
        Of the initial weights, drawn as PyTorch draws them.

    Raises
    ------
    ModelError
        If there is no such depth, a layer has no unit, or the picture is too small.

    References
    ----------
    Simonyan, Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*, arXiv 1409.1556.

    Examples
    --------
    >>> [tuple(p.shape[:2]) for p in vgg(10, width=1 / 64).parameters() if p.dim() == 4]
    [(1, 3), (2, 1), (4, 2), (4, 4), (8, 4), (8, 8), (8, 8), (8, 8)]
    """
    if depth not in VGG:
        raise ModelError(f"There is a VGG of {', '.join(map(str, VGG))} layers, not of {depth}.")
    layers: list[nn.Module] = []
    inputs, *size = shape
    for stage in VGG[depth]:
        for channels in stage:
            outputs = round(channels * width)
            _counts([inputs, outputs])
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, device="meta"), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
        size = [_halved(n) for n in size]
    layers.append(nn.Flatten())
    widths = _counts([inputs * math.prod(size), *hidden, classes])
    for wide, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(wide, outputs, device="meta"), nn.BatchNorm1d(outputs), nn.ReLU()]
    return _initialised([*layers, nn.Linear(widths[-2], classes, device="meta")], seed)


def recurrent(
    features: int,
    hidden: int,
    classes: int,
    *,
    cell: Literal["rnn", "gru", "lstm"] = "gru",
    layers: int = 1,
    output: Output = "last",
    seed: int = 0,
) -> nn.Sequential:
    """Build a recurrent network with a linear last layer, initialised from `seed` alone.

    Parameters
    ----------
    features, classes
        Numbers of inputs and outputs.
    hidden
        Units of each recurrent layer.
    cell
        ``"rnn"`` (tanh), ``"gru"`` or ``"lstm"``.
    layers
        How many recurrent layers.
    output
        One answer a sequence (``"last"``) or one a time step (``"all"``).
    seed
        Of the initial weights, drawn as PyTorch draws them.

    Raises
    ------
    ModelError
        If there is no such cell, or a layer has no unit.

    Examples
    --------
    >>> recurrent(40, 128, 10)(torch.zeros(2, 60, 40)).shape
    torch.Size([2, 10])
    """
    _counts([features, hidden, classes, layers])
    if cell not in CELLS:
        raise ModelError(f"There is no cell {cell!r}; choose one of {', '.join(CELLS)}.")
    network = CELLS[cell](features, hidden, layers, device="meta")
    return _initialised([Recurrent(network, output), nn.Linear(hidden, classes, device="meta")], seed)


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ModelError(f"There is no activation {name!r}; choose one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]()


def _counts(widths: list[int]) -> list[int]:
    if min(widths) < 1:
        raise ModelError(f"Every layer needs at least one unit, got widths {widths}.")
    return widths


def _halved(size: int) -> int:
    if size < 2:
        raise ModelError("The picture is too small: it cannot be halved once for every pooling.")
    return size // 2


def _initialised(layers: list[nn.Module], seed: int) -> nn.Sequential:
    """Return layers made on the "meta" device with weights drawn as PyTorch draws them, uniform on ``±1/√inputs``."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    model = nn.Sequential(*layers)
    for layer in model:
        if not isinstance(layer, nn.Linear | nn.Conv2d | Recurrent):
            continue
        fan_in = layer.network.hidden_size if isinstance(layer, Recurrent) else layer.weight[0].numel()
        for module in layer.modules():
            for name, parameter in module.named_parameters(recurse=False):
                drawn = torch.empty(parameter.shape).uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
                # Not `to_empty`, which imports half a second of what PyTorch's compiler needs.
                setattr(module, name, nn.Parameter(drawn))
    return model
