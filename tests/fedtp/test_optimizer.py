"""TPSGD against a slow reference: autograd's gradient of each block's loss alone, stepped by torch.optim.SGD."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import warnings
from collections.abc import Callable, Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from fedtp import TPSGD
from fedtp.cohort import stack
from fedtp.errors import ModelError
from fedtp.models import cnn, recurrent
from fedtp.projection import Projection

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky-relu": lambda: nn.LeakyReLU(0.2),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "identity": nn.Identity,
    "softplus": nn.Softplus,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": lambda a, t: ((a - t) ** 2).sum(-1) / 2,
    "absolute": lambda a, t: (a - t).abs().sum(-1),
    "cross_entropy": lambda a, t: -(t * (a - a.logsumexp(-1, keepdim=True))).sum(-1),
}

#: A network as its blocks, each a list of layers, its own layer first.
Blocks = list[list[nn.Module]]


class Reference:
    """Trains a copy of the blocks as the docstring of TPSGD has it, with nothing of fedtp but the projection."""

    def __init__(
        self,
        blocks: Blocks,
        *,
        start: int = 0,
        seed: int = 7,
        lr: float = 1.0,
        loss: str = "cross_entropy",
        space: str = "label",
        projection: Any = "normal",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        normalize: bool = True,
    ) -> None:
        self.blocks = [nn.Sequential(*copy.deepcopy(layers)) for layers in blocks]
        self.names = [str(start + sum(map(len, blocks[:i]))) for i in range(len(blocks))]
        self.loss, self.space, self.normalize = LOSSES[loss], space, normalize
        self.curvature, self.gain = (1 / 8, 3) if loss == "cross_entropy" else (1, 1)
        self.projection = Projection(seed, kind=projection, classes=blocks[-1][0].out_features)  # type: ignore[arg-type]
        self.sgd = [
            torch.optim.SGD(block.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
            for block in self.blocks
        ]

    def step(
        self, x: Tensor, y: Tensor, *, trained: Collection[int] | None = None, weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        last, dtype = len(self.blocks) - 1, next(self.parameters()).dtype
        one_hot = torch.eye(len(self.projection.keys), dtype=dtype)[y]
        share = torch.full((len(x),), 1 / len(x), dtype=dtype) if weights is None else weights / weights.sum()
        losses = {}
        for i, (name, block, sgd) in enumerate(zip(self.names, self.blocks, self.sgd, strict=True)):
            a = block(x)
            flat = (pooled_maps(block, x, a) if i < last else a).flatten(1)
            if i < last:
                rows = torch.from_numpy(self.projection.rows(name, flat.shape[1]).copy()).to(dtype)
            if i == last:
                values = self.loss(flat, one_hot)
            elif self.space == "label":
                gain = 1 if normalized(block) else self.gain
                values = self.loss(gain * flat @ rows.T / math.sqrt(flat.shape[1]), one_hot)
            else:
                values = self.loss(flat, one_hot @ rows)
            value = (values * share).sum()
            if trained is None or i in trained:
                divisor = self.divisor(seen(block[0], x), share) if self.normalize else torch.ones(())
                if self.normalize and normalized(block):
                    divisor = torch.tensor(10.0)
                for parameter, gradient in zip(
                    block.parameters(), torch.autograd.grad(value, list(block.parameters())), strict=True
                ):
                    parameter.grad = gradient / divisor
                sgd.step()
                losses[name] = value.detach()
            x = a.detach()
        return losses

    def divisor(self, x: Tensor, share: Tensor) -> Tensor:
        """Of the mean gradient: what makes of it the sum of normalised steps, held back where samples are alike."""
        size = 1 / share.square().sum()
        norm = (x.square().sum(1) * share).sum()
        if len(x) > 1:
            v = share
            for _ in range(2):
                v = share * (x @ x.T @ (v / v.norm().clamp_min(1e-30)))
            return torch.maximum(1 + norm, self.curvature * size * (1 + v.norm())) / size
        return (1 + norm) / size

    def parameters(self) -> Iterator[nn.Parameter]:
        for block in self.blocks:
            yield from block.parameters()


def normalized(block: nn.Sequential) -> bool:
    return any(isinstance(layer, nn.BatchNorm1d | nn.LayerNorm) for layer in block)


def pooled_maps(block: nn.Sequential, x: Tensor, a: Tensor) -> Tensor:
    """What a hidden block is compared by: means over a grid of 2 by 2 cells, before a flattening at its end."""
    if isinstance(block[-1], nn.Flatten):
        a = block[:-1](x)
    return nn.functional.adaptive_avg_pool2d(a, 2) if a.dim() == 4 else a


def seen(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer's units see, up to its squared norm: of a convolution the mean over the patches."""
    if isinstance(layer, nn.Conv2d):
        return x.flatten(1) * math.sqrt(math.prod(layer.kernel_size) / x[0, 0].numel())
    return x.flatten(1)


