from collections.abc import Callable

import pytest
import torch
from torch import nn

from fedtp.blocks import Chain
from fedtp.errors import ModelError
from fedtp.models import ACTIVATIONS, CELLS, cnn, mlp, recurrent, vgg


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_layers(activation: str) -> None:
    model = mlp(5, [7, 6], 3, activation=activation)
    assert [type(layer) for layer in model] == [nn.Linear, kind := ACTIVATIONS[activation], nn.Linear, kind, nn.Linear]
    assert model(torch.zeros(2, 5)).shape == (2, 3)


def test_no_hidden_layer() -> None:
    assert [type(layer) for layer in mlp(5, [], 3)] == [nn.Linear]


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    one = mlp(5, [7], 3, seed=2**64).state_dict()
    state = torch.get_rng_state()
    two, other = mlp(5, [7], 3, seed=2**64).state_dict(), mlp(5, [7], 3, seed=1).state_dict()
    assert torch.equal(state, torch.get_rng_state()), "PyTorch's own generator is left alone"
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_weights_are_spread_as_pytorchs() -> None:
    model = mlp(100, [400], 50)
    for layer, bound in ((model[0], 0.1), (model[2], 0.05)):
        for parameter in layer.parameters():
            assert parameter.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert layer.weight.requires_grad


@pytest.mark.parametrize(
    ("features", "hidden", "classes", "activation", "message"),
    [
        (5, [7], 3, "swish", "no activation 'swish'; choose one of relu, tanh"),
        (5, [0], 3, "tanh", r"at least one unit, got widths \[5, 0, 3\]"),
        (0, [], 3, "tanh", "at least one unit"),
        (5, [], -1, "tanh", "at least one unit"),
    ],
)
def test_what_cannot_be_built(features: int, hidden: list[int], classes: int, activation: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        mlp(features, hidden, classes, activation=activation)


def test_a_convolutional_network() -> None:
    model = cnn((3, 32, 32), [32, 64], 10)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    kinds = [type(layer).__name__ for layer in model]
    conv = ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert kinds == [*conv, *conv, "Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [block.name for block in Chain(model)] == ["0", "4", "9", "12"]
    plain = cnn((1, 28, 28), [4], 10, hidden=[], kernel=5, norm=False, activation="tanh")
    assert [type(layer).__name__ for layer in plain] == ["Conv2d", "Tanh", "MaxPool2d", "Flatten", "Linear"]
    assert plain(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("depth", [11, 13, 16])
def test_vggs_have_their_layers(depth: int) -> None:
    model = vgg(10, depth=depth, width=1 / 16)  # type: ignore[arg-type]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model) == depth - 1  # one dense layer fewer
    assert len(Chain(model)) == depth - 1


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_networks(cell: str) -> None:
    model = recurrent(5, 7, 3, cell=cell, layers=2, output="all", seed=4)  # type: ignore[arg-type]
    assert model(torch.zeros(2, 6, 5)).shape == (2, 6, 3)
    same = recurrent(5, 7, 3, cell=cell, layers=2, output="all", seed=4)  # type: ignore[arg-type]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), same.parameters(), strict=True))
    assert all(p.abs().max() <= 7**-0.5 for p in model.parameters())
    assert len({p.sum().item() for p in model.parameters()}) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cnn((3, 32, 32), [8], 10, kernel=4), "is odd, got 4"),
        (lambda: cnn((3, 2, 2), [8, 8], 10), "too small"),
        (lambda: cnn((3, 8, 8), [0], 10), "at least one unit"),
        (lambda: cnn((3, 8, 8), [4], 10, activation="sin"), "no activation 'sin'"),
        (lambda: vgg(10, depth=12), "a VGG of 11, 13, 16 layers, not of 12"),  # type: ignore[arg-type]
        (lambda: vgg(10, width=0.001), "at least one unit"),
        (lambda: recurrent(5, 7, 3, cell="qrnn"), "no cell 'qrnn'; choose one of rnn, gru, lstm"),  # type: ignore[arg-type]
    ],
)
def test_networks_that_cannot_be(make: Callable[[], nn.Sequential], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()
