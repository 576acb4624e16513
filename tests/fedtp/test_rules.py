"""Every closed form against autograd through the very layer that it stands for."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from fedtp.errors import ModelError
from fedtp.normalization import mean_squared_norm, spectral_norm
from fedtp.rules import GenericRule, GenericTail, LinearRule, rule_for, tail_for
from fedtp.rules.activation import TAILS

CLOSED_FORM = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.LeakyReLU(),
    nn.LeakyReLU(0.3),
    nn.ELU(),
    nn.ELU(0.5),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.SiLU(),
    nn.Identity(),
]
BY_AUTOGRAD = [nn.Softplus(), nn.Hardtanh(inplace=True), nn.LPPool1d(2, 2), nn.Softmax(-1)]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_known_activation_is_tested() -> None:
    assert {type(layer) for layer in CLOSED_FORM} == set(TAILS)


@pytest.mark.parametrize("layer", CLOSED_FORM + BY_AUTOGRAD, ids=repr)
def test_tail_passes_errors_as_autograd_does(layer: nn.Module) -> None:
    tail = tail_for(layer)
    assert isinstance(tail, GenericTail) == (layer in BY_AUTOGRAD)
    z = 3 * randn(4, 6)
    kept = z.clone()
    output, saved = tail.forward(z, spare=False)
    error = randn(*output.shape, seed=1)
    passed = tail.backward(error.clone(), saved)

    leaf = kept.clone().requires_grad_()
    expected = layer(leaf.clone())
    (gradient,) = torch.autograd.grad(expected, leaf, error)
    torch.testing.assert_close(output, expected.detach())
    torch.testing.assert_close(passed, gradient)
    assert torch.equal(z, kept), "what came in may be what another layer has saved"
    assert not output.requires_grad

    output, saved = tail.forward(kept.clone(), spare=True)
    torch.testing.assert_close(output, expected.detach())
    torch.testing.assert_close(tail.backward(error.clone(), saved), gradient)


def linear_reference(layer: nn.Module, x: Tensor, error: Tensor, keep: float) -> list[Tensor]:
    gradients = torch.autograd.grad(layer(x), list(layer.parameters()), error)
    return [keep * p.detach() + g for p, g in zip(layer.parameters(), gradients, strict=True)]


@settings(max_examples=40, deadline=None)
@given(
    inputs=st.integers(1, 6),
    outputs=st.integers(1, 6),
    batch=st.integers(1, 5),
    devices=st.integers(0, 3),
    bias=st.booleans(),
    keep=st.sampled_from([1.0, 0.9, 0.0]),
)
def test_linear_rule(inputs: int, outputs: int, batch: int, devices: int, bias: bool, keep: float) -> None:
    singles = [nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64) for _ in range(devices or 1)]
    layer = copy.deepcopy(singles[0])
    if devices:
        for name in dict(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(torch.stack([getattr(single, name) for single in singles]).detach()))
    x, error = randn(devices or 1, batch, inputs), randn(devices or 1, batch, outputs, seed=1)
    expected = [linear_reference(single, x[d], error[d], keep) for d, single in enumerate(singles)]

    rule = rule_for(layer)
    assert isinstance(rule, LinearRule)
    assert rule.devices == devices
    with torch.no_grad():
        z, saved = rule.forward(x if devices else x[0])
        rule.accumulate(rule.parameters, saved, error if devices else error[0], keep)
    outs = torch.stack([single(x[d]) for d, single in enumerate(singles)])
    torch.testing.assert_close(z, outs.detach() if devices else outs[0].detach())
    for parameter, *wanted in zip(rule.parameters, *expected, strict=True):
        torch.testing.assert_close(parameter.detach(), torch.stack(wanted) if devices else wanted[0])
    assert rule.forward_flops(x) == 2 * inputs * outputs

    weights = torch.rand(x.shape[:2], dtype=torch.float64) if devices else torch.rand(batch, dtype=torch.float64)
    norms = x.square().sum(-1)
    norms = norms if devices else norms[0]
    inputs, factor = rule.inputs(saved)
    assert factor == 1.0
    torch.testing.assert_close(mean_squared_norm(inputs, None), norms.mean(-1))
    torch.testing.assert_close(mean_squared_norm(inputs, weights), (norms * weights).sum(-1))


@pytest.mark.parametrize("x", [torch.zeros(2, 3), torch.zeros(4), torch.zeros(1, 2, 4), torch.zeros(2, 4).double()])
def test_linear_rule_names_an_input_that_does_not_fit(x: Tensor) -> None:
    with pytest.raises(ModelError, match=r"nn.Linear of torch.float32 with 4 inputs got an input of .* and shape"):
        rule_for(nn.Linear(4, 2)).apply(x)


def own() -> nn.Module:
    """A module of one's own, with a parameter that it does not use."""
    layer = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    layer.register_parameter("spare", nn.Parameter(torch.ones(2)))
    return layer


