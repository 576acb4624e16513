"""The interface of a rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Rule(ABC):
    """How a layer's input and the error at its output change its parameters.

    Parameters
    ----------
    layer
        The layer whose parameters are trained.

    Attributes
    ----------
    parameters
        The layer's parameters, in the order of its ``state_dict``.
    devices
        How many devices' copies the parameters hold; 0 for an ordinary layer.
    """

    #: Whether the rule also trains ``[devices, ...]`` parameters.
    batches_devices = False
    #: Whether `accumulate` needs the output as `forward` returned it, so that the next layer may not overwrite it.
    keeps_output = False

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.parameters: list[nn.Parameter] = list(layer.parameters())
        self.devices = 0

    def apply(self, x: Tensor) -> Tensor:
        """Compute the layer's output from its input, as a prediction does; autograd can follow it."""
        output: Tensor = self.layer(x)
        return output

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """Compute the layer's output, and return with it what `accumulate` will need."""

    @abstractmethod
    def accumulate(self, into: Sequence[Tensor], saved: Any, error: Tensor, keep: float) -> None:
        """Set ``into = keep * into + descent direction``, in place.

        Parameters
        ----------
        into
            One tensor per parameter: the parameters themselves, or their momentum.
        saved
            What `forward` returned for this.
        error
            Minus the derivative of the block's loss by the layer's output, already scaled by whatever
            the step is to be scaled by.
        keep
            What the old value is multiplied by.
        """

    @abstractmethod
    def inputs(self, saved: Any) -> tuple[Tensor, float]:
        """Return what the layer's units see, by which the step is normalised.

        Parameters
        ----------
        saved
            What `forward` returned for `accumulate`.

        Returns
        -------
        inputs
            ``[..., samples, features]``.
        factor
            What the squared norm of a row is multiplied by to be that of what one unit sees: where a layer looks at
            many positions of a sample, the mean over them.
        """

    @property
    def outputs(self) -> int | None:
        """How many features the layer puts out; None where that depends on its input."""
        return None

    @abstractmethod
    def forward_flops(self, x: Tensor) -> int:
        """Count the floating-point operations of `apply` for one sample, given a batch."""
