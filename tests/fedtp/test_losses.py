import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtp.errors import ModelError
from fedtp.losses import LOSSES, as_loss


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(LOSSES)), st.integers(0, 2**32), st.sampled_from([(5, 3), (1, 1), (2, 4, 3)]))
def test_error_is_minus_the_derivative(name: str, seed: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(shape, generator=generator, dtype=torch.float64)
    if name == "cross_entropy":
        target = target.softmax(-1)
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
