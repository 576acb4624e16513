"""What the optimizers that train block by block have in common: their parameter groups, and SGD's step."""

from __future__ import annotations

import inspect
import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedtp.blocks import Chain
from fedtp.descent import Descent, Summed
from fedtp.errors import ModelError
from fedtp.losses import Loss, LossFunction, Space, as_loss

# Without the decorator, which imports PyTorch's compiler, in half a second, to hide the call from it.
_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)


class BlockSGD(torch.optim.Optimizer):
    """SGD with one parameter group per block of a model, each changed in place as soon as its descent is known.

    Parameters
    ----------
    model
        An ``nn.Sequential``, or a stack of devices (`fedtp.cohort.stack`).
    lr, momentum, weight_decay
        As in ``torch.optim.SGD``, for every block unless its parameter group says otherwise.
    loss
        A name, a `fedtp.losses.Loss`, or any function ``loss(output, target)``.
    space
        Where hidden blocks compare.

    Attributes
    ----------
    chain
        The model's blocks.
    losses
        The latest loss of every block that was trained by one, by name, ``[]`` or ``[devices]``.
    output
        What the model answered for the latest batch, before it learnt from it; None if the sweep stopped early.

    Raises
    ------
    ModelError
        If the model cannot be split into blocks, a number is out of range, or the loss does not fit the space.
    """

    #: Attributes that copies and pickles hold beside those of every optimizer.
    own: ClassVar[tuple[str, ...]] = ("chain", "loss", "losses", "output")

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        loss: str | Loss | LossFunction,
        space: Space,
        momentum: float,
        weight_decay: float,
    ) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not (math.isfinite(value) and value >= 0):
                raise ModelError(f"{name} must be a number that is not negative, got {value!r}.")
        self.chain = Chain(model)
        self.loss: Loss = as_loss(loss, space)
        self.losses: dict[str, Tensor] = {}
        self.output: Tensor | None = None
        super().__init__(
            [{"params": block.parameters, "name": block.name} for block in self.chain],
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add the group of a block; the constructor does so for every block, and there is nothing else to learn.

        Raises
        ------
        ModelError
            If every block has its group.
        """
        if len(self.param_groups) == len(self.chain):
            raise ModelError(
                f"{type(self).__name__} trains the blocks of its model, one parameter group each, and takes no others."
            )
        _add_param_group(self, param_group)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {name: getattr(self, name) for name in self.own}

    def _descend(self, position: int, descent: Descent | Summed, scale: float | Tensor) -> None:
        """Change parameters of a block, as far as `scale` says: a number, or ``[devices]``."""
        group = self.param_groups[position]
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        if not momentum:
            descent.into(descent.parameters, scale * lr, 1.0 - lr * decay)
            return
        buffers = [self._memory(position, parameter) for parameter in descent.parameters]
        descent.into(buffers, scale, momentum)
        for parameter, buffer in zip(descent.parameters, buffers, strict=True):
            if decay:
                buffer.sub_(parameter, alpha=decay)
            parameter.add_(buffer, alpha=lr)

    def _memory(self, position: int, learning: Tensor) -> Tensor:
        """Return the momentum of what a block learns."""
        return self._momentum(learning)

    def _momentum(self, parameter: Tensor) -> Tensor:
        return self._kept(parameter, "momentum_buffer", parameter)

    def _kept(self, parameter: Tensor, name: str, like: Tensor) -> Tensor:
        """Return what the optimizer keeps with a parameter under a name, zeros at first."""
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(like)
        kept: Tensor = state[name]
        return kept
