"""Convolutions, embeddings, normalisation, pooling: each closed form against autograd, alone and for many devices."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedtp.blocks import Block, Chain
from fedtp.cohort import stack
from fedtp.errors import ModelError
from fedtp.normalization import mean_squared_norm
from fedtp.rules import GenericRule, GenericTail, rule_for, tail_for


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def block_of(model: nn.Sequential) -> Block:
    (block,) = Chain(model)
    return block


def update(model: nn.Sequential, x: Tensor, keep: float) -> tuple[Tensor, dict[str, Tensor]]:
    """One update of the only block along an error, and its output before."""
    block = block_of(model)
    with torch.no_grad():
        a, saved = block.forward(x)
        start = 1 if block.devices else 0
        error = torch.stack([drawn(9, *a.shape[1:])] * len(a)) if start else drawn(9, *a.shape)
        block.descent(saved, error).into([p.detach() for p in block.parameters], 0.5, keep)
    return a, {name: value.detach() for name, value in model.state_dict().items()}


def expected(model: nn.Sequential, x: Tensor, keep: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The same by autograd."""
    a = model(x)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(a, list(parameters.values()), drawn(9, *a.shape))
    with torch.no_grad():
        for parameter, gradient in zip(parameters.values(), gradients, strict=True):
            parameter.copy_(keep * parameter + 0.5 * gradient)
    return a.detach(), {name: value.detach() for name, value in model.state_dict().items()}


def assert_learns_as_autograd(make: Callable[[], nn.Sequential], x: Tensor, *, devices: int, keep: float) -> None:
    torch.manual_seed(0)
    model = make().double()
    assert not isinstance(block_of(model).rule, GenericRule)
    assert not any(isinstance(tail, GenericTail) for tail in block_of(model).tail)
    twins = [copy.deepcopy(model) for _ in range(max(devices, 1))]
    if not devices:
        found, wanted = update(model, x, keep), expected(twins[0], x, keep)
        torch.testing.assert_close(found, wanted)
        return
    many = stack(model, devices)
    batches = torch.stack([torch.roll(x, d, 0) if x.dtype == torch.int64 else x + d for d in range(devices)])
    a, state = update(many, batches, keep)
    for d, twin in enumerate(twins):
        wanted, after = expected(twin, batches[d], keep)
        torch.testing.assert_close(a[d], wanted)
        for name, value in after.items():
            torch.testing.assert_close(state[name][d] if state[name].dim() > value.dim() else state[name], value)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_convolutions(data: st.DataObject) -> None:
    spatial = data.draw(st.integers(1, 2))
    pick = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(spatial))  # noqa: E731
    groups = data.draw(st.integers(1, 2))
    inputs, outputs = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    kernel, dilation = pick(1, 3), pick(1, 2)
    stride = pick(1, 2)
    same = all(s == 1 for s in stride) and data.draw(st.booleans())
    chosen = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": "same" if same else pick(0, 2),
        "dilation": dilation,
        "groups": groups,
        "bias": data.draw(st.booleans()),
        "padding_mode": data.draw(st.sampled_from(["zeros", "reflect", "circular"])),
    }
    conv = (nn.Conv1d, nn.Conv2d)[spatial - 1]
    size = tuple(data.draw(st.integers(5, 7)) for _ in range(spatial))
    assert_learns_as_autograd(
        lambda: nn.Sequential(conv(inputs, outputs, **chosen)),  # type: ignore[operator]
        drawn(1, data.draw(st.integers(1, 3)), inputs, *size),
        devices=data.draw(st.sampled_from([0, 1, 3])),
        keep=data.draw(st.sampled_from([1.0, 0.9])),
    )


def test_a_convolution_sees_the_mean_of_its_patches() -> None:
    x = drawn(0, 4, 3, 6, 5)
    conv = nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular", dtype=torch.float64)
    inputs, factor = rule_for(conv).inputs(rule_for(conv).forward(x)[1])
    patches = nn.functional.unfold(nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), 3)
    # Over the padded picture each number counts alike; here that is right up to the rim.
    mean = patches.square().sum(1).mean()
    assert (factor * mean_squared_norm(inputs, None)).item() == pytest.approx(mean.item(), rel=0.1)


@pytest.mark.parametrize("devices", [0, 2])
@pytest.mark.parametrize("padding_idx", [None, 2])
def test_embeddings(devices: int, padding_idx: int | None) -> None:
    x = torch.randint(7, (4, 3), generator=torch.Generator().manual_seed(3))
    x[0] = 2
    make = lambda: nn.Sequential(nn.Embedding(7, 5, padding_idx=padding_idx), nn.Flatten())  # noqa: E731
    assert_learns_as_autograd(make, x, devices=devices, keep=1.0)


