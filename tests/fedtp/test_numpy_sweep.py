"""NumPy's sweep against PyTorch's, which test_optimizer.py holds to autograd."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.cohort import stack
from fedtp.losses import CrossEntropy, Loss
from fedtp.numpy_sweep import NumpySweep

ACTIVATIONS: list[Callable[[], nn.Module]] = [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Identity, lambda: nn.ReLU(inplace=True)]


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o, bias=bias), activation())]
    return nn.Sequential(*layers[:-1])


class InNumpy:
    """A model, and NumPy's sweep over it without PyTorch's to fall back on."""

    def __init__(self, optimizer: TPSGD) -> None:
        self.optimizer = optimizer
        self.sweep = NumpySweep(
            optimizer.chain,
            optimizer.loss,
            readout=optimizer._fixed_readout,
            momentum=optimizer._momentum,
            target_space=optimizer.space == "target",
            normalize=optimizer.normalize,
        )

    @property
    def model(self) -> nn.Module:
        return self.optimizer.chain.model

    def step(
        self, x: Tensor, y: Tensor, blocks: list[int] | None = None
    ) -> tuple[dict[str, Tensor], Tensor | None] | None:
        chain = self.optimizer.chain
        return self.sweep.step(x, y, self.optimizer.param_groups, chain.positions(blocks))


def in_pytorch(optimizer: TPSGD, x: Tensor, y: Tensor, blocks: list[int] | None = None) -> None:
    optimizer.step(x, y, blocks=blocks, weights=torch.ones(len(x)))  # weighted samples are never NumPy's


def assert_same(numpy: InNumpy, other: TPSGD) -> None:
    for p, q in zip(numpy.model.parameters(), other.chain.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def assert_learns_as_pytorch(numpy: InNumpy, other: TPSGD, x: Tensor, y: Tensor, blocks: list[int] | None) -> None:
    answer = numpy.step(x, y, blocks)
    in_pytorch(other, x, y, blocks)
    assert answer is not None
    torch.testing.assert_close(answer[0], other.losses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer[1], other.output, rtol=1e-4, atol=1e-5)
    assert_same(numpy, other)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_learns_what_pytorch_learns(data: st.DataObject) -> None:
    draw = data.draw
    widths = draw(st.lists(st.integers(1, 12), min_size=2, max_size=4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    model = mlp(*widths, activation=draw(st.sampled_from(ACTIVATIONS)), bias=draw(st.booleans())).to(dtype)
    stem = draw(st.booleans())
    if stem:
        model = nn.Sequential(nn.Flatten(), *model)
    loss, space = draw(st.sampled_from([("cross_entropy", "label"), ("squared", "label"), ("squared", "target")]))
    arguments = {
        "loss": loss,
        "space": space,
        "seed": 7,
        "lr": 0.1,
        "momentum": draw(st.sampled_from([0.0, 0.5])),
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "normalize": draw(st.booleans()),
    }
    other = TPSGD(copy.deepcopy(model), **arguments)  # type: ignore[arg-type]
    numpy = InNumpy(TPSGD(model, **arguments))  # type: ignore[arg-type]
    numbers = loss == "squared" and draw(st.booleans())
    blocks = draw(st.none() | st.lists(st.integers(0, len(widths) - 2), min_size=1, unique=True))
    for step in range(3):
        size = draw(st.integers(1, 20))
        # Samples around a point of their own: where they point the same way, their steps are held back.
        x = torch.randn(size, widths[0], dtype=dtype) + draw(st.sampled_from([0.0, 2.0]))
        y = torch.randn(size, widths[-1], dtype=dtype) if numbers else torch.randint(widths[-1], (size,))
        for optimizer in (numpy.optimizer, other):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        assert_learns_as_pytorch(numpy, other, x.unsqueeze(1) if stem else x, y, blocks)


def pair(**arguments: object) -> tuple[InNumpy, TPSGD]:
    model = mlp(4, 6, 3)
    numpy = InNumpy(TPSGD(model, seed=7, lr=0.1, **arguments))  # type: ignore[arg-type]
    return numpy, TPSGD(copy.deepcopy(model), seed=7, lr=0.1, **arguments)  # type: ignore[arg-type]


def load(model: nn.Module) -> None:
    model.load_state_dict({name: value * 2 for name, value in model.state_dict().items()})


def assign(model: nn.Module) -> None:
    for p in model.parameters():
        p.data = p.data * 2


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("change", [load, assign, lambda model: model.double()])
def test_follows_parameters_that_change_their_place(change: Callable[[nn.Module], object], momentum: float) -> None:
    numpy, other = pair(momentum=momentum)
    x, y = torch.randn(1, 4), torch.tensor([2])
    assert_learns_as_pytorch(numpy, other, x, y, None)
    for optimizer in (numpy.optimizer, other):
        change(optimizer.chain.model)
        optimizer.load_state_dict(optimizer.state_dict())  # casts the momentum to the parameters' type
    x = x.to(next(numpy.model.parameters()).dtype)
    assert_learns_as_pytorch(numpy, other, x, y, None)


def test_trades_steps_with_pytorch() -> None:
    numpy, other = pair(momentum=0.9)
    for step in range(6):
        x, y = torch.randn(2, 4), torch.tensor([2, 0])
        if step % 2:
            in_pytorch(numpy.optimizer, x, y)
        else:
            assert numpy.step(x, y)
        in_pytorch(other, x, y)
    assert_same(numpy, other)


def test_passes_through_a_frozen_block() -> None:
    numpy, other = pair()
    for model in (numpy.model, other.chain.model):
        for parameter in model[0].parameters():  # type: ignore[index]
            parameter.requires_grad_(False)
    assert_learns_as_pytorch(numpy, other, torch.randn(1, 4), torch.tensor([1]), None)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        pytest.param(torch.full((1, 4), torch.nan), torch.tensor([1]), id="NaN"),
        pytest.param(torch.full((1, 4), torch.inf), torch.tensor([1]), id="infinity"),
        pytest.param(torch.zeros(1, 5), torch.tensor([1]), id="too wide"),
        pytest.param(torch.zeros(4), torch.tensor([1]), id="no batch axis"),
        pytest.param(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), id="no samples"),
        pytest.param(torch.zeros(0, 4), torch.tensor([1]), id="a label of no sample"),
        pytest.param(torch.zeros(2, 4), torch.tensor([1]), id="too few labels"),
        pytest.param(torch.zeros(1, 4), torch.tensor([3]), id="label out of range"),
        pytest.param(torch.zeros(2, 4), torch.tensor([0, -1]), id="label below 0"),
        pytest.param(torch.zeros(1, 4), torch.tensor([True]), id="boolean"),
        pytest.param(torch.zeros(1, 4), torch.tensor([1.0]), id="number for a class"),
        pytest.param(torch.zeros(1, 4).double(), torch.tensor([1]), id="another dtype"),
        pytest.param(torch.zeros(1, 4).bfloat16(), torch.tensor([1]), id="bfloat16"),
        pytest.param(torch.zeros(1, 4, requires_grad=True), torch.tensor([1]), id="part of a graph"),
        pytest.param(torch.zeros(65, 4), torch.zeros(65, dtype=torch.long), id="large"),
    ],
)
def test_leaves_what_is_not_ordinary_to_pytorch(x: Tensor, y: Tensor) -> None:
    numpy, untouched = pair()
    assert numpy.step(x, y) is None
    assert all(map(torch.equal, numpy.model.parameters(), untouched.chain.model.parameters()))


def test_leaves_layers_that_do_not_fit_each_other_to_pytorch() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(7, 3))
    before = copy.deepcopy(model)
    assert InNumpy(TPSGD(model, seed=7)).step(torch.zeros(1, 4), torch.tensor([1])) is None
    assert all(map(torch.equal, model.parameters(), before.parameters()))


def hooked() -> nn.Sequential:
    model = mlp(4, 6, 3)
    model[0].register_forward_hook(lambda *_: None)
    return model


def half_frozen() -> nn.Sequential:
    model = mlp(4, 6, 3)
    model[0].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        pytest.param(mlp(4, 6, 3, activation=nn.GELU), "squared", id="activation"),
        pytest.param(mlp(4, 6, 3, activation=nn.Dropout), "squared", id="dropout"),
        pytest.param(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)), "squared", id="norm"),
        pytest.param(nn.Sequential(nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(6, 3)), "squared", id="convolution"),
        pytest.param(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Tanh(), nn.Linear(6, 3)), "squared", id="two"),
        pytest.param(stack(mlp(4, 6, 3), 2), "squared", id="devices"),
        pytest.param(hooked(), "squared", id="hook"),
        pytest.param(half_frozen(), "squared", id="half frozen"),
        pytest.param(mlp(4, 6, 3), "huber", id="loss"),
        pytest.param(mlp(4, 6, 3), CrossEntropy(label_smoothing=0.1), id="smoothed"),
        pytest.param(mlp(4, 6, 3), CrossEntropy(weight=[1.0, 2.0, 1.0]), id="weighted"),
    ],
)
def test_says_which_models_and_losses_it_does_not_fit(model: nn.Module, loss: str | Loss) -> None:
    optimizer = TPSGD(model, seed=7, loss=loss)
    assert not NumpySweep.fits(optimizer.chain, optimizer.loss)


def test_autograd_notices_the_change() -> None:
    numpy, _ = pair()
    x, y = torch.randn(1, 4), torch.tensor([1])
    loss = nn.functional.cross_entropy(numpy.model(x), y)
    assert numpy.step(x, y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_it_returned_stays_as_it_was() -> None:
    numpy, _ = pair()
    first = numpy.step(torch.randn(1, 4), torch.tensor([1]))
    assert first is not None
    kept = copy.deepcopy(first)
    numpy.step(torch.randn(1, 4), torch.tensor([2]))
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


def test_diverges_in_silence_as_pytorch_does() -> None:
    numpy = InNumpy(TPSGD(mlp(4, 6, 3), seed=7, lr=1e30, normalize=False, loss="squared"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            assert numpy.step(torch.randn(2, 4), torch.tensor([1, 2]))
    assert not all(p.isfinite().all() for p in numpy.model.parameters())


def spied(optimizer: TPSGD, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each step of an optimizer was NumPy's, as it goes on."""
    taken: list[bool] = []
    assert optimizer._numpy is not None
    ask = optimizer._numpy.step

    def step(*arguments: Any) -> Any:
        answer = ask(*arguments)
        taken.append(answer is not None)
        return answer

    monkeypatch.setattr(optimizer._numpy, "step", step)
    return taken


