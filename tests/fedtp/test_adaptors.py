"""Adaptors: they begin as the identity, learn alone, and win back what a shift costs."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.adaptors import Bottleneck, LowRank, ScaleShift, adapt
from fedtp.blocks import Chain
from fedtp.data import load
from fedtp.errors import ModelError
from fedtp.models import cnn, mlp
from fedtp.rules import tail_for

KINDS = ["scale-shift", "bottleneck", "low-rank"]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_only_the_adaptors_learn(kind: Any, momentum: float) -> None:
    model = mlp(6, [8, 7], 3, seed=1).double()
    before = copy.deepcopy(model.state_dict())
    adapted = adapt(model, kind, size=2)
    x, y = drawn(0, 9, 6), torch.arange(9) % 3
    torch.testing.assert_close(adapted(x), model(x))
    base = {n: v.clone() for n, v in adapted.state_dict().items()}
    optimizer = TPSGD(adapted, seed=7, lr=0.3, momentum=momentum)
    for _ in range(3):
        optimizer.step(x, y)
    learnt = {name for name, p in adapted.named_parameters() if p.requires_grad}
    changed = {name for name, value in adapted.state_dict().items() if not torch.equal(value, base[name])}
    assert changed == learnt
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    sizes = {block.name: block.size for block in Chain(adapted) if not block.frozen}
    assert sum(sizes.values()) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert set(sizes) <= {"0", "2", "4"}, "adaptors belong to the block that they follow"


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_gradient_of_the_hosts_loss(kind: Any) -> None:
    adapted = adapt(mlp(6, [8], 3, seed=1).double(), kind, size=2)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    twin = copy.deepcopy(adapted)
    x, y = drawn(0, 9, 6), torch.arange(9) % 3
    optimizer = TPSGD(adapted, seed=7, lr=0.3, normalize=False, loss="squared")
    end = next(i for i, (name, _) in enumerate(twin.named_children()) if name == "2")
    a = twin[:end](x)
    rows = torch.tensor(optimizer.projection.rows("0", 8), dtype=torch.float64)
    target = torch.eye(3, dtype=torch.float64)[y]
    loss = ((a @ rows.T / 8**0.5 - target) ** 2).sum(-1).mean() / 2
    parameters = [p for p in twin[:end].parameters() if p.requires_grad]
    expected = [p.detach() - 0.3 * g for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True)]
    optimizer.step(x, y, blocks=[0])
    found = [p.detach() for p in adapted[:end].parameters() if p.requires_grad]
    torch.testing.assert_close(found, expected)


def test_channels_are_scaled_as_features_are() -> None:
    layer = ScaleShift(3).double()
    layer.scale.data, layer.shift.data = drawn(1, 3), drawn(2, 3)
    z, error = drawn(3, 4, 3, 5, 5), drawn(4, 4, 3, 5, 5)
    tail = tail_for(layer)
    a, saved = tail.forward(z, spare=False)
    leaf = z.clone().requires_grad_()
    wanted = torch.autograd.grad(layer(leaf), [leaf, layer.scale, layer.shift], error)
    into = [torch.zeros(3, dtype=torch.float64) for _ in range(2)]
    torch.testing.assert_close(tail.learn(into, saved, error, 1.0), wanted[0])
    torch.testing.assert_close(into, list(wanted[1:]))
    torch.testing.assert_close(a, z * layer.scale[:, None, None] + layer.shift[:, None, None])


@pytest.mark.parametrize(
    ("layer", "shape"), [(ScaleShift(3), (3,)), (ScaleShift(3), (3, 5, 4)), (Bottleneck(3, 2), (3,))], ids=str
)
def test_devices_of_a_stack_have_each_their_own(layer: nn.Module, shape: tuple[int, ...]) -> None:
    devices, batch, keep = 2, 4, 0.5
    alone = [copy.deepcopy(layer).double() for _ in range(devices)]
    for number, parameter in enumerate(p for one in alone for p in one.parameters()):
        parameter.data = drawn(number, *parameter.shape)
    z, error = drawn(90, devices, batch, *shape), drawn(91, devices, batch, *shape)
    leaf = z.clone().requires_grad_()
    outputs = torch.stack([one(leaf[d]) for d, one in enumerate(alone)])
    parameters = [p for one in alone for p in one.parameters()]
    wanted_back, *wanted = torch.autograd.grad(outputs, [leaf, *parameters], error)
    count = len(wanted) // devices

    tail = tail_for(alone[0])
    tail.devices = devices
    tail.parameters = [nn.Parameter(torch.stack(parameters[i::count]).detach()) for i in range(count)]
    with torch.no_grad():
        a, saved = tail.forward(z, spare=False)
        torch.testing.assert_close(a, outputs)
        torch.testing.assert_close(tail.apply(z), outputs)
        torch.testing.assert_close(tail.backward(error.clone(), saved), wanted_back)
        # The parameters themselves are changed: the way back must be through them as they were.
        before = [p.clone() for p in tail.parameters]
        torch.testing.assert_close(tail.learn(tail.parameters, saved, error.clone(), keep), wanted_back)
    for i, (parameter, old) in enumerate(zip(tail.parameters, before, strict=True)):
        torch.testing.assert_close(parameter.detach(), keep * old + torch.stack(wanted[i::count]))
    inputs = tail.inputs(saved)
    assert inputs is not None
    for d, one in enumerate(alone):
        single = tail_for(one)
        with torch.no_grad():
            expected = single.inputs(single.forward(z[d], spare=False)[1])
        assert expected is not None
        torch.testing.assert_close(inputs[0][d], expected[0])
        assert inputs[1] == expected[1]


def test_a_convolutional_network_adapts_too() -> None:
    model = cnn((1, 8, 8), [4], 3, hidden=[5]).eval()
    adapted = adapt(model, "scale-shift")
    assert [name for name, _ in adapted.named_children() if "adaptor" in name] == [
        "0-adaptor",
        "5-adaptor",
        "8-adaptor",
    ]
    before = copy.deepcopy(adapted.state_dict())
    TPSGD(adapted, seed=7).step(torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2]))
    changed = {n.split(".")[0] for n, v in adapted.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"0-adaptor", "5-adaptor", "8-adaptor"}


def test_digits_whose_pixels_are_inverted() -> None:
    train, test = load("digits").split(seed=0)
    x, y, unseen, labels = (torch.from_numpy(a) for a in (train.x, train.y, test.x, test.y))

    def learn(model: nn.Sequential, x: Tensor) -> nn.Sequential:
        optimizer = TPSGD(model, seed=7, lr=0.3)
        for epoch in range(10):
            for rows in torch.randperm(len(y), generator=torch.Generator().manual_seed(epoch)).split(10):
                optimizer.step(x[rows], y[rows])
        return model

    def accuracy(model: nn.Sequential, x: Tensor) -> float:
        return (model(x).argmax(1) == labels).double().mean().item()

    model = learn(mlp(64, [128], 10, seed=0), x)
    invert = lambda x: train.x.max() + train.x.min() - x  # noqa: E731
    good, shifted = accuracy(model, unseen), accuracy(model, invert(unseen))
    adapted = learn(adapt(model, "scale-shift"), invert(x))
    assert shifted < 0.5 * good
    assert (accuracy(adapted, invert(unseen)) - shifted) / (good - shifted) > 0.7
    learning = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert learning < 0.05 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: adapt(mlp(4, [3], 2), "prompt"),
            "no adaptor 'prompt'; choose one of scale-shift, bottleneck, low-rank",
        ),  # type: ignore[arg-type]
        (lambda: adapt(mlp(4, [3], 2), size=0), "at least one, got 0"),
        (lambda: adapt(nn.Sequential(nn.Tanh())), "no layer that a low-rank adaptor fits"),
    ],
)
def test_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()


def test_the_parts_by_themselves() -> None:
    x = torch.randn(5, 4)
    linear = nn.Linear(4, 3)
    assert torch.equal(Bottleneck(4, 2)(x), x)
    assert torch.equal(ScaleShift(4)(x), x)
    assert torch.equal(LowRank(linear, 2)(x), linear(x))
