"""Backpropagation with SGD, behind the interface of `fedtp.TPSGD`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fedtp.blocks import Chain
from fedtp.losses import Loss, loss_named


class Backprop(torch.optim.SGD):
    """The yardstick: the same network, the same batches, one loss at the end and its gradient everywhere.

    Parameters
    ----------
    model
        The network; a stack of devices (`fedtp.cohort.stack`) works alike.
    lr, momentum, weight_decay
        As in ``torch.optim.SGD``; one parameter group per block.
    loss
        ``"cross_entropy"``, ``"squared"`` or ``"absolute"``, between the model's output and the label.

    Attributes
    ----------
    losses
        The latest loss, under the last block's name.
    output
        What the model answered for the latest batch, before it learnt from it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.1,
        loss: str = "cross_entropy",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.chain = Chain(model)
        self.loss: Loss = loss_named(loss, "label")
        self.losses: dict[str, Tensor] = {}
        self.output: Tensor | None = None
        super().__init__(
            [{"params": block.parameters, "name": block.name} for block in self.chain],
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
        )

    def step(  # type: ignore[override]
        self, x: Tensor, y: Tensor, *, blocks: Iterable[int | str] | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """Learn from one batch; the parameters are those of `fedtp.TPSGD.step`.

        Returns
        -------
        Tensor
            The loss before the update, ``[]`` or ``[devices]``.
        """
        wanted = self.chain.positions(blocks)
        target = self.chain.targets(x, y)
        with torch.enable_grad():
            output = self.chain.forward(x)
            value = self.loss.value(output, target)
            if weights is None:
                loss = value.mean(-1)
            else:
                loss = (value * weights).sum(-1) / weights.sum(-1)
            # Devices of a stack share no parameter, so the gradient of the sum is each device's own.
            gradients = torch.autograd.grad(loss.sum(), [p for block in self.chain for p in block.parameters])
        remaining = iter(gradients)
        for position, block in enumerate(self.chain):
            for parameter in block.parameters:
                gradient = next(remaining)
                parameter.grad = gradient if position in wanted else None
        super().step()
        self.zero_grad(set_to_none=True)
        self.output = output.detach()
        self.losses = {self.chain.blocks[-1].name: loss.detach()}
        return loss.detach()