TAILS: list[tuple[Callable[[], list[nn.Module]], bool]] = [
    # layers, and whether the block's maps are pictures rather than vectors
    (lambda: [nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)], True),
    (lambda: [nn.BatchNorm2d(4, affine=False), nn.ReLU(inplace=True), nn.AvgPool2d((3, 2), 2, 1)], True),
    (lambda: [nn.BatchNorm2d(4, momentum=None), nn.Tanh(), nn.AdaptiveAvgPool2d((2, None))], True),
    (lambda: [nn.BatchNorm2d(4, track_running_stats=False), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Flatten()], True),
    (lambda: [nn.GroupNorm(2, 4), nn.GELU(), nn.MaxPool2d(2, dilation=2), nn.Flatten(2)], True),
    (lambda: [nn.LayerNorm([6, 7]), nn.SiLU(), nn.AvgPool2d(2, count_include_pad=False, padding=1)], True),
    (lambda: [nn.LayerNorm(4, bias=False), nn.ELU(), nn.Unflatten(1, (2, 2)), nn.Flatten()], False),
    (lambda: [nn.LayerNorm(4, elementwise_affine=False), nn.Sigmoid(), nn.Identity()], False),
    (lambda: [nn.BatchNorm1d(4), nn.LeakyReLU(), nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2), nn.Flatten()], False),
    (lambda: [nn.GroupNorm(2, 4), nn.Unflatten(1, (2, 2)), nn.AvgPool1d(2), nn.Dropout(0.0)], False),
    (lambda: [nn.Unflatten(1, (2, 2)), nn.BatchNorm1d(2), nn.AdaptiveAvgPool1d(1)], False),
]


@pytest.mark.parametrize("keep", [1.0, 0.9])
@pytest.mark.parametrize("devices", [0, 1, 3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("tail", "pictures"), TAILS, ids=[str(i) for i in range(len(TAILS))])
def test_the_layers_after(
    tail: Callable[[], list[nn.Module]], pictures: bool, training: bool, devices: int, keep: float
) -> None:
    first = (lambda: nn.Conv2d(2, 4, 3, padding=1)) if pictures else (lambda: nn.Linear(3, 4))
    make = lambda: nn.Sequential(first(), *tail()).train(training)  # noqa: E731
    assert_learns_as_autograd(make, drawn(1, 5, 2, 6, 7) if pictures else drawn(1, 5, 3), devices=devices, keep=keep)


@pytest.mark.parametrize("devices", [0, 2])
@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.LayerNorm(3), nn.GroupNorm(3, 3)], ids=repr)
def test_a_model_may_begin_with_a_normalisation(layer: nn.Module, devices: int) -> None:
    assert_learns_as_autograd(lambda: nn.Sequential(copy.deepcopy(layer)), drawn(1, 5, 3), devices=devices, keep=1.0)


def test_dropout_drops_the_same_in_both_directions() -> None:
    tail = tail_for(nn.Dropout(0.5))
    torch.manual_seed(0)
    a, saved = tail.forward(torch.ones(1000), spare=False)
    assert set(a.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(tail.backward(torch.ones(1000), saved), a)
    z = torch.ones(3)
    assert tail_for(nn.Dropout(0.5).eval()).forward(z, spare=True)[0] is z


def test_a_residual_block_is_one_block() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(x)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = nn.Sequential(Residual(), nn.ReLU()).double()
    twin = copy.deepcopy(model)
    torch.testing.assert_close(update(model, drawn(1, 5, 4), 0.9), expected(twin, drawn(1, 5, 4), 0.9))


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Conv2d(3, 2, 3), torch.zeros(2, 1, 5, 5), r"3 input channels got an input of .* shape \(2, 1, 5, 5\)"),
        (nn.Conv1d(3, 2, 3), torch.zeros(2, 3), r"give it \[batch, 3, positions\]"),
        (nn.Embedding(4, 2), torch.tensor([[1, 4]]), "rows 0 to 3, got the index 4"),
        (nn.Embedding(4, 2), torch.zeros(2, 2), "takes whole numbers from 0 to 3, got torch.float32"),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), torch.zeros(1, 2), "BatchNorm1d needs more than one value"),
    ],
)
def test_inputs_that_do_not_fit(model: nn.Module, x: Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        block_of(nn.Sequential(model)).forward(x)
