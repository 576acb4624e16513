from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedtp.blocks import Chain
from fedtp.cohort import stack
from fedtp.errors import ModelError
from fedtp.losses import CrossEntropy


class Doubling(nn.Sequential):
    """A Sequential that does something of its own, so not to be taken apart."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)  # type: ignore[no-any-return]


def network() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            stem=nn.Flatten(),
            body=nn.Sequential(nn.Linear(6, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 4, bias=False)), nn.Tanh()),
            odd=Doubling(nn.Linear(4, 4), nn.ReLU()),
            drop=nn.Dropout(0.5),
            head=nn.Linear(4, 3),
        )
    )


def test_blocks_are_named_as_in_the_state_dict() -> None:
    model = network()
    chain = Chain(model)
    assert [block.name for block in chain] == ["body.0", "body.1.1", "odd", "head"]
    assert [block.size for block in chain] == [35, 20, 20, 15]
    assert [len(block.tail) for block in chain] == [1, 1, 1, 0]
    assert [type(layer) for layer in chain.stem] == [nn.Flatten]
    packed = [name for name in model.state_dict() if name.startswith("body.0.")]
    assert packed == ["body.0.weight", "body.0.bias"]


@pytest.mark.parametrize("training", [False, True])
def test_forward_is_the_models(training: bool) -> None:
    model = network().train(training)
    x = torch.randn(7, 2, 3)
    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    torch.testing.assert_close(Chain(model).forward(x), expected)


def test_an_activation_may_be_used_twice() -> None:
    act = nn.Tanh()
    model = nn.Sequential(act, nn.Linear(3, 3), act, nn.Linear(3, 3), act, act, nn.Linear(3, 2))
    chain = Chain(model)
    assert [len(block.tail) for block in chain] == [1, 2, 0]
    x = torch.randn(4, 3)
    torch.testing.assert_close(chain.forward(x), model(x))


def tied() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


same = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "A model is an nn.Sequential of layers.* got Linear"),
        (Doubling(nn.Linear(2, 2)), "got Doubling"),
        (nn.Sequential(), "no parameters"),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3, affine=False)), "no parameters"),
        (nn.Sequential(same, nn.ReLU(), same), "twice"),
        (tied(), "twice"),
    ],
    ids=["layer", "subclass", "empty", "nothing to learn", "same layer", "same parameter"],
)
def test_models_that_have_no_blocks(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Chain(model)


@settings(max_examples=25, deadline=None)
@given(widths=st.lists(st.integers(1, 5), min_size=2, max_size=4), devices=st.integers(0, 3), bias=st.booleans())
def test_packing_round_trip(widths: list[int], devices: int, bias: bool) -> None:
    model = nn.Sequential(*(nn.Linear(i, o, bias=bias) for i, o in pairwise(widths)))
    model = stack(model, devices) if devices else model
    for block in Chain(model):
        start = 1 if devices else 0
        joined = torch.cat([p.flatten(start) for p in block.parameters], start).detach()
        assert torch.equal(block.pack(), joined)
        assert block.pack().shape == ((devices, block.size) if devices else (block.size,))
        new = torch.randn_like(joined)
        block.unpack(new)
        assert torch.equal(block.pack(), new)
        new[..., 0] = 7
        assert not torch.equal(block.pack(), new), "packed and unpacked numbers are copies"
        one_for_all = torch.randn(block.size)
        block.unpack(one_for_all)
        assert torch.equal(block.pack(), one_for_all.expand_as(joined))


@pytest.mark.parametrize(
    ("blocks", "positions"),
    [
        (None, {0, 1, 3}),
        ([], set()),
        (["head", 0], {0, 3}),
        ("body.0", {0}),
        ((p for p in (1, 1)), {1}),
        (["odd"], set()),
    ],
)
def test_positions_leave_frozen_blocks_out(blocks: Iterable[int | str] | None, positions: set[int]) -> None:
    model = network()
    model.odd.requires_grad_(False)
    assert Chain(model).positions(blocks) == positions


@pytest.mark.parametrize(("blocks", "named"), [([0, 4], "4"), ([-1], "-1"), (["body"], "'body'"), ("heat", "'heat'")])
def test_unknown_blocks_are_named(blocks: Iterable[int | str], named: str) -> None:
    with pytest.raises(ModelError, match=rf"no block {named}; its blocks are body.0, body.1.1, odd, head, or 0 to 3"):
        Chain(network()).positions(blocks)


def test_the_width_of_an_image_layer_is_not_known_beforehand() -> None:
    chain = Chain(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)))
    assert chain.blocks[1].outputs == 2
    with pytest.raises(ModelError, match="Block '0' is a Conv2d"):
        _ = chain.blocks[0].outputs


def test_a_batch_is_prepared() -> None:
    x, y = torch.randn(3, 6), torch.tensor([2, 0, 1], dtype=torch.uint8)
    inner, target, shares = Chain(network()).prepare(x, y, torch.tensor([3, 1, 0]), CrossEntropy())
    assert torch.equal(inner, x)
    assert torch.equal(target, torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    assert shares is not None
    assert torch.equal(shares, torch.tensor([0.75, 0.25, 0]))
    assert Chain(network().bfloat16()).prepare(x.bfloat16(), y, None, CrossEntropy())[1].dtype == torch.bfloat16


def test_a_stacks_batch_is_prepared() -> None:
    chain = Chain(stack(nn.Sequential(nn.Linear(6, 3)), 2))
    y = torch.tensor([[0, 1], [2, 2]])
    _, target, shares = chain.prepare(
        torch.randn(2, 2, 6), y, torch.tensor([[True, False], [True, True]]), CrossEntropy()
    )
    assert torch.equal(target.argmax(-1), y)
    assert shares is not None
    assert torch.equal(shares, torch.tensor([[1.0, 0], [0.5, 0.5]]))


X, Y, W = torch.zeros(3, 6), torch.tensor([0, 1, 2]), torch.ones(3)
NAN, INF = X.clone(), X.clone()
NAN[2, 5], INF[0, 0] = torch.nan, -torch.inf


@pytest.mark.parametrize(
    ("x", "y", "weights", "message"),
    [
        (NAN, Y, None, "The input holds NaN or infinity"),
        (INF, Y, None, "The input holds NaN or infinity"),
        (INF, Y, torch.tensor([0.0, 1, 1]), "The input holds NaN or infinity"),
        (X[:2], Y, None, r"inputs \[batch, ...\] and labels \[batch\], at least one; got \(2, 6\) and \(3,\)"),
        (X[:0], Y[:0], None, "at least one"),
        (X, Y[:, None], None, r"got the shape \(3, 1\)"),
        (X, torch.tensor(0), None, r"got \(3, 6\) and \(\)"),
        (X[0, 0], Y, None, r"got \(\) and \(3,\)"),
        (X, torch.tensor([0, 1, 3]), None, "A label is 3, but the model has 3 outputs: labels are 0 to 2."),
        (X, torch.tensor([0, -1, 3]), None, "A label is -1"),
        (X, Y.float(), None, "Labels are class indices of an integer type, got torch.float32"),
        (X, Y.bool(), None, "got torch.bool"),
        (X, Y, W[:2], r"Weights are numbers from 0 up, of the labels' shape \(3,\)"),
        (X, Y, W[:, None], "Weights are"),
        (X, Y, torch.tensor(1.0), "Weights are"),
        (X, Y, -W, "Weights are"),
        (X, Y, torch.tensor([2.0, -1, 1]), "Weights are"),
        (X, Y, 0 * W, "not all 0"),
        (X, Y, W / 0, "Weights are"),
        (X, Y, W * torch.nan, "Weights are"),
    ],
)
def test_a_batch_that_cannot_be_learnt_from(x: Tensor, y: Tensor, weights: Tensor | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Chain(network()).prepare(x, y, weights, CrossEntropy())


@pytest.mark.parametrize("shape", [(6, 6), (3, 3, 6), (2, 0, 6)])
def test_a_batch_that_does_not_fit_a_stack(shape: tuple[int, ...]) -> None:
    chain = Chain(stack(nn.Sequential(nn.Linear(6, 3)), 2))
    with pytest.raises(ModelError, match=r"\[2, batch, ...\] and labels \[2, batch\]"):
        chain.prepare(torch.zeros(shape), torch.zeros(shape[:2]).long(), None, CrossEntropy())


def test_a_device_without_samples_does_not_fit_a_stack() -> None:
    weights = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    chain = Chain(stack(nn.Sequential(nn.Linear(6, 3)), 2))
    with pytest.raises(ModelError, match="not all 0 in a batch"):
        chain.prepare(torch.zeros(2, 2, 6), torch.zeros(2, 2).long(), weights, CrossEntropy())
