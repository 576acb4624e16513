import pytest
import torch
from torch import nn

from fedtp.errors import ModelError
from fedtp.models import ACTIVATIONS, mlp


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
