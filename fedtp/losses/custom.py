"""Any function as a local loss."""

from __future__ import annotations

import torch
from torch import Tensor

from fedtp.errors import ModelError
from fedtp.losses.base import Loss, LossFunction


class Custom(Loss):
    """A function ``loss(output, target) -> number``, called for every sample by itself.

    Autograd derives it, by the output of the block alone. Both arguments are ``[1, features]``; the target holds zeros
    and ones where the labels are classes.

    Parameters
    ----------
    function
        It must be made of PyTorch's operations and draw nothing at random.

    >>> loss = Custom(torch.nn.functional.mse_loss)
    >>> value, error = loss.value_and_error(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2))
    >>> value.tolist(), error.tolist()
    ([0.5, 0.0], [[-1.0, -0.0], [-0.0, -0.0]])
    """

    def __init__(self, function: LossFunction) -> None:
        self.function = function

    def _of_sample(self, output: Tensor, target: Tensor) -> Tensor:
        value = self.function(output.unsqueeze(0), target.unsqueeze(0))
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(f"A loss function gives one number for a sample, got {got}.")
        return value.reshape(())

    def value(self, output: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        flat = torch.func.vmap(self._of_sample)(output.flatten(0, -2), target.flatten(0, -2))
        return flat.view(output.shape[:-1])

    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        with torch.enable_grad():
            output = output.detach().requires_grad_()
            value = self.value(output, target)
            (slope,) = torch.autograd.grad(value.sum(), output)
        return value.detach(), slope.neg()
