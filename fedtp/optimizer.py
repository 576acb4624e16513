"""tpSGD: every block learns from a loss of its own, during the forward pass.

Source: Lomnitz, Daniels, Zhang, Piacentino, *Learning with Local Gradients at the Edge*, arXiv 2208.08503.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fedtp.blocks import Block, Chain
from fedtp.errors import ModelError
from fedtp.losses import Loss, Space, loss_named
from fedtp.projection import Kind, Projection


class TPSGD(torch.optim.Optimizer):
    """Target projection SGD for an ``nn.Sequential`` of ordinary layers.

    `step` makes one forward sweep over a batch. As soon as a block's output ``a`` is known, the block is
    compared with the label by its own loss and updated; nothing is carried back to earlier blocks. With a fixed
    random projection ``P`` (classes × features, drawn from `seed` and the block's name) and labels ``y*`` (one-hot),

    - in *label space* the loss is ``ℓ(a Pᵀ / √features, y*)``,
    - in *target space* (the paper's form) it is ``ℓ(a, y* P)``,

    and for the last block ``ℓ(a, y*)``: it learns the task itself.

    Parameters
    ----------
    model
        The network; its parameters are updated in place. A stack of devices (`fedtp.cohort.stack`) works alike.
    seed
        Of the projections. Devices that learn together share it.
    lr
        Learning rate, for every block unless its parameter group says otherwise.
    loss
        ``"cross_entropy"``, ``"squared"`` or ``"absolute"``.
    space
        ``"label"`` or ``"target"``.
    projection
        How projections are drawn: ``"normal"``, ``"uniform"``, ``"sign"`` or ``"orthogonal"``.
    momentum, weight_decay
        As in ``torch.optim.SGD``.
    normalize
        Divide each block's step by one plus the mean squared norm of its input, as normalised LMS does (the one is
        the bias's input), so that one learning rate serves every width and scale.
    classes
        The keys of the classes, in the order of the last block's outputs; their indices by default.

    Attributes
    ----------
    losses
        The latest loss of every block by name, ``[]`` or ``[devices]``; blocks that were not trained are absent.
    output
        What the model answered for the latest batch, before it learnt from it; None if the sweep stopped early.

    Raises
    ------
    ModelError
        If the model cannot be split into blocks, or the loss does not fit the space.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    >>> optimizer = TPSGD(model, seed=7)
    >>> x = torch.randn(256, 2)
    >>> y = (x[:, 0] * x[:, 1] > 0).long()
    >>> for _ in range(300):
    ...     loss = optimizer.step(x, y)
    >>> bool((model(x).argmax(1) == y).float().mean() > 0.95)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int,
        lr: float = 1.0,
        loss: str = "cross_entropy",
        space: Space = "label",
        projection: Kind = "normal",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        normalize: bool = True,
        classes: Collection[int | str] | None = None,
    ) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not (math.isfinite(value) and value >= 0):
                raise ModelError(f"{name} must be a number that is not negative, got {value!r}.")
        self.chain = Chain(model)
        self.loss: Loss = loss_named(loss, space)
        self.space = space
        self.normalize = normalize
        outputs = self.chain.blocks[-1].outputs
        if classes is not None and len(classes) != outputs:
            raise ModelError(f"The last block has {outputs} outputs, but {len(classes)} classes were named.")
        self.projection = Projection(seed, kind=projection, classes=outputs if classes is None else list(classes))
        self.losses: dict[str, Tensor] = {}
        self.output: Tensor | None = None
        self._readouts: dict[str, Tensor] = {}
        super().__init__(
            [{"params": block.parameters, "name": block.name} for block in self.chain],
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        )

    def digest(self) -> str:
        """Return a hash of the projections that all who learn together must share."""
        widths = {block.name: block.outputs for block in self.chain.blocks[:-1]}
        return self.projection.digest(widths)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, x: Tensor, y: Tensor, *, blocks: Iterable[int | str] | None = None, weights: Tensor | None = None
    ) -> Tensor | None:
        """Learn from one batch in one forward sweep.

        Parameters
        ----------
        x
            Inputs, ``[batch, ...]``, or ``[devices, batch, ...]`` for a stack of devices.
        y
            Class indices, ``[batch]`` or ``[devices, batch]``.
        blocks
            Positions or names of the blocks to train; all by default. The sweep stops after the last of them.
        weights
            Weight of each sample, shaped as `y`; equal by default.

        Returns
        -------
        Tensor | None
            The last block's loss, ``[]`` or ``[devices]``, before the update; None if the sweep stopped before it.

        Raises
        ------
        ModelError
            If the batch does not fit the model, a label is out of range, or the input is not finite. No weight
            has changed then.
        """
        wanted = self.chain.positions(blocks)
        target = self.chain.targets(x, y)
        if weights is not None:
            weights = weights / weights.sum(-1, keepdim=True)
        x = self.chain.enter(x)
        self.losses, self.output = {}, None
        for position, block in enumerate(self.chain.blocks[: max(wanted, default=-1) + 1]):
            inputs = x
            x, saved = block.forward(inputs)
            if position == len(self.chain) - 1:
                self.output = x
            if position in wanted:
                self._learn(position, inputs, x, saved, target, weights)
        return self.losses.get(self.chain.blocks[-1].name)

    def _learn(
        self, position: int, x: Tensor, a: Tensor, saved: list[Any], target: Tensor, weights: Tensor | None
    ) -> None:
        block = self.chain.blocks[position]
        group = self.param_groups[position]
        value, error = self._compare(block, a, target, last=position == len(self.chain) - 1)
        squared_norm = block.rule.squared_norm(x) if self.normalize or position == 0 else None
        if weights is None:
            value = value.mean(-1)
            mean_norm = None if squared_norm is None else squared_norm.mean(-1)
            scale: float | Tensor = 1.0 / target.shape[-2]
        else:
            value = (value * weights).sum(-1)
            mean_norm = None if squared_norm is None else (squared_norm * weights).sum(-1)
            scale = weights.unsqueeze(-1)
        if position == 0 and mean_norm is not None and not bool(mean_norm.isfinite().all()):
            raise ModelError("The input holds NaN or infinity; clean it before learning from it.")
        if self.normalize and mean_norm is not None:
            divisor = 1.0 + mean_norm
            scale = scale / (divisor[..., None, None] if divisor.dim() else divisor)
        momentum, lr, decay = group["momentum"], group["lr"], group["weight_decay"]
        error.mul_(scale if momentum else scale * lr)
        error = block.backward(error.view_as(a), saved)
        self.losses[block.name] = value
        parameters = block.parameters
        if not momentum:
            block.rule.accumulate(parameters, x, error, 1.0 - lr * decay)
            return
        buffers = [self._momentum(p) for p in parameters]
        block.rule.accumulate(buffers, x, error, momentum)
        for parameter, buffer in zip(parameters, buffers, strict=True):
            if decay:
                buffer.sub_(parameter, alpha=decay)
            parameter.add_(buffer, alpha=lr)

    def _compare(self, block: Block, a: Tensor, target: Tensor, *, last: bool) -> tuple[Tensor, Tensor]:
        """Loss of each sample, and the error at the block's output, ``[..., batch, features]``."""
        a = a.flatten(target.dim() - 1)
        if last:
            return self.loss.value_and_error(a, target)
        readout = self._readout(block, a)
        if self.space == "target":
            return self.loss.value_and_error(a, target @ readout)
        value, error = self.loss.value_and_error(a @ readout.mT, target)
        return value, error @ readout

    def _readout(self, block: Block, a: Tensor) -> Tensor:
        """The block's projection ``[classes, features]``; in label space divided by ``√features``."""
        readout = self._readouts.get(block.name)
        if readout is None or readout.device != a.device or readout.dtype != a.dtype:
            rows = torch.tensor(self.projection.rows(block.name, a.shape[-1]), device=a.device, dtype=torch.float64)
            if self.space == "label":
                rows = rows / math.sqrt(a.shape[-1])
            readout = self._readouts[block.name] = rows.to(a.dtype)
        return readout

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