def pruned() -> nn.Module:
    """A layer whose weight a hook computes."""
    return prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=0.5)  # type: ignore[no-any-return, no-untyped-call]


def parametrized() -> nn.Module:
    return parametrizations.weight_norm(nn.Linear(4, 4))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().double()


@pytest.mark.parametrize("make", [own, pruned, parametrized])
def test_generic_rule(make: Callable[[], nn.Module]) -> None:
    layer, twin = seeded(make), seeded(make)
    x, error = randn(5, 4), randn(5, 4, seed=1)
    rule = rule_for(layer)
    assert isinstance(rule, GenericRule)
    with torch.no_grad():
        z, saved = rule.forward(x)
        rule.accumulate(rule.parameters, saved, error, 0.5)
    output = twin(x)
    gradients = torch.autograd.grad(output, list(twin.parameters()), error, allow_unused=True)
    torch.testing.assert_close(z, output.detach())
    for (name, parameter), old, g in zip(layer.named_parameters(), twin.parameters(), gradients, strict=True):
        expected = 0.5 * old.detach() + (0 if g is None else g)
        torch.testing.assert_close(parameter.detach(), expected, msg=name)


def test_the_norm_of_a_large_batch_fits_half_precision() -> None:
    x = torch.ones(200, 500, dtype=torch.float16)
    assert mean_squared_norm(x, None).item() == pytest.approx(500, rel=1e-2)


def test_a_layer_with_several_outputs_is_named() -> None:
    with pytest.raises(ModelError, match="A GRU puts out a tuple"):
        rule_for(nn.GRU(3, 3)).forward(torch.zeros(1, 2, 3))


def test_counting_work_leaves_statistics_alone() -> None:
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = copy.deepcopy(layer.state_dict())
    assert rule_for(layer).forward_flops(torch.randn(4, 3)) == 12
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.training


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 8), features=st.integers(1, 6), seed=st.integers(0, 1000))
def test_spectral_norm_is_the_largest_eigenvalue_from_below(batch: int, features: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, features, generator=generator, dtype=torch.float64)
    weights = torch.rand(batch, generator=generator, dtype=torch.float64)
    weights /= weights.sum()
    for shares in (None, weights):
        moment = x.T @ (x / batch if shares is None else shares[:, None] * x)
        largest = torch.linalg.eigvalsh(moment)[-1].item()
        found = spectral_norm(x, shares).item()
        assert found <= largest * (1 + 1e-9) or shares is not None
        mean = mean_squared_norm(x, shares).item()
        assert found <= mean * (1 + 1e-9) or shares is not None
        if batch == 1:
            assert found == pytest.approx(mean)


def test_spectral_norm_of_samples_that_point_the_same_way() -> None:
    x = torch.tensor([[3.0, 4.0]] * 5)
    assert spectral_norm(x, None).item() == pytest.approx(25)
    assert spectral_norm(x, torch.full((5,), 0.2)).item() == pytest.approx(25)
    assert spectral_norm(torch.zeros(5, 2), None).item() == 0
