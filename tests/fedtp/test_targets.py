from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.errors import ModelError
from fedtp.losses import as_loss
from fedtp.targets import encode


def target(y: Any, loss: str, outputs: int = 3, axes: int = 1) -> Tensor:
    y = y if isinstance(y, Tensor) else torch.tensor(y)
    return encode(y, outputs, axes=axes, dtype=torch.float64, loss=as_loss(loss, "label"))


@pytest.mark.parametrize("loss", ["cross_entropy", "squared", "hinge", "binary_cross_entropy"])
def test_classes_become_ones(loss: str) -> None:
    assert target([2, 0], loss).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert target(torch.tensor([2], dtype=torch.uint8), loss).tolist() == [[0, 0, 1]]
    assert target([[1], [0]], loss, axes=2).tolist() == [[[0, 1, 0]], [[1, 0, 0]]]


@pytest.mark.parametrize("y", [[[1, 0, 1]], [[True, False, True]], [[1.0, 0.0, 1.0]]])
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "hinge"])
def test_several_labels_may_hold(y: Any, loss: str) -> None:
    assert target(y, loss).tolist() == [[1, 0, 1]]


def test_numbers_are_taken_as_they_are() -> None:
    assert target([[0.5, -7.0, 2.0]], "huber").tolist() == [[0.5, -7.0, 2.0]]
    assert target([0.5, -7.0], "squared", outputs=1).tolist() == [[0.5], [-7.0]]
    assert target([[0.25, 0.75, 0.0]], "cross_entropy").tolist() == [[0.25, 0.75, 0.0]]


@pytest.mark.parametrize(
    ("y", "loss", "outputs", "message"),
    [
        ([0, 3], "cross_entropy", 3, "A label is 3, but the model has 3 outputs: labels are 0 to 2"),
        ([-1], "squared", 3, "A label is -1"),
        ([True], "cross_entropy", 3, "class indices of an integer type, got torch.bool"),
        ([0.5], "cross_entropy", 3, "numbers to predict need a model with one output"),
        ([0.5], "squared", 3, "numbers to predict need a model with one output"),
        ([[0.5, 0.5]], "squared", 3, r"3 numbers, one per output of the model; got the shape \(1, 2\)"),
        ([[0.5, float("nan"), 0.0]], "squared", 3, "NaN or infinity"),
        ([[0.5, float("nan"), 0.0]], "binary_cross_entropy", 3, "labels from 0 to 1"),
        ([[2, 0, 0]], "binary_cross_entropy", 3, "choose loss='squared' to predict other numbers"),
        ([[1, 1, 0]], "cross_entropy", 3, "choose loss='binary_cross_entropy'"),
    ],
)
def test_labels_that_cannot_be_compared_with(y: Any, loss: str, outputs: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        target(y, loss, outputs)


def test_a_network_learns_numbers_and_several_labels() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
    y = x[:, 0] * 2 - x[:, 1]
    optimizer = TPSGD(model, seed=7, loss="huber", lr=0.5)
    losses = [float(optimizer.step(x, y) or 0) for _ in range(200)]
    assert losses[-1] < 0.05 * losses[0]
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
    several = torch.stack([x[:, 0] > 0, x[:, 1] > x[:, 2]], 1)
    optimizer = TPSGD(model, seed=7, loss="binary_cross_entropy")
    for _ in range(200):
        optimizer.step(x, several)
    assert ((model(x) > 0) == several).float().mean() > 0.95


@pytest.mark.parametrize("loss", ["cosine", nn.functional.mse_loss, "absolute"])
@pytest.mark.parametrize("space", ["label", "target"])
def test_every_distance_trains_in_either_space(loss: Any, space: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 4)
    y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
    optimizer = TPSGD(model, seed=7, loss=loss, space=space, lr=0.2)
    for _ in range(200):
        optimizer.step(x, y)
    assert (model(x).argmax(1) == y).float().mean() > 0.8
