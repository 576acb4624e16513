"""Direct feedback: hidden blocks get their errors from the output or the label, through random matrices."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fedtp.block_sgd import BlockSGD
from fedtp.blocks import Block
from fedtp.errors import ModelError
from fedtp.losses import Loss, LossFunction
from fedtp.projection import Projection
from fedtp.sequences import real_steps

Method = Literal["dfa", "sdfa", "drtp", "last"]


class DirectFeedback(BlockSGD):
    """DFA, sDFA, DRTP, and training of the last block alone, behind the interface of `fedtp.TPSGD`.

    Hidden blocks move along ``e B``, where ``B`` (classes × features) is fixed and random, and ``e`` is

    - for ``"dfa"`` the error at the model's output (Nøkland, *Direct Feedback Alignment Provides
      Learning in Deep Neural Networks*, arXiv 1609.01596, eq. 7),
    - for ``"sdfa"`` its sign (Frenkel, Lefebvre, Bol, *Learning without feedback*, arXiv 1909.01311, table 1),
    - for ``"drtp"`` the label itself (the same, eq. 3), so that a block updates in the forward pass,
    - for ``"last"`` nothing: hidden blocks stay as they were initialised.

    ``B`` is normal with variance ``2 / features``. It reaches a block at its output, over the full map of a
    convolution, and over all time steps of a recurrent layer, whose state enters each step as a constant.

    Parameters
    ----------
    model
        The network; a stack of devices works alike.
    method
        ``"dfa"``, ``"sdfa"``, ``"drtp"`` or ``"last"``.
    seed
        Of the feedback matrices.
    lr, loss, momentum, weight_decay
        As for `fedtp.TPSGD`; the step is not normalised.
    """

    own = (*BlockSGD.own, "method", "projection", "_feedback")

    def __init__(
        self,
        model: nn.Module,
        *,
        method: Method,
        seed: int = 0,
        lr: float = 0.1,
        loss: str | Loss | LossFunction = "cross_entropy",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        if method not in get_args(Method):
            raise ModelError(f"There is no method {method!r}; choose one of {', '.join(get_args(Method))}.")
        super().__init__(model, lr=lr, loss=loss, space="label", momentum=momentum, weight_decay=weight_decay)
        self.method = method
        self.projection = Projection(seed, classes=self.chain.blocks[-1].outputs)
        self._feedback: dict[str, Tensor] = {}

    def digest(self, like: Tensor | None = None) -> str:
        """Return a hash of the feedback matrices that all who learn together must share.

        Parameters
        ----------
        like
            An input of the model, ``[batch, ...]``; needed where the widths of the blocks depend on the input's.
        """
        if self.method == "last":
            return ""
        return self.projection.digest(self.chain.widths(like, lambda a: a[0].numel()))

    def feedback(self, block: Block) -> list[Tensor]:
        """Return the feedback matrix of a block, in a list; none before the first step, and of the last."""
        return [self._feedback[block.name]] if block.name in self._feedback else []

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
        x, target, weights = self.chain.prepare(x, y, weights, self.loss)
        last = len(self.chain) - 1
        waiting: list[tuple[int, Tensor, list[Any]]] = []

        def visit(position: int, x: Tensor) -> Tensor:
            a, saved = self.chain.blocks[position].forward(x)
            if position not in wanted:
                return a
            if position == last or self.method in ("dfa", "sdfa"):
                waiting.append((position, a, saved))
            elif self.method == "drtp":
                self._teach(position, a, saved, target, weights, lengths)
            return a

        self.output = self.chain.traverse(x, lengths, visit)
        value, error = self.loss.value_and_error(self.output.flatten(target.dim() - 1), target)
        if last in wanted:
            self._teach(last, *waiting.pop()[1:], error, weights, lengths)
        for position, a, saved in waiting:
            self._teach(position, a, saved, error.sign() if self.method == "sdfa" else error, weights, lengths)
        loss = value.mean(-1) if weights is None else torch.linalg.vecdot(value, weights)
        self.losses = {self.chain.blocks[-1].name: loss}
        return loss

    def _teach(
        self,
        position: int,
        a: Tensor,
        saved: list[Any],
        error: Tensor,
        weights: Tensor | None,
        lengths: Tensor | None,
    ) -> None:
        """Let a block follow an error, ``[..., batch, classes]``, fed back to its output `a`."""
        block = self.chain.blocks[position]
        axes = error.dim() - 1
        shares = error.new_full(error.shape[:-1], 1 / error.shape[-2]) if weights is None else weights
        error = error * shares.unsqueeze(-1)
        if a.shape[axes - 1] != error.shape[axes - 1]:  # every time step gets its part, and padding none
            real = real_steps(lengths, a.unflatten(axes - 1, (error.shape[axes - 1], -1)), axes)
            parts = real / real.sum(-1, keepdim=True)
            error = (error.unsqueeze(-2) * parts.unsqueeze(-1)).flatten(axes - 1, axes)
        if position < len(self.chain) - 1:
            error = error @ self._feedback_to(block, a, axes)
        descent = block.descent(saved, error.view_as(a))
        self._descend(position, descent, 1.0)

    def _feedback_to(self, block: Block, a: Tensor, axes: int) -> Tensor:
        """Return the feedback matrix of a block, ``[classes, features]``."""
        features = a.shape[axes:].numel()
        matrix = self._feedback.get(block.name)
        if matrix is None or (matrix.shape[-1], matrix.dtype, matrix.device) != (features, a.dtype, a.device):
            rows = torch.tensor(self.projection.rows(block.name, features), dtype=torch.float64)
            matrix = self._feedback[block.name] = (rows * math.sqrt(2 / features)).to(a.device, a.dtype)
        return matrix