def chained(blocks: Blocks) -> nn.Sequential:
    return nn.Sequential(*(layer for layers in blocks for layer in layers))


def assert_same(model: nn.Module, reference: Reference, **tolerance: float) -> None:
    for (name, parameter), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(
            parameter.detach(), expected.detach(), msg=lambda m, n=name: f"{n}: {m}", **tolerance
        )


def dense(
    widths: list[int], activations: list[str], *, bias: bool = True, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Blocks:
    torch.manual_seed(seed)
    layers = [nn.Linear(i, o, bias=bias, dtype=dtype) for i, o in pairwise(widths)]
    after = [[ACTIVATIONS[name]()] for name in activations] + [[]]
    return [[layer, *tail] for layer, tail in zip(layers, after, strict=True)]


def batch(size: int, features: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, features, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (size,), generator=generator)


def network() -> nn.Sequential:
    """Blocks "0", "2" and "4" of 4-8-6-3."""
    return chained(dense([4, 8, 6, 3], ["tanh", "relu"], dtype=torch.float32))


def copied(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """The layers of which a number differs, bit for bit."""
    return {n.rsplit(".", 1)[0] for n, value in model.state_dict().items() if not torch.equal(value, before[n])}


X, Y = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 2, 1, 1, 0])


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], list[str], dict[str, Any]]:
    space = draw(st.sampled_from(["label", "target"]))
    kind = draw(st.sampled_from(["normal", "uniform", "sign", "orthogonal"]))
    classes = draw(st.integers(1, 4))
    hidden = draw(st.lists(st.integers(classes if kind == "orthogonal" else 1, 7), max_size=3))
    settings = {
        "space": space,
        "projection": kind,
        "loss": draw(st.sampled_from(["squared", "absolute"] + ["cross_entropy"] * (space == "label"))),
        "seed": draw(st.integers(0, 2**70)),
        "lr": draw(st.floats(0, 3)),
        "momentum": draw(st.sampled_from([0.0, 0.9])),
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "normalize": draw(st.booleans()),
    }
    activations = draw(st.lists(st.sampled_from(list(ACTIVATIONS)), min_size=len(hidden), max_size=len(hidden)))
    return [draw(st.integers(1, 5)), *hidden, classes], activations, settings


@settings(max_examples=50, deadline=None)
@given(problem=problems(), bias=st.booleans(), weighted=st.booleans(), sizes=st.lists(st.integers(1, 5), min_size=3))
def test_every_update_is_the_gradient_of_the_blocks_own_loss(
    problem: tuple[list[int], list[str], dict[str, Any]], bias: bool, weighted: bool, sizes: list[int]
) -> None:
    widths, activations, chosen = problem
    blocks = dense(widths, activations, bias=bias)
    model = chained(blocks)
    reference, optimizer = Reference(blocks, **chosen), TPSGD(model, **chosen)
    for number, size in enumerate(sizes[:4]):
        x, y = batch(size, widths[0], widths[-1], seed=number)
        weights = torch.rand(size, dtype=torch.float64) + 0.01 if weighted else None
        with torch.no_grad():
            answer = model(x)
        loss, expected = optimizer.step(x, y, weights=weights), reference.step(x, y, weights=weights)
        assert optimizer.losses.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(optimizer.losses[name], value, rtol=1e-8, atol=1e-10)
        assert loss is optimizer.losses[reference.names[-1]]
        assert optimizer.output is not None
        torch.testing.assert_close(optimizer.output, answer, rtol=1e-8, atol=1e-10)
    assert_same(model, reference, rtol=1e-8, atol=1e-10)


