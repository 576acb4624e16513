from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtp.errors import ModelError
from fedtp.losses import LOSSES, Absolute, Cosine, CrossEntropy, Custom, Huber, Squared, as_loss


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(LOSSES)), st.integers(0, 2**32), st.sampled_from([(5, 3), (1, 1), (2, 4, 3)]))
def test_error_is_minus_the_derivative(name: str, seed: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(shape, generator=generator, dtype=torch.float64)
    if name == "cross_entropy":
        target = target.softmax(-1)
    if name in ("binary_cross_entropy", "hinge"):
        target = target.sigmoid().round()
    loss = as_loss(name, "label")
    value = loss.value(output, target)
    (gradient,) = torch.autograd.grad(value.sum(), output)
    before = output.detach().clone()
    same, error = loss.value_and_error(output.detach(), target)
    assert value.shape == shape[:-1]
    torch.testing.assert_close(same, value.detach())
    torch.testing.assert_close(error, -gradient)
    assert torch.equal(output.detach(), before)


def test_values_by_hand() -> None:
    output, target = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 1.0]])
    assert as_loss("squared", "label").value(output, target).item() == pytest.approx(5.0)
    assert as_loss("absolute", "label").value(output, target).item() == pytest.approx(4.0)
    # softmax of (1, -2) gives the second class 1 / (1 + e³)
    assert as_loss("cross_entropy", "label").value(output, target).item() == pytest.approx(3.048587)


def test_cross_entropy_is_pytorchs_and_does_not_overflow() -> None:
    output, y = torch.tensor([[1e4, -1e4, 0.0], [0.1, 0.2, 0.3]]), torch.tensor([0, 2])
    value, error = as_loss("cross-entropy", "label").value_and_error(output, torch.eye(3)[y])
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(output, y, reduction="none"))
    assert error.isfinite().all()


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        (
            "hing",
            "label",
            "There is no loss called 'hing'; choose one of squared, absolute, huber",
        ),
        ("squared", "output", "There is no space called 'output'; choose label or target."),
        ("cross-entropy", "target", "The cross-entropy loss compares with labels"),
    ],
)
def test_unknown_choices_are_named(name: str, space: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        as_loss(name, space)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, [1.0, 0.0, 2.5]])
def test_cross_entropys_weights_and_smoothing_are_pytorchs(smoothing: float, weight: list[float] | None) -> None:
    output = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 2, 2, 1, 0, 2])
    weights = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    pytorchs = torch.nn.CrossEntropyLoss(weights, label_smoothing=smoothing, reduction="none")(output, y)
    (gradient,) = torch.autograd.grad(pytorchs.sum(), output)
    loss = CrossEntropy(weight, smoothing)
    target = torch.eye(3, dtype=torch.float64)[y]
    torch.testing.assert_close(loss.value(output, target), pytorchs)
    torch.testing.assert_close(loss.value_and_error(output.detach(), target), (pytorchs.detach(), -gradient))


@settings(max_examples=30, deadline=None)
@given(
    pair=st.sampled_from(
        [
            (torch.nn.MSELoss(reduction="sum"), Squared(), 2.0),
            (torch.nn.L1Loss(reduction="sum"), Absolute(), 1.0),
            (torch.nn.HuberLoss(reduction="sum", delta=0.5), Huber(0.5), 1.0),
            (lambda a, t: 1 - torch.cosine_similarity(a, t).sum(), Cosine(), 1.0),
            (lambda a, t: torch.nn.functional.cross_entropy(a, t.softmax(-1)), None, 1.0),
        ]
    ),
    shape=st.sampled_from([(1, 2), (5, 3), (2, 4, 3)]),
)
def test_any_function_will_do(pair: tuple[Any, Any, float], shape: tuple[int, ...]) -> None:
    function, built_in, factor = pair
    generator = torch.Generator().manual_seed(1)
    output, target = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    value, error = as_loss(function, "target").value_and_error(output, target)
    if built_in is None:
        built_in, target = CrossEntropy(), target.softmax(-1)
    wanted, direction = built_in.value_and_error(output, target)
    torch.testing.assert_close((value, error), (factor * wanted, factor * direction))


def test_a_zero_vector_has_no_direction() -> None:
    value, error = Cosine().value_and_error(torch.zeros(1, 3), torch.ones(1, 3))
    assert (value.item(), error.abs().sum().item()) == (1.0, 0.0)
    value, error = Cosine().value_and_error(torch.ones(1, 3), torch.zeros(1, 3))
    assert (value.item(), error.abs().sum().item()) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Huber(0.0), "a distance above 0, got delta=0.0"),
        (lambda: CrossEntropy(label_smoothing=1.5), "a share from 0 to 1, got 1.5"),
        (lambda: CrossEntropy([1.0, -1.0]), "one number per class, from 0 up"),
        (lambda: CrossEntropy([1.0, 1.0]).value(torch.zeros(1, 3), torch.zeros(1, 3)), "2 class weights for 3 classes"),
        (lambda: as_loss(3, "label"), "A loss is a name"),  # type: ignore[arg-type]
        (lambda: Custom(lambda a, t: a).value(torch.zeros(2, 3), torch.zeros(2, 3)), "one number for a sample"),
        (lambda: as_loss(CrossEntropy(), "target"), "The CrossEntropy loss compares with labels"),
    ],
)
def test_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()
