"""What hidden blocks are read through: against autograd, and as a part of the optimizer's state."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.cohort import stack
from fedtp.errors import ModelError
from fedtp.models import cnn, mlp
from fedtp.optimizer import NORMALIZED_STEP
from fedtp.projection import Projection
from fedtp.readout import START, pooled, unpooled, width


def batch(*shape: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, shape[:1], generator=generator)


def divisor(x: Tensor) -> Tensor:
    """Of the mean gradient, see `fedtp.TPSGD`."""
    v = torch.full((len(x),), 1 / len(x), dtype=x.dtype)
    for _ in range(2):
        v = x @ x.T @ (v / v.norm()) / len(x)
    return torch.maximum(1 + x.square().sum(1).mean(), (1 + v.norm()) * len(x) / 8) / len(x)


@settings(max_examples=20, deadline=None)
@given(
    cells=st.sampled_from([1, 2, None]),
    normed=st.booleans(),
    momentum=st.sampled_from([0.0, 0.9]),
    size=st.integers(2, 9),
)
def test_a_readout_follows_its_own_blocks_error(cells: int | None, normed: bool, momentum: float, size: int) -> None:
    model = cnn((1, 6, 6), [4], 3, hidden=[5], norm=normed, seed=1).double()
    twin = copy.deepcopy(model)
    optimizer = TPSGD(model, seed=7, lr=0.3, readout="learnt", grid=cells, momentum=momentum)
    (first, second) = (twin[:-3], twin[-3:-1]) if not normed else (twin[:5], twin[5:8])
    features = {None: 36, 1: 4, 2: 16}[cells]
    readouts = {}
    for name, block, count in (("0", first, features), (str(len(first)), second, 5)):
        rows = torch.from_numpy(Projection(7, classes=3).rows(name, count).copy()).double()
        readouts[name] = (block, nn.Parameter(rows * START / math.sqrt(count)))
    sgd = torch.optim.SGD([p for block, r in readouts.values() for p in [*block.parameters(), r]], 0.3, momentum)
    for step in range(3):
        x, y = batch(size, 1, 6, 6, seed=step)
        optimizer.step(x, y)
        a = x
        for block, readout in readouts.values():
            entered, a = a.flatten(1), block(a.detach())
            maps = block[:-1](x) if block is first and isinstance(block[-1], nn.Flatten) else a
            if maps.dim() == 4:
                maps = nn.functional.adaptive_avg_pool2d(maps, cells) if cells else maps
            seen = maps.flatten(1)
            loss = nn.functional.cross_entropy(seen @ readout.T, y)
            loss.backward()
            if block is first:
                entered = entered * math.sqrt(9 / 36)
            scale = torch.tensor(1 / NORMALIZED_STEP) if normed else divisor(entered)
            for parameter in block.parameters():
                parameter.grad /= scale  # type: ignore[operator]
            readout.grad /= divisor(seen.detach())  # type: ignore[operator]
        sgd.step()
        sgd.zero_grad()
    found = optimizer.learnt_readouts()
    for name, (block, readout) in readouts.items():
        torch.testing.assert_close(found[name], readout.detach())
        for key, value in block.named_parameters():  # a part of a Sequential keeps its layers' names
            torch.testing.assert_close(value.detach(), model.get_parameter(key).detach())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_is_saved_and_loaded_with_the_optimizer(momentum: float) -> None:
    model = mlp(4, [6, 5], 3, seed=1).double()
    optimizer = TPSGD(model, seed=7, readout="learnt", momentum=momentum)
    x, y = batch(8, 4)
    optimizer.step(x, y)
    twin = copy.deepcopy(model)
    other = TPSGD(twin, seed=7, readout="learnt", momentum=momentum)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(2):
        optimizer.step(x, y)
        other.step(x, y)
    torch.testing.assert_close(dict(twin.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(other.learnt_readouts(), optimizer.learnt_readouts(), rtol=0, atol=0)
    # Loaded into an optimizer that has learnt already, it takes the place of what that learnt.
    optimizer.step(x, y)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    twin.load_state_dict(model.state_dict())
    optimizer.step(x, y)
    other.step(x, y)
    torch.testing.assert_close(other.learnt_readouts(), optimizer.learnt_readouts(), rtol=0, atol=0)


def test_each_device_of_a_stack_has_its_own() -> None:
    model = mlp(4, [6], 3, seed=1).double()
    many = TPSGD(stack(model, 2), seed=7, readout="learnt", momentum=0.9)
    alone = [TPSGD(copy.deepcopy(model), seed=7, readout="learnt", momentum=0.9) for _ in range(2)]
    batches = [batch(5, 4, seed=device) for device in range(2)]
    for _ in range(3):
        many.step(torch.stack([x for x, _ in batches]), torch.stack([y for _, y in batches]))
        for optimizer, (x, y) in zip(alone, batches, strict=True):
            optimizer.step(x, y)
    found = many.learnt_readouts()["0"]
    assert not torch.equal(*found)
    torch.testing.assert_close(found, torch.stack([optimizer.learnt_readouts()["0"] for optimizer in alone]))


def test_they_can_be_set_before_the_first_step() -> None:
    optimizer = TPSGD(mlp(4, [6], 3), seed=7, readout="learnt", lr=0.0)
    mine = torch.arange(18.0).view(3, 6)
    optimizer.learnt_readouts()["0"].copy_(mine)
    x, y = batch(2, 4)
    optimizer.step(x.float(), y)
    assert torch.equal(optimizer.learnt_readouts()["0"], mine)
    assert TPSGD(mlp(4, [6], 3), seed=7).learnt_readouts() == {}


def test_the_width_of_maps_is_known_from_an_input_on() -> None:
    optimizer = TPSGD(cnn((1, 6, 6), [4], 3, hidden=[5]), seed=7, readout="learnt")
    with pytest.raises(ModelError, match="widths of the model's blocks depend on its input"):
        optimizer.learnt_readouts()
    x, y = batch(2, 1, 6, 6)
    optimizer.step(x.float(), y)
    assert {name: tuple(matrix.shape) for name, matrix in optimizer.learnt_readouts().items()} == {
        "0": (3, 16),
        "5": (3, 5),
    }


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"readout": "learned"}, "There is no readout 'learned'; choose fixed or learnt"),
        ({"readout": "learnt", "space": "target", "loss": "squared"}, "In target space nothing is read out"),
        ({"grid": 0}, "grid must be at least one cell per axis"),
    ],
)
def test_what_makes_no_sense_is_refused(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TPSGD(mlp(4, [6], 3), seed=7, **chosen)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 4, 5), (2, 3, 1, 4), (2, 3, 1, 1)])
@pytest.mark.parametrize("cells", [1, 2, None])
def test_pooling_and_its_way_back(shape: tuple[int, ...], cells: int | None) -> None:
    a = batch(*shape)[0].requires_grad_()
    features = pooled(a, 1, cells)
    assert features.shape == (2, width(a, 1, cells))
    error = batch(*features.shape, seed=1)[0]
    (expected,) = torch.autograd.grad(features, a, error)
    torch.testing.assert_close(unpooled(error, a.detach(), 1, cells), expected)