def test_the_optimizer_takes_the_short_way_with_few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy, other = pair(momentum=0.9)
    taken = spied(numpy.optimizer, monkeypatch)
    for samples in (1, 3, NumpySweep.largest + 1, 2):
        x, y = torch.randn(samples, 4), torch.randint(3, (samples,))
        torch.testing.assert_close(numpy.optimizer.step(x, y), other.step(x, y, weights=torch.ones(samples)))
        torch.testing.assert_close(numpy.optimizer.losses, other.losses)
    assert_same(numpy, other)
    assert taken == [True, True, False, True]


def test_hooks_and_schedulers_are_heard() -> None:
    optimizer = TPSGD(mlp(4, 5, 3), seed=7)
    model = optimizer.chain.model
    x, y = torch.randn(1, 4), torch.tensor([1])
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


def test_copies_learn_apart() -> None:
    model = mlp(4, 5, 3)
    optimizer = TPSGD(model, seed=7, momentum=0.9)
    x, y = torch.randn(1, 4), torch.tensor([1])
    optimizer.step(x, y)
    twin, other = pickle.loads(pickle.dumps((model, optimizer)))
    before = copy.deepcopy(model.state_dict())
    other.step(x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(torch.equal(value, before[name]) for name, value in twin.state_dict().items())
    optimizer.step(x, y)
    torch.testing.assert_close(dict(twin.state_dict()), dict(model.state_dict()))


def test_large_products_have_as_many_threads_as_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = TPSGD(mlp(300, 1000, 3), seed=7)
    seen: list[set[int]] = []
    assert optimizer._numpy is not None
    optimizer.step(torch.randn(1, 300), torch.tensor([1]))
    model = optimizer._numpy._model
    assert model is not None
    ask = model.step

    def step(*arguments: Any) -> Any:
        seen.append({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
        return ask(*arguments)

    monkeypatch.setattr(model, "step", step)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        optimizer.step(torch.randn(8, 300), torch.tensor([1] * 8))
    finally:
        torch.set_num_threads(threads)
    assert seen == [{1}]