def generic_cases() -> dict[str, tuple[list[nn.Module], Blocks, Tensor]]:
    torch.manual_seed(0)
    images, rows = torch.randn(6, 1, 6, 6), torch.randn(6, 5)
    return {
        "conv": ([], [[nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()], [nn.Linear(12, 3)]], images),
        "stem": ([nn.Flatten()], [[nn.Linear(36, 8), nn.Tanh()], [nn.Linear(8, 3)]], images),
        "batch norm": ([], [[nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU()], [nn.Linear(8, 3)]], rows),
        "layer norm": ([], [[nn.Linear(5, 8), nn.LayerNorm(8), nn.GELU()], [nn.Linear(8, 3)]], rows),
        # What one activation saves, the next must not overwrite.
        "chains": ([], [[nn.Linear(5, 8), nn.Sigmoid(), nn.Tanh(), nn.Softmax(-1), nn.ELU()], [nn.Linear(8, 3)]], rows),
        "embedding": ([], [[nn.Embedding(9, 4), nn.Flatten()], [nn.Linear(8, 3)]], torch.randint(9, (6, 2))),
    }


@pytest.mark.parametrize("case", generic_cases())
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_other_layers_learn_from_their_blocks_own_loss(case: str, momentum: float) -> None:
    stem, blocks, x = generic_cases()[case]
    model = nn.Sequential(*stem, *chained(blocks)).double()
    x, y = x.double() if x.is_floating_point() else x, torch.tensor([0, 1, 2, 0, 1, 2])
    chosen: dict[str, Any] = {"seed": 7, "momentum": momentum, "weight_decay": 0.01, "normalize": case != "embedding"}
    reference, optimizer = Reference(blocks, start=len(stem), **chosen), TPSGD(model, **chosen)
    for _ in range(3):
        optimizer.step(x, y)
        torch.testing.assert_close(optimizer.losses, reference.step(nn.Sequential(*stem)(x), y))
    assert_same(model, reference)
    expected = [value for block in reference.blocks for value in block.state_dict().values()]
    for value, wanted in zip(model.state_dict().values(), expected, strict=True):
        torch.testing.assert_close(value, wanted)  # running statistics among them


@settings(max_examples=30, deadline=None)
@given(problem=problems(), bias=st.booleans(), counts=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_stack_is_a_loop_over_its_devices(
    problem: tuple[list[int], list[str], dict[str, Any]], bias: bool, counts: list[int]
) -> None:
    widths, activations, chosen = problem
    activations = ["silu" if name == "softplus" else name for name in activations]
    model = stack(chained(dense(widths, activations, bias=bias)), len(counts))
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) / 10
    singles = [chained(dense(widths, activations, bias=bias)) for _ in counts]
    for d, single in enumerate(singles):
        single.load_state_dict({name: value[d] for name, value in model.state_dict().items()})
    optimizer, optimizers = TPSGD(model, **chosen), [TPSGD(single, **chosen) for single in singles]
    # Devices with fewer samples are filled up with what must not count, whatever it is.
    real = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    for number in range(3):
        drawn = [batch(count, widths[0], widths[-1], seed=number) for count in counts]
        x = torch.full((len(counts), max(counts), widths[0]), 1e3, dtype=torch.float64)
        y = torch.zeros(len(counts), max(counts), dtype=torch.int64)
        for d, (xs, ys) in enumerate(drawn):
            x[d, : counts[d]], y[d, : counts[d]] = xs, ys
        loss = optimizer.step(x, y, weights=None if real.all() else real)
        expected = torch.stack([o.step(*d) for o, d in zip(optimizers, drawn, strict=True)])  # type: ignore[misc]
        torch.testing.assert_close(loss, expected, rtol=1e-8, atol=1e-10)
    for name, value in model.state_dict().items():
        wanted = torch.stack([single.state_dict()[name] for single in singles])
        torch.testing.assert_close(value, wanted, rtol=1e-8, atol=1e-10)
    assert all(value.shape == (len(counts),) for value in optimizer.losses.values())


