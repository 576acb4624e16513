"""Sequences on their way through a model, a chunk of time steps at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtp.blocks import Block, Chain
from fedtp.errors import ModelError
from fedtp.losses import Loss

#: Time steps that are alive at a time. Longer chunks have fewer and larger products; memory grows with them.
CHUNK = 16


@dataclass(frozen=True)
class Chunk:
    """A few time steps of a batch of sequences.

    Parameters
    ----------
    x
        ``[..., batch, steps, ...]``.
    target
        ``[..., batch * steps, classes]``, as all that blocks of every time step put out.
    shares
        What each of these counts for, ``[..., batch * steps]``: over the whole sequences they sum to one.
    first
        Number of its first time step.
    """

    x: Tensor
    target: Tensor
    shares: Tensor
    first: int
    steps: int


class Sequences:
    """A batch of sequences, checked, with their labels and weights spread over the time steps.

    Parameters
    ----------
    chain
        The model that learns from them.
    loss
        What compares.
    x, y, weights, lengths
        As `fedtp.TPSGD.step` takes them.

    Raises
    ------
    ModelError
        If they do not belong together, or one of them holds what cannot be learnt from.
    """

    def __init__(
        self, chain: Chain, loss: Loss, x: Tensor, y: Tensor, weights: Tensor | None, lengths: Tensor | None
    ) -> None:
        self.axes = axes = 2 if chain.devices else 1
        if x.dim() <= axes:
            raise ModelError(f"Sequences are [batch, time, ...]; got an input of shape {tuple(x.shape)}.")
        form = x.shape[: axes + 1]
        whole = form[:-1]
        per_step = y.shape[: axes + 1] == form and (y.dim() > axes + 1 or y.shape[axes] != chain.blocks[-1].outputs)
        self.x, target, _ = chain.prepare(x, y, None, loss, axes=axes + 1 if per_step else axes)
        real = real_steps(lengths, x, axes)
        last = real.sum(-1) - 1
        if weights is None:
            weights = real / real.sum()
        elif weights.shape == whole:
            weights = weights.unsqueeze(-1) * real / real.sum(-1, keepdim=True)
        elif weights.shape == form:
            weights = weights * real
        else:
            raise ModelError(
                f"Weights of sequences have the shape {tuple(whole)} or, for every time step, {tuple(form)}; "
                f"got {tuple(weights.shape)}."
            )
        weights = weights.to(target.dtype)
        total = weights.sum((-2, -1), keepdim=True)
        if not ((weights >= 0) & (total > 0) & total.isfinite()).all():
            raise ModelError("Weights are numbers from 0 up, not all 0 over a batch.")
        self.shares = weights / total
        self.last_shares = self.shares.sum(-1)
        if per_step:
            self._target = target
            index = last[..., None, None].expand(*whole, 1, target.shape[-1])
            self.last_target = target.gather(axes, index).squeeze(axes)
        else:
            self._target = target.unsqueeze(-2).expand(*form, -1)
            self.last_target = target
        self._last = last
        self._kept: list[Tensor] = []

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks, first to last."""
        for x, target, shares, first in zip(
            self.x.split(CHUNK, self.axes),
            self._target.split(CHUNK, self.axes),
            self.shares.split(CHUNK, self.axes),
            range(0, self.x.shape[self.axes], CHUNK),
            strict=True,
        ):
            over = self.axes - 1, self.axes
            yield Chunk(x, target.flatten(*over), shares.flatten(*over), first, x.shape[self.axes])

    def enter(self, block: Block, a: Tensor, chunk: Chunk) -> Tensor:
        """Return a chunk as a block takes it: a recurrent one needs its time axis, others take every step alone."""
        flat = a is not chunk.x
        if block.recurrent:
            return a.unflatten(self.axes - 1, (-1, chunk.steps)) if flat else a
        return a if flat else a.flatten(self.axes - 1, self.axes)

    def keep(self, chunk: Chunk, a: Tensor, *, all_steps: bool) -> None:
        """Keep of what a chunk gave, ``[..., batch * steps, ...]``, all or what is each sequence's last step."""
        a = a.unflatten(self.axes - 1, (-1, chunk.steps))
        if all_steps:
            self._kept.append(a)
            return
        here = self._last - chunk.first
        index = here.clamp(0, chunk.steps - 1)[..., None, None].expand(*here.shape, 1, a.shape[-1])
        picked = a.gather(self.axes, index).squeeze(self.axes)
        ends = ((here >= 0) & (here < chunk.steps)).unsqueeze(-1)
        self._kept = [torch.where(ends, picked, self._kept[0]) if self._kept else picked]

    def kept(self) -> Tensor:
        """Return what was kept: ``[..., batch, time, ...]`` or ``[..., batch, ...]``."""
        return self._kept[0] if len(self._kept) == 1 else torch.cat(self._kept, self.axes)


def real_steps(lengths: Tensor | None, x: Tensor, axes: int) -> Tensor:
    """Return which time steps are no padding, ``[..., batch, time]``.

    Parameters
    ----------
    lengths
        How many of each sequence are not; None: all.
    x
        The sequences, ``[..., batch, time, ...]``.
    axes
        The position of the time axis.

    Raises
    ------
    ModelError
        If the lengths are not those of such sequences.
    """
    steps = x.shape[axes]
    if lengths is None:
        return torch.ones(x.shape[: axes + 1], dtype=torch.bool, device=x.device)
    lengths = lengths.to(x.device)
    if lengths.shape != x.shape[:axes] or lengths.is_floating_point() or not ((lengths > 0) & (lengths <= steps)).all():
        raise ModelError(
            f"Lengths are whole numbers from 1 to the {steps} time steps of the batch, "
            f"of shape {tuple(x.shape[:axes])}; got {lengths.dtype} of shape {tuple(lengths.shape)}."
        )
    return torch.arange(steps, device=x.device) < lengths.unsqueeze(-1)
