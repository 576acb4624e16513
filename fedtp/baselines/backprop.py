"""Backpropagation with SGD, behind the interface of `fedtp.TPSGD`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedtp.blocks import Block, Chain
from fedtp.losses import Loss, LossFunction, as_loss


class Backprop(torch.optim.SGD):
    """The yardstick: the same network, the same batches, one loss at the end and its gradient everywhere.

    Parameters
    ----------
    model
        The network; a stack of devices (`fedtp.cohort.stack`) works alike.
    lr, momentum, weight_decay
        As in ``torch.optim.SGD``; one parameter group per block.
    loss
        Between the model's output and the label: a name, a `fedtp.losses.Loss`, or any function.

    Attributes
    ----------
    losses
        The latest loss, under the last block's name.
    output
        What the model answered for the latest batch, before it learnt from it.
    """

    #: Attributes that copies and pickles hold beside those of every optimizer.
    own: ClassVar[tuple[str, ...]] = ("chain", "loss", "losses", "output")

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.1,
        loss: str | Loss | LossFunction = "cross_entropy",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.chain = Chain(model)
        self.loss: Loss = as_loss(loss, "label")
        self.losses: dict[str, Tensor] = {}
        self.output: Tensor | None = None
        super().__init__(
            [{"params": block.parameters, "name": block.name} for block in self.chain],
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
        )

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {name: getattr(self, name) for name in self.own}

    def digest(self, like: Tensor | None = None) -> str:
        """Return a hash of the feedback matrices that all who learn together must share: here there are none."""
        return ""

    def feedback(self, block: Block) -> list[Tensor]:
        """Return the matrices that a block's error comes through, beside its weights."""
        return []

    def answer(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the model's output; autograd can follow it."""
        return self.chain.forward(x, lengths)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        x: Tensor,
        y: Tensor,
        *,
        blocks: Iterable[int | str] | None = None,
        weights: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Learn from one batch; the parameters are those of `fedtp.TPSGD.step`.

        Returns
        -------
        Tensor
            The loss before the update, ``[]`` or ``[devices]``.

        Raises
        ------
        ModelError
            As `fedtp.TPSGD.step` does.
        """
        wanted = self.chain.positions(blocks)
        _, target, weights = self.chain.prepare(x, y, weights, self.loss)
        trained = [p for position in sorted(wanted) for p in self.chain.blocks[position].parameters]
        with torch.enable_grad():
            output = self.answer(x, lengths)
            value = self.loss.value(output.flatten(target.dim() - 1), target)
            loss = value.mean(-1) if weights is None else torch.linalg.vecdot(value, weights)
            # Devices of a stack share no parameter, so the gradient of the sum is each device's own.
            gradients = torch.autograd.grad(loss.sum(), trained, allow_unused=True) if trained else ()
        self.zero_grad()
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        super().step()
        self.zero_grad()
        self.output = output.detach()
        self.losses = {self.chain.blocks[-1].name: loss.detach()}
        return loss.detach()