class Counting(nn.Module):
    """Passes on what it gets, and counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def forward(self, x: Tensor) -> Tensor:
        self.times += 1
        return x * 1


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("trained", [(0,), (1,), (2,), (0, 2), (1, 0), (), (0, 1, 2)])
def test_a_part_of_the_blocks(trained: tuple[int, ...], momentum: float) -> None:
    blocks = [[*layers, Counting()] for layers in dense([4, 8, 6, 3], ["tanh", "relu"], dtype=torch.float32)]
    model = chained(blocks)
    reference = Reference(blocks, momentum=momentum)
    optimizer = TPSGD(model, seed=7, momentum=momentum)
    before = copied(model)
    last = max(trained, default=-1)
    for number in range(2):
        loss = optimizer.step(X, Y, blocks=[reference.names[i] if i % 2 else i for i in trained])
        expected = reference.step(X, Y, trained=trained)
        # The first step begins with a look whether the layers fit each other.
        assert [layers[-1].times for layers in blocks] == [(i <= last) * (number + 2) for i in range(3)]
        torch.testing.assert_close(optimizer.losses, expected)
        assert (loss is None) == (optimizer.output is None) == (last < 2)
    assert changed(model, before) == {reference.names[i] for i in trained}
    assert len(optimizer.state) == (2 * len(trained) if momentum else 0)
    assert_same(model, reference)


def test_frozen_blocks_stay_as_they_are() -> None:
    model = network()
    model[2].requires_grad_(False)
    before = copied(model)
    optimizer = TPSGD(model, seed=7, weight_decay=0.1)
    assert optimizer.step(X, Y) is not None
    assert changed(model, before) == {"0", "4"}
    assert optimizer.losses.keys() == {"0", "4"}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_of_a_block_in_part_frozen_the_rest_learns_as_ever(momentum: float) -> None:
    model, whole = network(), network()
    model[2].weight.requires_grad_(False)
    before = copied(model)
    TPSGD(model, seed=7, momentum=momentum).step(X, Y)
    TPSGD(whole, seed=7, momentum=momentum).step(X, Y)
    assert torch.equal(model[2].weight, before["2.weight"])
    torch.testing.assert_close(model[2].bias, whole[2].bias)
    torch.testing.assert_close(model[0].weight, whole[0].weight)
    assert not torch.equal(model[2].bias, before["2.bias"])


def test_nothing_is_left_behind() -> None:
    _, blocks, _ = generic_cases()["batch norm"]
    model = chained([*blocks[:-1], [nn.Linear(8, 3), nn.Softplus()]])
    x, y = torch.randn(6, 5, requires_grad=True), torch.tensor([0, 1, 2, 0, 1, 2])
    graphs = lambda: sum(issubclass(type(o), Tensor) and o.grad_fn is not None for o in gc.get_objects())  # noqa: E731
    optimizer, before = TPSGD(model, seed=7, momentum=0.9), graphs()
    for trained in (None, [0], [1]):
        optimizer.step(x, y, blocks=trained)
        assert graphs() == before
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert not any(value.requires_grad for value in optimizer.losses.values())
    assert x.grad is None
    assert torch.is_grad_enabled()


def test_what_it_is_given_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 3))
    x, y, weights = X.clone(), Y.clone(), torch.rand(5)
    kept = weights.clone()
    TPSGD(model, seed=7).step(x, y, weights=weights)
    assert torch.equal(x, X)
    assert torch.equal(y, Y)
    assert torch.equal(weights, kept)


def peak_bytes(depth: int) -> int:
    """The most memory that one step holds at a time, beyond what was there before it."""
    model = nn.Sequential(
        *(layer for _ in range(depth) for layer in (nn.Linear(128, 128), nn.Tanh())), nn.Linear(128, 4)
    )
    optimizer = TPSGD(model, seed=7)
    x, y = torch.randn(64, 128), torch.randint(4, (64,))
    optimizer.step(x, y)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        optimizer.step(x, y)
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def test_memory_does_not_grow_with_depth() -> None:
    shallow, deep = peak_bytes(8), peak_bytes(32)
    assert deep <= 1.1 * shallow


def test_parameter_groups_are_the_blocks() -> None:
    model = network()
    optimizer = TPSGD(model, seed=7, lr=0.5)
    assert [group["name"] for group in optimizer.param_groups] == ["0", "2", "4"]
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2, 2]
    assert "name: 2" in repr(optimizer)
    optimizer.param_groups[1]["lr"] = 0.0
    before = copied(model)
    optimizer.step(X, Y)
    assert changed(model, before) == {"0", "4"}


def test_each_block_may_learn_in_its_own_way() -> None:
    blocks = dense([4, 8, 6, 3], ["tanh", "relu"], dtype=torch.float32)
    model = chained(blocks)
    optimizer, reference = TPSGD(model, seed=7), Reference(blocks)
    for group, sgd, lr, momentum, decay in zip(
        optimizer.param_groups, reference.sgd, (0.5, 1.0, 2.0), (0.9, 0.0, 0.5), (0.0, 0.1, 0.2), strict=True
    ):
        own = {"lr": lr, "momentum": momentum, "weight_decay": decay}
        group.update(own)
        sgd.param_groups[0].update(own)
    for _ in range(3):
        optimizer.step(X, Y)
        reference.step(X, Y)
    assert_same(model, reference)


def test_pytorchs_schedulers_drive_it() -> None:
    blocks = dense([4, 8, 3], ["tanh"], dtype=torch.float32)
    model = chained(blocks)
    optimizer, reference = TPSGD(model, seed=7, momentum=0.9), Reference(blocks, momentum=0.9)
    optimizers = [optimizer, *reference.sgd]
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(o, max_lr=2.0, total_steps=6) for o in optimizers]
    rates = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a scheduler warns if it does not see the optimizer's steps
        for _ in range(5):
            optimizer.step(X, Y)
            reference.step(X, Y)
            for scheduler in schedulers:
                scheduler.step()
            rates.add(optimizer.param_groups[1]["lr"])
    assert len(rates) == 5
    assert_same(model, reference)


def test_its_state_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    model = network()
    optimizer = TPSGD(model, seed=7, momentum=0.9, weight_decay=0.01)
    optimizer.step(X, Y)
    optimizer.param_groups[0]["lr"] = 0.25
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "saved.pt")
    optimizer.step(X, Y)

    saved = torch.load(tmp_path / "saved.pt")
    resumed = network()
    other = TPSGD(resumed, seed=7)
    resumed.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    assert [group["lr"] for group in other.param_groups] == [0.25, 1.0, 1.0]
    other.step(X, Y)
    assert not changed(model, resumed.state_dict())


@pytest.mark.parametrize(
    "copy_of", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
def test_copies_go_their_own_way(copy_of: Callable[[Any], Any]) -> None:
    model = network()
    optimizer = TPSGD(model, seed=7, momentum=0.9)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.step(X, Y)
    twin, other = copy_of((model, optimizer))
    assert other.digest() == optimizer.digest()
    before = copied(model)
    other.step(X, Y)
    assert not changed(model, before)
    assert changed(twin, before) == {"0", "2", "4"}
    optimizer.step(X, Y)
    assert not changed(twin, model.state_dict())


def test_it_takes_no_other_parameters() -> None:
    optimizer = TPSGD(network(), seed=7)
    with pytest.raises(ModelError, match="one parameter group each"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    assert len(optimizer.param_groups) == 3
    optimizer.zero_grad()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr must be a number that is not negative, got -1.0"),
        ({"lr": math.nan}, "lr must be"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"weight_decay": math.inf}, "weight_decay must be"),
        ({"loss": "hing"}, "no loss called 'hing'"),
        ({"space": "output"}, "no space called 'output'"),
        ({"space": "target"}, "compares with labels"),
        ({"projection": "ternary"}, "projection kind is 'ternary'"),
        ({"classes": ["a", "b"]}, "The last block has 3 outputs, but 2 classes were named."),
        ({"classes": ["a", "b", "a"]}, "twice"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TPSGD(network(), **{"seed": 7, **settings})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(4, 3), "A model is an nn.Sequential"),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "no parameters"),
        (nn.Sequential(nn.Linear(4, 3), nn.Conv1d(1, 1, 1)), "Block '1' is a Conv1d"),
        (nn.Sequential(nn.Flatten(), nn.Conv1d(1, 3, 3)), "the last block must be"),
    ],
)
def test_models_that_cannot_be(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?i){message}"):
        TPSGD(model, seed=7)


HOLED = torch.where(torch.arange(20).reshape(5, 4) == 7, torch.nan, X)


@pytest.mark.parametrize(
    ("x", "y", "more"),
    [
        (HOLED, Y, {}),
        (HOLED, Y, {"blocks": [1]}),
        (HOLED, Y, {"weights": torch.tensor([1.0, 0, 1, 1, 1])}),
        (X / 0, Y, {}),
        (X[:, :3], Y, {}),
        (X.double(), Y, {}),
        (X[:, None], Y, {}),
        (X[:4], Y, {}),
        (X[:0], Y[:0], {}),
        (X, Y + 1, {}),
        (X, Y - 1, {}),
        (X, Y.float(), {}),
        (X, Y, {"blocks": [0, 3]}),
        (X, Y, {"blocks": ["0", "1"]}),
        (X, Y, {"weights": -torch.ones(5)}),
        (X, Y, {"weights": torch.ones(4)}),
    ],
)
def test_what_cannot_be_learnt_from_changes_nothing(x: Tensor, y: Tensor, more: dict[str, Any]) -> None:
    model = network()
    before = copied(model)
    optimizer = TPSGD(model, seed=7, momentum=0.9)
    with pytest.raises(ModelError):
        optimizer.step(x, y, **more)
    assert not changed(model, before)
    assert not optimizer.state


def test_a_tail_that_loses_classes_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.MaxPool1d(2))
    before = copied(model)
    with pytest.raises(ModelError, match="one number per class, 6, got 3"):
        TPSGD(model, seed=7).step(X, Y)
    assert not changed(model, before)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(7, 3)), id="linear"),
        pytest.param(nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 3, 4)), id="kernel"),
        pytest.param(nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (4, 2)), nn.Linear(2, 3)), id="unflatten"),
        pytest.param(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(5), nn.Linear(6, 3)), id="norm"),
        pytest.param(nn.Sequential(nn.Linear(4, 6), nn.Bilinear(6, 6, 3), nn.Linear(3, 3)), id="two inputs"),
    ],
)
def test_layers_that_do_not_fit_are_found_before_any_learns(model: nn.Sequential) -> None:
    before = copied(model)
    with pytest.raises(ModelError):
        TPSGD(model, seed=7).step(X, Y)
    assert not changed(model, before)
    assert model.training


def test_inputs_of_another_width_draw_another_projection() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.LazyLinear(3))
    model(torch.zeros(1, 1, 6))
    optimizer = TPSGD(model, seed=7)
    for width in (6, 9):
        optimizer.step(torch.randn(2, 1, width), torch.tensor([0, 1]), blocks=[0])


def test_it_learns_digits_at_its_defaults() -> None:
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.Tanh(), nn.Linear(100, 10))
    optimizer = TPSGD(model, seed=7)
    for _ in range(10):
        for some in torch.randperm(1500).split(10):
            optimizer.step(x[some], y[some])
    with torch.no_grad():
        assert (model(x[1500:]).argmax(1) == y[1500:]).float().mean() > 0.88


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("devices", [0, 2])
def test_other_kinds_of_numbers(dtype: torch.dtype, devices: int) -> None:
    model = network().to(dtype)
    x, y = X.to(dtype), Y
    if devices:
        model, x, y = stack(model, devices), x.expand(devices, -1, -1), y.expand(devices, -1)
    optimizer = TPSGD(model, seed=7, momentum=0.5)
    losses = [optimizer.step(x, y) for _ in range(30)]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1].dtype == dtype
    assert (losses[-1] < 0.7 * losses[0]).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("readout", ["fixed", "learnt"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        pytest.param(lambda: cnn((1, 8, 8), [4], 3), (9, 1, 8, 8), id="convolutions"),
        pytest.param(lambda: recurrent(5, 8, 3), (9, 20, 5), id="gru"),
        pytest.param(lambda: recurrent(5, 8, 3, cell="lstm"), (9, 20, 5), id="lstm"),
    ],
)
def test_other_layers_learn_in_other_kinds_of_numbers(
    make: Callable[[], nn.Sequential], shape: tuple[int, ...], readout: Any, dtype: torch.dtype
) -> None:
    model = make().to(dtype)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = torch.arange(9) % 3
    optimizer = TPSGD(model, seed=7, lr=0.2, momentum=0.9, readout=readout)
    losses = [optimizer.step(x, y) for _ in range(60)]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1].dtype == dtype
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.dtype == dtype for p in model.parameters())


def test_the_digest_tells_projections_apart() -> None:
    def digest(model: nn.Module | None = None, **settings: Any) -> str:
        return TPSGD(model or network(), **{"seed": 7, **settings}).digest()

    other = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 3))
    assert digest() == digest(lr=0.1, loss="squared", space="target", momentum=0.9)
    assert digest() == digest(stack(network(), 2))
    different = [digest(), digest(seed=8), digest(projection="sign"), digest(other), digest(classes=["a", "b", "c"])]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("batch", [64, 65])  # in NumPy, and in PyTorch
def test_a_bias_goes_no_further_than_the_curvature_allows(batch: int) -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    nn.init.zeros_(model[0].bias)
    optimizer = TPSGD(model, seed=7)
    optimizer.step(torch.zeros(batch, 4), torch.zeros(batch, dtype=torch.long))
    # The samples' errors of 1/2 add up to batch / 2, held back by batch / 8.
    torch.testing.assert_close(model[0].bias.detach(), torch.tensor([4.0, -4.0]))
