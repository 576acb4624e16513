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

    - in *label space* the loss is ``ℓ(γ a Pᵀ / √features, y*)``, with γ = 3 for cross-entropy and 1 otherwise,
    - in *target space* (the paper's form) it is ``ℓ(a, y* P)``,

    and for the last block ``ℓ(a, y*)``: it learns the task itself.

    Parameters
    ----------
    model
        The network; its parameters are updated in place. A block with a parameter that asks for no gradient is
        passed through and stays as it is. A stack of devices (`fedtp.cohort.stack`) works alike.
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
        the bias's input), and add up the steps of a batch's samples instead of averaging them: a batch moves a block
        as far as its samples would one by one, and one learning rate serves every width, scale and batch size. Where
        many samples point the same way their sum would overshoot; there the step is divided by the loss's curvature
        times the squared spectral norm of the batch, if that is larger.
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
    >>> bool((model(x).argmax(1) == y).float().mean() > 0.9)
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

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add the group of a block; the constructor does so for every block, and there is nothing else to learn.

        Raises
        ------
        ModelError
            If every block has its group.
        """
        if len(self.param_groups) == len(self.chain):
            raise ModelError("TPSGD trains the blocks of its model, one parameter group each, and takes no others.")
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        # PyTorch copies and pickles only what every optimizer has.
        own = "chain", "loss", "space", "normalize", "projection", "losses", "output", "_readouts"
        return super().__getstate__() | {name: getattr(self, name) for name in own}

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
            Weight of each sample, shaped as `y`, not negative; equal by default. A sample of weight 0 is as if it
            were not there.

        Returns
        -------
        Tensor | None
            The last block's loss, ``[]`` or ``[devices]``, before the update; None if the sweep stopped before it.

        Raises
        ------
        ModelError
            If there is no such block, inputs, labels and weights do not belong together, a label is out of range,
            or the input is not finite. No weight has changed then. (A layer that does not fit the one before it
            is found when the sweep gets there.)
        """
        wanted = self.chain.positions(blocks)
        x, target, weights = self.chain.prepare(x, y, weights)
        self.losses, self.output = {}, None
        for position in range(max(wanted, default=-1) + 1):
            block = self.chain.blocks[position]
            x = self._learn(position, x, target, weights) if position in wanted else block.apply(x)
            if block is self.chain.blocks[-1]:
                self.output = x
        return self.losses.get(self.chain.blocks[-1].name)

    def _learn(self, position: int, x: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        """Update one block from its input, and return what it put out before."""
        block, group = self.chain.blocks[position], self.param_groups[position]
        parameters, lr, momentum, decay = (group[k] for k in ("params", "lr", "momentum", "weight_decay"))
        a, saved = block.forward(x)
        value, error = self._compare(block, a, target)
        scale = self._scale(block, x, target, weights)
        error.mul_(scale if momentum else scale * lr)
        if momentum:
            into = [self._momentum(parameter) for parameter in parameters]
            block.accumulate(into, saved, error.view_as(a), momentum)
            for parameter, buffer in zip(parameters, into, strict=True):
                if decay:
                    buffer.sub_(parameter, alpha=decay)
                parameter.add_(buffer, alpha=lr)
        else:
            block.accumulate(parameters, saved, error.view_as(a), 1.0 - lr * decay)
        self.losses[block.name] = value.mean(-1) if weights is None else torch.linalg.vecdot(value, weights)
        return a

    def _scale(self, block: Block, x: Tensor, target: Tensor, weights: Tensor | None) -> float | Tensor:
        """Return what each sample's error counts for: its share in the mean, or in the sum of normalised steps."""
        batch = target.shape[-2]
        if not self.normalize:
            return 1.0 / batch if weights is None else weights.unsqueeze(-1)
        norm = block.rule.mean_squared_norm(x, weights)
        # Kish's effective size of the batch: its number of samples where they count alike.
        size = x.new_tensor(batch) if weights is None else 1.0 / weights.square().sum(-1)
        if batch > 1:
            norm = torch.maximum(norm, self.loss.curvature * size * block.rule.spectral_norm(x, weights))
        # PyTorch takes ten times as long as Python to work with one number.
        divisor = 1.0 + (norm[:, None, None] if norm.dim() else norm.item())
        if weights is None:
            return 1.0 / divisor
        return weights.unsqueeze(-1) * (size[..., None, None] / divisor)

    def _compare(self, block: Block, a: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each sample, and the error at the block's output, ``[..., batch, features]``."""
        a = a.flatten(target.dim() - 1)
        if block is self.chain.blocks[-1]:
            if a.shape != target.shape:
                raise ModelError(f"The model must end in one number per class, {target.shape[-1]}, got {a.shape[-1]}.")
            return self.loss.value_and_error(a, target)
        readout = self._readout(block, a)
        if self.space == "target":
            return self.loss.value_and_error(a, target @ readout)
        value, error = self.loss.value_and_error(a @ readout.mT, target)
        return value, error @ readout

    def _readout(self, block: Block, a: Tensor) -> Tensor:
        """Return the block's projection ``[classes, features]``; in label space times ``gain / √features``."""
        readout = self._readouts.get(block.name)
        features = a.shape[-1]
        if readout is None or (readout.shape[-1], readout.dtype, readout.device) != (features, a.dtype, a.device):
            rows = torch.tensor(self.projection.rows(block.name, features), dtype=torch.float64)
            if self.space == "label":
                rows *= self.loss.gain / math.sqrt(features)
            readout = self._readouts[block.name] = rows.to(a.device, a.dtype)
        return readout

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
