"""A single sample through NumPy: the same steps, to the float's tolerance, as through PyTorch."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.losses import CrossEntropy
from fedtp.models import mlp


def samples(count: int, features: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, 1, features, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(classes, (count, 1), generator=generator)


def by_pytorch(optimizer: TPSGD) -> TPSGD:
    """A hook makes it take the longer way."""
    optimizer.register_step_pre_hook(lambda *_: None)
    return optimizer


@settings(max_examples=60, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 6), max_size=3),
    activation=st.sampled_from(["tanh", "relu", "sigmoid"]),
    space=st.sampled_from(["label", "target"]),
    classifies=st.booleans(),
    momentum=st.sampled_from([0.0, 0.9]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    normalize=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_both_ways_learn_alike(
    hidden: list[int], activation: str, classifies: bool, dtype: torch.dtype, **chosen: Any
) -> None:
    loss = "cross_entropy" if classifies and chosen["space"] == "label" else "squared"
    model = mlp(4, hidden, 3, activation=activation, seed=1).to(dtype)
    twin = copy.deepcopy(model)
    short = TPSGD(model, seed=7, loss=loss, lr=0.3, **chosen)
    long = by_pytorch(TPSGD(twin, seed=7, loss=loss, lr=0.3, **chosen))
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    for x, y in zip(*samples(5, 4, 3, dtype), strict=True):
        torch.testing.assert_close(short.step(x, y), long.step(x, y), **tolerance)
        torch.testing.assert_close(short.losses, long.losses, **tolerance)
        torch.testing.assert_close(short.output, long.output, **tolerance)
        assert short._single.layers, "the short way was taken"
        assert not long._single.layers
    torch.testing.assert_close(dict(model.state_dict()), dict(twin.state_dict()), **tolerance)


def test_the_two_ways_may_take_turns() -> None:
    model = mlp(4, [5], 3, seed=1)
    optimizer = TPSGD(model, seed=7, momentum=0.9)
    twin = copy.deepcopy(model)
    long = by_pytorch(TPSGD(twin, seed=7, momentum=0.9))
    x, y = samples(4, 4, 3, torch.float32)
    for step in (lambda o: o.step(x[0], y[0]), lambda o: o.step(x[1:, 0], y[1:, 0]), lambda o: o.step(x[1], y[1])):
        step(optimizer)
        step(long)
    torch.testing.assert_close(dict(model.state_dict()), dict(twin.state_dict()))


def test_views_are_taken_anew_when_the_model_moves() -> None:
    model = mlp(4, [5], 3, seed=1)
    optimizer = TPSGD(model, seed=7)
    (x, *_), (y, *_) = samples(4, 4, 3, torch.float32)
    optimizer.step(x, y)
    model.double()
    before = copy.deepcopy(model.state_dict())
    optimizer.step(x.double(), y)
    assert model[0].weight.dtype == torch.float64
    assert not torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[2].weight, before["2.weight"])
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    optimizer.step(x.double(), y)
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[2].weight, before["2.weight"])
    twin, other = pickle.loads(pickle.dumps((model, optimizer)))
    before = copy.deepcopy(model.state_dict())
    other.step(x.double(), y)
    assert torch.equal(model[2].weight, before["2.weight"])
    assert not torch.equal(twin[2].weight, before["2.weight"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: (nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3)), {}),
        lambda: (nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)), {}),
        lambda: (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), {}),
        lambda: (mlp(4, [5], 3), {"loss": CrossEntropy(label_smoothing=0.1)}),
        lambda: (mlp(4, [5], 3), {"loss": "absolute"}),
        lambda: (mlp(4, [5], 3), {"readout": "learnt"}),
        lambda: (mlp(4, [5], 3).bfloat16(), {}),
    ],
)
def test_others_take_the_longer_way(make: Any) -> None:
    model, chosen = make()
    optimizer = TPSGD(model, seed=7, **chosen)
    (x, *_), (y, *_) = samples(4, 4, 3, model[-1].weight.dtype)
    before = copy.deepcopy(model.state_dict())
    assert optimizer.step(x, y) is not None
    assert not optimizer._single.layers
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_hooks_and_schedulers_are_heard() -> None:
    model = mlp(4, [5], 3)
    optimizer = TPSGD(model, seed=7, lr=1.0)
    (x, *_), (y, *_) = samples(4, 4, 3, torch.float32)
    heard: list[str] = []
    before = optimizer.register_step_pre_hook(lambda *_: heard.append("before"))
    after = optimizer.register_step_post_hook(lambda *_: heard.append("after"))
    optimizer.step(x, y)
    assert heard == ["before", "after"]
    before.remove()
    after.remove()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.0)
    optimizer.step(x, y)
    scheduler.step()
    frozen = copy.deepcopy(model.state_dict())
    optimizer.step(x, y)
    torch.testing.assert_close(dict(model.state_dict()), dict(frozen), rtol=0, atol=0)
    assert heard == ["before", "after"]
