"""The steps of `fedtp.TPSGD` for a fully connected model and few samples, in NumPy.

One sample is little work, and PyTorch's forty calls for it cost more than all of it. NumPy's cost a tenth, and work on
the same memory: nothing is copied, and whoever holds the model or the optimizer's state sees every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from fedtp import losses, perceptron
from fedtp.blocks import Block, Chain
from fedtp.perceptron import Activation, Array, Dense, Perceptron, in_place
from fedtp.rules import LinearRule, Tail, activation

_ACTIVATIONS: dict[type[Tail], Activation] = {
    activation.ReLU: perceptron.RELU,
    activation.Tanh: perceptron.TANH,
    activation.Sigmoid: perceptron.SIGMOID,
}
_LOSSES: dict[type[losses.Loss], Callable[[float], perceptron.Loss]] = {
    losses.CrossEntropy: perceptron.CrossEntropy,
    losses.Squared: perceptron.Squared,
}


#: Up to so many multiplications OpenBLAS stays in one thread by itself, and limiting it would cost more than it saves.
_SINGLE_THREADED = 2**18


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


class NumpySweep:
    """The blocks of a chain as the layers of a `fedtp.perceptron.Perceptron` with the same weights.

    It knows no errors: what is out of the ordinary, however wrong it may be, it leaves to PyTorch's sweep.

    Parameters
    ----------
    chain
        The model's blocks; `fits` says which will do.
    loss
        What compares.
    readout
        From a hidden block to its fixed readout, ``[classes, features]``, with the block's dtype.
    momentum
        From a parameter to its momentum.
    target_space, normalize
        As for `fedtp.perceptron.Perceptron`.
    """

    #: The samples of a batch, at most.
    largest = 64

    def __init__(
        self,
        chain: Chain,
        loss: losses.Loss,
        *,
        readout: Callable[[Block], Tensor],
        momentum: Callable[[Tensor], Tensor],
        target_space: bool,
        normalize: bool,
    ) -> None:
        self._chain = chain
        self._readout = readout
        self._momentum = momentum
        self._loss = _LOSSES[type(loss)](loss.curvature)
        self._predicts_numbers = "numbers" in loss.tasks
        self._settings = {"target_space": target_space, "normalize": normalize}
        self._widest = max(parameter.numel() for block in chain for parameter in block.parameters)
        self._parameters = [parameter for block in chain for parameter in block.parameters]
        self._places: list[tuple[int, int]] = []
        self._model: Perceptron | None = None

    @staticmethod
    def fits(chain: Chain, loss: losses.Loss) -> bool:
        """Whether NumPy can do what a chain's blocks do, and the loss."""
        plain = not (isinstance(loss, losses.CrossEntropy) and (loss.label_smoothing or loss.weight is not None))
        return (
            plain
            and type(loss) in _LOSSES
            and not chain.devices
            and all(type(layer) is nn.Flatten for layer in chain.stem)
            and all(
                type(block.rule) is LinearRule
                and len(block.parameters) == len(block.rule.parameters)
                and len(tail := _tail(block)) <= 1
                and all(kind in _ACTIVATIONS for kind in tail)
                for block in chain
            )
        )

    def step(
        self, x: Tensor, y: Tensor, groups: Sequence[Mapping[str, Any]], wanted: Collection[int]
    ) -> tuple[dict[str, Tensor], Tensor | None] | None:
        """Learn from one batch, if it is an ordinary one.

        Parameters
        ----------
        x, y
            Inputs and labels, as `fedtp.TPSGD.step` takes them.
        groups
            The parameter groups, one per block.
        wanted
            The positions of the blocks to train.

        Returns
        -------
        tuple[dict[str, Tensor], Tensor | None] | None
            The trained blocks' losses by name, and what the model answered, None if the sweep stopped early. None
            instead of both if the batch is not for NumPy; no weight has changed then.
        """
        if self._places != [(p.data_ptr(), p.numel()) for p in self._parameters]:
            self._take_views()
        model = self._model
        if model is None:
            return None
        try:
            rows, labels = (self._chain.enter(x) if self._chain.stem else x).numpy(), y.numpy()
        except (TypeError, RuntimeError):  # on another device, of a dtype that NumPy lacks, part of a graph
            return None
        if not self._is_input(model, rows):
            return None
        target = self._target(model, labels, len(rows))
        if target is None or not self._share_momentum(model, groups, wanted):
            return None
        columns = rows[0] if len(rows) == 1 else rows.T
        with np.errstate(all="ignore"), self._threads(len(rows)):  # a model that diverges does so in silence
            values, output = model.step(columns, target, groups, wanted)
        blocks = self._chain.blocks
        # So that autograd finds out if a graph still needs the old weights.
        increment_version([p for position in wanted for p in blocks[position].parameters])
        by_name = {blocks[position].name: torch.from_numpy(np.asarray(value)) for position, value in values.items()}
        return by_name, None if output is None else torch.from_numpy(output.T.reshape(len(rows), -1))

    def _threads(self, samples: int) -> AbstractContextManager[object]:
        """Let NumPy's products have as many threads as PyTorch's, where they are large enough to have several."""
        if samples * self._widest <= _SINGLE_THREADED:
            return nullcontext()
        limited: AbstractContextManager[object] = _blas().limit(limits=torch.get_num_threads())
        return limited

    def _take_views(self) -> None:
        """See the parameters as arrays, where they are now."""
        # The old views keep the old memory alive, so that no parameter can be moved to it meanwhile.
        self._places = [(p.data_ptr(), p.numel()) for p in self._parameters]
        self._model = None
        if any(not p.is_cpu or p.dtype != self._parameters[0].dtype or p.is_inference() for p in self._parameters):
            return
        if self._parameters[0].dtype not in (torch.float32, torch.float64):
            return
        blocks = self._chain.blocks
        arrays = [[parameter.detach().numpy() for parameter in block.parameters] for block in blocks]
        if not all(map(in_place, (weight for weight, *_ in arrays))):
            return
        if any(len(one[0]) != next[0].shape[1] for one, next in pairwise(arrays)):
            return
        self._model = Perceptron(list(map(self._layer, blocks, arrays)), self._loss, **self._settings)

    def _layer(self, block: Block, arrays: list[Array]) -> Dense:
        weight, *bias = arrays
        function: Activation | None = next((_ACTIVATIONS[kind] for kind in _tail(block)), None)
        readout = None if block is self._chain.blocks[-1] else self._readout(block).numpy()
        return Dense(weight, bias[0] if bias else None, function, readout)

    def _is_input(self, model: Perceptron, rows: Array) -> bool:
        weight = model.layers[0].weight
        return (
            rows.ndim == 2
            and 0 < len(rows) <= self.largest
            and rows.dtype == weight.dtype
            and rows.shape[1] == weight.shape[1]
            and math.isfinite(np.vdot(rows, rows))  # a sum of squares is finite only if every number is
        )

    def _target(self, model: Perceptron, labels: Array, samples: int) -> Array | None:
        """Return what the output is compared with, ``[outputs(, batch)]``; None for labels that are not ordinary."""
        weight = model.layers[-1].weight
        outputs, dtype = len(weight), weight.dtype
        if labels.dtype.kind in "iu" and labels.shape == (samples,):
            classes = labels.tolist()
            if min(classes) < 0 or max(classes) >= outputs:
                return None
            target = np.zeros(outputs if samples == 1 else (outputs, samples), dtype)
            target[classes[0] if samples == 1 else (classes, range(samples))] = 1.0
            return target
        shapes = [(samples, outputs), (samples,)] if outputs == 1 else [(samples, outputs)]
        if not self._predicts_numbers or labels.dtype != dtype or labels.shape not in shapes:
            return None
        numbers = labels.reshape(samples, outputs)
        if not math.isfinite(np.vdot(numbers, numbers)):
            return None
        return numbers[0] if samples == 1 else numbers.T

    def _share_momentum(self, model: Perceptron, groups: Sequence[Mapping[str, Any]], wanted: Collection[int]) -> bool:
        """Let the layers work on the optimizer's momentum, if there is any; say whether they can."""
        for position in wanted:
            if groups[position]["momentum"]:
                buffers = [self._momentum(p).numpy() for p in self._chain.blocks[position].parameters]
                if not in_place(buffers[0]):
                    return False
                model.layers[position].momentum = buffers
        return True


def _tail(block: Block) -> list[type[Tail]]:
    return [type(tail) for tail in block.tail if not isinstance(tail, activation.Identity)]
