"""Normalisation layers: the statistics follow the batch, the affine parts learn with the block they stand in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedtp.errors import ModelError
from fedtp.rules.base import Rule
from fedtp.rules.tail import Tail

aten: Any = torch.ops.aten


class Norm(Tail):
    """``a = w ẑ + b``, with ``ẑ`` normalised as the kind says; without affine parts ``a = ẑ``."""

    normalizes = True

    def apply(self, z: Tensor) -> Tensor:  # noqa: D102
        return self._scaled(self.unit(z)[0])

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, tuple[Tensor, Any]]:  # noqa: D102
        unit, kept = self.unit(z)
        return self._scaled(unit), (unit, kept)

    @property
    def keeps_output(self) -> bool:  # type: ignore[override]
        """Without affine parts the output is what is kept."""
        return not self.parameters

    def backward(self, error: Tensor, saved: tuple[Tensor, Any]) -> Tensor:  # noqa: D102
        if self.parameters:
            error.mul_(self.spread(self.parameters[0], error.dim()))
        return self.unit_backward(error, saved[1])

    def learn(self, into: Sequence[Tensor], saved: tuple[Tensor, Any], error: Tensor, keep: float) -> Tensor:
        """Add ``Σ error ẑ`` to the scale, ``Σ error`` to the shift."""
        directions = [error * saved[0], error]
        descents = [d.sum_to_size(self.spread(t, error.dim()).shape) for d, t in zip(directions, into, strict=False)]
        back = self.backward(error, saved)
        for target, descent in zip(into, descents, strict=True):
            _add(target, descent, keep)
        return back

    def _scaled(self, unit: Tensor) -> Tensor:
        if not self.parameters:
            return unit
        scale, *shift = (self.spread(p, unit.dim()) for p in self.parameters)
        return torch.addcmul(shift[0], unit, scale) if shift else unit * scale

    @abstractmethod
    def unit(self, z: Tensor) -> tuple[Tensor, Any]:
        """Return the normalised input, and what `unit_backward` will need."""

    @abstractmethod
    def unit_backward(self, error: Tensor, kept: Any) -> Tensor:
        """Return the error at the input, given the one at the normalised input."""

    def spread(self, parameter: Tensor, axes: int) -> Tensor:
        """Return an affine part, ``[channels]`` or ``[devices, channels]``, shaped to meet a batch of so many axes."""
        lead = [self.devices, 1] if self.devices else []
        return parameter.view(*lead, -1, *[1] * (axes - 2 - bool(self.devices)))


class BatchNorm(Tail):
    """Each channel over the batch; in evaluation mode by the running statistics. Each device of a stack by its own.

    ``a = w ẑ + b``, or ``ẑ`` without affine parts.
    """

    normalizes = True

    def apply(self, z: Tensor) -> Tensor:  # noqa: D102
        return self.forward(z, spare=False)[0]

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, tuple[Any, ...]]:  # noqa: D102
        norm = self.layer
        channels = z.shape[2 if self.devices else 1]
        if channels != norm.num_features:  # the kernel itself would read past the end of its statistics
            raise ModelError(f"{type(norm).__name__} of {norm.num_features} channels got an input of {channels}.")
        z = self._channels(z)
        statistics = [None if r is None else r.view(-1) for r in (norm.running_mean, norm.running_var)]
        training = norm.training or statistics[0] is None
        if training and z.numel() == z.shape[1]:
            raise ModelError(
                f"{type(norm).__name__} needs more than one value per channel to learn from, got one: "
                "give it larger batches, or use nn.GroupNorm or nn.LayerNorm."
            )
        rate = norm.momentum
        if norm.training and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            rate = 1.0 / float(norm.num_batches_tracked.max()) if rate is None else rate
        affine = self._affine()
        a, *of_batch = aten.native_batch_norm(
            z, *affine, *statistics, training, 0.0 if rate is None else rate, norm.eps
        )
        return self._restored(a), (z, affine[0], *statistics, *of_batch, training)

    def backward(self, error: Tensor, saved: tuple[Any, ...]) -> Tensor:  # noqa: D102
        return self._back(error, saved, learns=False)[0]

    def learn(self, into: Sequence[Tensor], saved: tuple[Any, ...], error: Tensor, keep: float) -> Tensor:
        """Add ``Σ error ẑ`` to the scale, ``Σ error`` to the shift."""
        back, *descents = self._back(error, saved, learns=True)
        for target, descent in zip(into, descents, strict=True):
            _add(target, descent, keep)
        return back

    def _affine(self) -> list[Tensor | None]:
        return [p.view(-1) for p in self.parameters] or [None, None]

    def _back(self, error: Tensor, saved: tuple[Any, ...], *, learns: bool) -> list[Tensor]:
        *kept, training = saved
        back, *descents = aten.native_batch_norm_backward(
            self._channels(error), *kept, training, self.layer.eps, [True, learns, learns]
        )
        return [self._restored(back), *descents]

    def _channels(self, z: Tensor) -> Tensor:
        """Return a batch with the devices' channels side by side."""
        return z.transpose(0, 1).flatten(1, 2) if self.devices else z

    def _restored(self, z: Tensor) -> Tensor:
        return z.unflatten(1, (self.devices, -1)).transpose(0, 1) if self.devices else z


