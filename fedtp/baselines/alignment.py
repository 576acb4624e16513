"""Feedback alignment: backpropagation whose errors return through fixed random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedtp.baselines.backprop import Backprop
from fedtp.blocks import Block
from fedtp.errors import ModelError
from fedtp.losses import Loss, LossFunction
from fedtp.projection import Projection
from fedtp.rules import ConvRule, LinearRule, RecurrentRule

aten: Any = torch.ops.aten


class FeedbackAlignment(Backprop):
    """FA, behind the interface of `fedtp.TPSGD`: each layer's error returns through ``B`` instead of its weights.

    ``B`` has the shape of the weights, is fixed, normal, with variance ``2 / fan-in``. Recurrent networks are trained
    through time, their errors returning through ``B`` at every step.

    Source: Lillicrap, Cownden, Tweed, Akerman, *Random synaptic feedback weights support error backpropagation for deep
    learning*, Nature Communications 7 (2016), eq. 2.

    Parameters
    ----------
    model
        The network: ``nn.Linear``, convolutions and `fedtp.Recurrent` layers, and layers without parameters or
        normalisations between them.
    seed
        Of the feedback weights.
    lr, loss, momentum, weight_decay
        As for `fedtp.baselines.Backprop`.

    Raises
    ------
    ModelError
        If the model has other layers, or is a stack of devices.
    """

    own = (*Backprop.own, "_projection")

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int = 0,
        lr: float = 0.1,
        loss: str | Loss | LossFunction = "cross_entropy",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(model, lr=lr, loss=loss, momentum=momentum, weight_decay=weight_decay)
        if self.chain.devices:
            raise ModelError("Feedback alignment trains one device's model, not a stack of devices.")
        self._projection = Projection(seed, classes=1)
        for block in self.chain:
            block.rule = _aligned(block, self._projection)

    def digest(self, like: Tensor | None = None) -> str:
        """Return a hash of the feedback weights that all who learn together must share."""
        drawn = {
            _name(block, i): matrix.numel() for block in self.chain for i, matrix in enumerate(self.feedback(block))
        }
        return self._projection.digest(drawn)

    def feedback(self, block: Block) -> list[Tensor]:
        """Return the feedback weights of a block's matrices."""
        return list(block.rule.feedback) if isinstance(block.rule, Aligned) else []

    def answer(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the model's output; the way back is through the feedback weights."""
        visit = lambda position, x: self.chain.blocks[position].apply(x)  # noqa: E731
        return self.chain.traverse(self.chain.enter(x), lengths, visit)


def _aligned(block: Block, projection: Projection) -> Aligned:
    """Return a block's rule with feedback weights for the way back."""
    match block.rule:
        case LinearRule():
            rule: Aligned = AlignedLinear(block.rule.layer)
        case ConvRule():
            rule = AlignedConv(block.rule.layer)
        case RecurrentRule() as recurrent:
            rule = AlignedRecurrent(recurrent.recurrent, recurrent.index)
        case other:
            raise ModelError(
                f"Block {block.name!r} is a {type(other.layer).__name__}; feedback alignment knows nn.Linear, "
                "convolutions and fedtp.Recurrent."
            )
    weights = [p for p in rule.parameters if p.dim() > 1]
    rule.feedback = [_drawn(_name(block, i), weight, projection) for i, weight in enumerate(weights)]
    return rule


def _name(block: Block, matrix: int) -> str:
    return f"{block.name} {matrix}"


def _drawn(name: str, weight: Tensor, projection: Projection) -> Tensor:
    fan_in = weight[0].numel()
    drawn = torch.tensor(projection.rows(name, weight.numel())) * math.sqrt(2 / fan_in)
    return drawn.view_as(weight).to(weight)


class AlignedLinear(LinearRule):
    """``x Wᵀ + b`` forward, ``error B`` back."""

    feedback: Sequence[Tensor]

    def apply(self, x: Tensor) -> Tensor:
        """Compute the output."""
        weight, *bias = self.parameters
        z: Tensor = _Affine.apply(x, weight, self.feedback[0], *bias)
        return z


class AlignedRecurrent(RecurrentRule):
    """A recurrent layer whose errors return through feedback weights, from gate to input and from step to step."""

    feedback: Sequence[Tensor]

    def affine(self, x: Tensor, weight: Tensor, bias: Sequence[Tensor]) -> Tensor:
        """Compute ``x Wᵀ + b``."""
        feedback = self.feedback[0 if weight is self.parameters[0] else 1]
        z: Tensor = _Affine.apply(x, weight, feedback, *bias)
        return z


class AlignedConv(ConvRule):
    """A convolution whose errors return through that with the feedback weights."""

    feedback: Sequence[Tensor]

    def convolve(self, x: Tensor) -> Tensor:
        """Convolve a padded input."""
        weight, *bias = self.parameters
        form = (self.conv.stride, self.padding, self.conv.dilation, False, [0] * self.spatial, self.groups)
        z: Tensor = _Convolution.apply(x, weight, self.feedback[0], bias[0] if bias else None, form)
        return z


Aligned = AlignedLinear | AlignedConv | AlignedRecurrent


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, feedback: Tensor, bias: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(x, feedback)
        ctx.biased = bias is not None
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        x, feedback = ctx.saved_tensors
        back = error @ feedback if ctx.needs_input_grad[0] else None
        gradients = (back, error.mT @ x, None)
        return (*gradients, error.sum(0)) if ctx.biased else gradients


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, feedback: Tensor, bias: Tensor | None, form: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, feedback)
        ctx.form, ctx.bias = form, None if bias is None else list(bias.shape)
        z: Tensor = aten.convolution(x, weight, bias, *form)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        # A convolution's derivative by its input needs the weights alone, that by its weights the input alone.
        x, feedback = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], True, ctx.bias is not None]
        at_x, at_weight, at_bias = aten.convolution_backward(error, x, feedback, ctx.bias, *ctx.form, wanted)
        return at_x, at_weight, None, at_bias, None
