"""Backprop against plain PyTorch: the model, nn.CrossEntropyLoss, loss.backward() and torch.optim.SGD."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedtp.baselines import Backprop
from fedtp.cohort import stack
from fedtp.errors import ModelError

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": nn.CrossEntropyLoss(reduction="none"),
    "squared": lambda a, y: (a - torch.eye(a.shape[1], dtype=a.dtype)[y]).square().sum(1) / 2,
    "absolute": lambda a, y: (a - torch.eye(a.shape[1], dtype=a.dtype)[y]).abs().sum(1),
}


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 5), nn.Sigmoid(), nn.Tanh(), nn.Linear(5, 3)
    return nn.Sequential(*layers).double()


def batch(size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (size,), generator=generator)


def plain_step(model: nn.Module, sgd: torch.optim.SGD, losses: Tensor, weights: Tensor | None) -> Tensor:
    loss = losses.mean() if weights is None else (losses * weights).sum() / weights.sum()
    sgd.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    sgd.step()
    return loss.detach()


options = st.fixed_dictionaries(
    {
        "lr": st.floats(0, 1),
        "momentum": st.sampled_from([0.0, 0.9]),
        "weight_decay": st.sampled_from([0.0, 0.1]),
    }
)


@settings(max_examples=25, deadline=None)
@given(options, st.sampled_from(sorted(LOSSES)), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans())
def test_it_is_sgd(options: dict[str, float], loss: str, sizes: list[int], weighted: bool) -> None:
    model, twin = network(), network()
    optimizer, sgd = Backprop(model, loss=loss, **options), torch.optim.SGD(twin.parameters(), **options)
    for number, size in enumerate(sizes):
        x, y = batch(size, number)
        weights = torch.rand(size, dtype=torch.float64) + 0.01 if weighted else None
        answer = twin(x)
        expected = plain_step(twin, sgd, LOSSES[loss](answer, y), weights)
        torch.testing.assert_close(optimizer.step(x, y, weights=weights), expected)
        torch.testing.assert_close(optimizer.losses, {"5": expected})
        torch.testing.assert_close(optimizer.output, answer.detach())
        torch.testing.assert_close(model.state_dict(), twin.state_dict())


@settings(max_examples=20, deadline=None)
@given(options, st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_stack_is_a_loop_over_its_devices(options: dict[str, float], counts: list[int]) -> None:
    model = stack(network(), len(counts))
    singles = [network(seed) for seed in range(len(counts))]
    with torch.no_grad():
        for parameter, *own in zip(model.parameters(), *(single.parameters() for single in singles), strict=True):
            parameter.copy_(torch.stack(own))
    optimizer = Backprop(model, **options)
    plain = [torch.optim.SGD(single.parameters(), **options) for single in singles]
    real = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    for number in range(3):
        x = torch.full((*real.shape, 4), 1e3, dtype=torch.float64)
        y = torch.zeros(real.shape, dtype=torch.int64)
        losses = []
        for d, (single, sgd) in enumerate(zip(singles, plain, strict=True)):
            x[d, : counts[d]], y[d, : counts[d]] = xs, ys = batch(counts[d], number)
            losses.append(plain_step(single, sgd, LOSSES["cross_entropy"](single(xs), ys), None))
        loss = optimizer.step(x, y, weights=None if real.all() else real)
        torch.testing.assert_close(loss, torch.stack(losses))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, torch.stack([single.state_dict()[name] for single in singles]))


def images() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def test_any_layer_learns() -> None:
    model, twin = images(), images()
    optimizer, sgd = Backprop(model, lr=0.5), torch.optim.SGD(twin.parameters(), lr=0.5)
    x, y = torch.randn(5, 1, 6, 6), torch.tensor([0, 1, 2, 0, 1])
    for seed in range(3):
        torch.manual_seed(seed)
        loss = optimizer.step(x, y)
        torch.manual_seed(seed)
        torch.testing.assert_close(loss, plain_step(twin, sgd, LOSSES["cross_entropy"](twin(x), y), None))
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


@pytest.mark.parametrize("trained", [["0"], [1, "5"], []])
def test_a_part_of_the_blocks(trained: list[int | str]) -> None:
    model, twin = network(), network()
    layers = {"0": twin[0], 1: twin[2], "5": twin[5]}
    optimizer = Backprop(model, lr=0.5, momentum=0.9, weight_decay=0.1)
    chosen = [p for key in trained for p in layers[key].parameters()]
    sgd = torch.optim.SGD(chosen or [torch.zeros(1)], lr=0.5, momentum=0.9, weight_decay=0.1)
    x, y = batch(4, 0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # somebody else's, not to be learnt from
    for _ in range(2):
        loss = plain_step(twin, sgd, LOSSES["cross_entropy"](twin(x), y), None)
        torch.testing.assert_close(optimizer.step(x, y, blocks=trained), loss)
        assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


def test_frozen_blocks_stay_as_they_are() -> None:
    model, before = network(), network()
    model[2].requires_grad_(False)
    Backprop(model, weight_decay=0.1).step(*batch(4, 0))
    assert torch.equal(model[2].weight, before[2].weight)
    assert not torch.equal(model[0].weight, before[0].weight)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"])
def test_copies_go_their_own_way(copy_of: Callable[[Any], Any]) -> None:
    model = network()
    optimizer = Backprop(model, momentum=0.9)
    optimizer.step(*batch(4, 0))
    twin, other = copy_of((model, optimizer))
    other.step(*batch(4, 1))
    assert not torch.equal(model[0].weight, twin[0].weight)
    optimizer.step(*batch(4, 1))
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=0, atol=0)


def test_groups_and_schedulers() -> None:
    optimizer = Backprop(network(), lr=0.5)
    assert [group["name"] for group in optimizer.param_groups] == ["0", "2", "5"]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    optimizer.step(*batch(4, 0))
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05] * 3


X, Y = batch(4, 0)


@pytest.mark.parametrize(
    ("x", "y", "more"),
    [(X / 0, Y, {}), (X, Y + 3, {}), (X[:, :3], Y, {}), (X, Y, {"blocks": [7]}), (X, Y, {"weights": -torch.ones(4)})],
)
def test_what_cannot_be_learnt_from_changes_nothing(x: Tensor, y: Tensor, more: dict[str, Any]) -> None:
    model = network()
    with pytest.raises(ModelError):
        Backprop(model).step(x, y, **more)
    torch.testing.assert_close(model.state_dict(), network().state_dict(), rtol=0, atol=0)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ModelError, match="no loss called 'hing'"):
        Backprop(network(), loss="hing")
    with pytest.raises(ModelError, match=r"nn.Sequential"):
        Backprop(nn.Linear(2, 2))
