"""The interface of the layers that follow a block's first one, and how an error passes back through them.

Only the way from the block's output to its own layer is walked: no error ever crosses into another block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Tail(ABC):
    """A layer inside a block: its output, how an error at its output becomes one at its input, and what it learns.

    Parameters
    ----------
    layer
        The layer.

    Attributes
    ----------
    parameters
        The layer's own, in the order of its ``state_dict``; most have none.
    devices
        How many devices' copies its block holds, which lead every batch's axes; 0 for an ordinary model.
    """

    #: Whether the layer also works over a leading device axis.
    batches_devices = True
    #: Whether `backward` needs the output as `forward` returned it, so that the next layer may not overwrite it.
    keeps_output = False
    #: Whether the output is the same however large the input is.
    normalizes = False
    #: Whether the output may be the very input, so that it is kept by whoever keeps that.
    passes_on = False

    def __init__(self, layer: nn.Module) -> None:
        self.layer: Any = layer
        self.parameters: list[nn.Parameter] = list(layer.parameters())
        self.devices = 0

    def fold(self, z: Tensor) -> Tensor:
        """Return a batch with the devices of a stack one after the other, for a layer that minds no device axis."""
        return z.flatten(0, 1) if self.devices else z

    def unfold(self, z: Tensor) -> Tensor:
        """Undo `fold`."""
        return z.unflatten(0, (self.devices, -1)) if self.devices else z

    def apply(self, z: Tensor) -> Tensor:
        """Return the output, as a prediction computes it; autograd can follow it."""
        a: Tensor = self.layer(z)
        return a

    @abstractmethod
    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Any]:
        """Return the output and what the way back will need.

        Parameters
        ----------
        z
            The input.
        spare
            Whether nobody else needs the input, so that it may be overwritten: fresh memory costs more than the work.
        """

    @abstractmethod
    def backward(self, error: Tensor, saved: Any) -> Tensor:
        """Return the error at the input, given the one at the output, which may be overwritten."""

    def inputs(self, saved: Any) -> tuple[Tensor, float] | None:
        """Return what the layer's own parameters see, as `Rule.inputs` does, where it is the first that learns.

        None, the default: they see one number each, of about unit size.
        """
        return None

    def learn(self, into: Sequence[Tensor], saved: Any, error: Tensor, keep: float) -> Tensor:
        """Return what `backward` does, and set ``into = keep * into + descent direction``, in place.

        It is called for layers with parameters only; `into` may be these. The way back is through them as they were.
        """
        raise NotImplementedError(f"{type(self).__name__} has parameters, and no rule for them.")