class LayerNorm(Norm):
    """Each sample over its last axes."""

    def unit(self, z: Tensor) -> tuple[Tensor, Any]:  # noqa: D102
        unit, mean, deviation = aten.native_layer_norm(z, self.layer.normalized_shape, None, None, self.layer.eps)
        return unit, (z, mean, deviation)

    def unit_backward(self, error: Tensor, kept: Any) -> Tensor:  # noqa: D102
        z, mean, deviation = kept
        backward, shape = aten.native_layer_norm_backward, self.layer.normalized_shape
        at_input, *_ = backward(error.contiguous(), z, shape, mean, deviation, None, None, [True, False, False])
        return at_input  # type: ignore[no-any-return]

    def spread(self, parameter: Tensor, axes: int) -> Tensor:  # noqa: D102
        if not self.devices:
            return parameter
        shape = self.layer.normalized_shape
        return parameter.view(self.devices, *[1] * (axes - 1 - len(shape)), *shape)


class GroupNorm(Norm):
    """Each sample over groups of channels and all positions."""

    def unit(self, z: Tensor) -> tuple[Tensor, Any]:  # noqa: D102
        folded = self.fold(z).contiguous()
        batch, channels, *positions = folded.shape
        sizes = batch, channels, torch.Size(positions).numel(), self.layer.num_groups
        unit, mean, deviation = aten.native_group_norm(folded, None, None, *sizes, self.layer.eps)
        return self.unfold(unit), (folded, mean, deviation, sizes)

    def unit_backward(self, error: Tensor, kept: Any) -> Tensor:  # noqa: D102
        z, mean, deviation, sizes = kept
        backward = aten.native_group_norm_backward
        at_input, *_ = backward(self.fold(error).contiguous(), z, mean, deviation, None, *sizes, [True, False, False])
        return self.unfold(at_input)


class NormRule(Rule):
    """A normalisation that a model begins with: a block of its own, which learns its affine parts."""

    batches_devices = True

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.tail = TAILS[type(layer)](layer)
        axes = len(layer.normalized_shape) if isinstance(layer, nn.LayerNorm) else 1
        self.devices = len(self.parameters[0]) if self.parameters[0].dim() > axes else 0
        self.tail.devices = self.devices

    def apply(self, x: Tensor) -> Tensor:
        """Normalise ``[batch, ...]`` or ``[devices, batch, ...]``."""
        return self.tail.apply(x)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """Normalise; the update will need what the normalisation saved."""
        a, saved = self.tail.forward(x, spare=False)
        return a, (x, saved)

    def accumulate(self, into: Sequence[Tensor], saved: Any, error: Tensor, keep: float) -> None:
        """Add the affine parts' directions."""
        self.tail.learn(into, saved[1], error, keep)

    def inputs(self, saved: Any) -> tuple[Tensor, float]:
        """Return ones: an affine part sees one number of unit variance per channel."""
        x, _ = saved
        return x.new_ones(*x.shape[: 2 if self.devices else 1], 1), 1.0

    def forward_flops(self, x: Tensor) -> int:
        """Count four operations per number: two passes for the statistics, a product and a sum."""
        return 4 * x.shape[2 if self.devices else 1 :].numel()


def _add(target: Tensor, descent: Tensor, keep: float) -> None:
    if keep != 1.0:
        target.mul_(keep)
    target.add_(descent.view_as(target))


TAILS: dict[type[nn.Module], type[Tail]] = {
    nn.BatchNorm1d: BatchNorm,
    nn.BatchNorm2d: BatchNorm,
    nn.BatchNorm3d: BatchNorm,
    nn.LayerNorm: LayerNorm,
    nn.GroupNorm: GroupNorm,
}
