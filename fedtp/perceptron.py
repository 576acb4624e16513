"""tpSGD of fully connected networks on NumPy arrays, for few samples: there PyTorch's calls cost more than their work.

The features come first here: a sample is ``[features]`` and a batch ``[features, batch]``. So the same lines serve
both, and a sample costs no more than vectors do.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import daxpy, dgemm, saxpy, sgemm

from fedtp.errors import ModelError

#: float32 or float64, the same in a whole network.
Array: TypeAlias = NDArray[Any]

_GEMM = {np.dtype(np.float32): sgemm, np.dtype(np.float64): dgemm}
_AXPY = {np.dtype(np.float32): saxpy, np.dtype(np.float64): daxpy}


class Activation(NamedTuple):
    """A function of every number by itself.

    Parameters
    ----------
    apply
        Replaces its argument by the output, and returns it.
    back
        Multiplies an error, its first argument, by the derivative, given the output.
    """

    apply: Callable[[Array], Array]
    back: Callable[[Array, Array], Any]


def _sigmoid(z: Array) -> Array:
    z *= 0.5  # unlike 1 / (1 + exp(-z)) this cannot overflow
    np.tanh(z, out=z)
    z += 1.0
    z *= 0.5
    return z


def _sigmoid_back(error: Array, a: Array) -> None:
    error *= a
    error -= error * a


def _tanh_back(error: Array, a: Array) -> None:
    rest = error * a
    rest *= a
    error -= rest


RELU = Activation(lambda z: np.maximum(z, 0.0, out=z), lambda error, a: np.multiply(error, a > 0.0, out=error))
TANH = Activation(lambda z: np.tanh(z, out=z), _tanh_back)
SIGMOID = Activation(_sigmoid, _sigmoid_back)

#: Numbers of a batch that pass an activation backward at a time: what is in between stays in the processor's cache.
_AT_A_TIME = 2**11


class Loss(ABC):
    """A loss between an output ``[features(, batch)]`` and a target of the same shape; see `fedtp.losses.Loss`.

    Parameters
    ----------
    curvature
        How fast the error changes with the output.
    """

    def __init__(self, curvature: float) -> None:
        self.curvature = curvature

    @abstractmethod
    def value_and_error(self, output: Array, target: Array) -> tuple[Any, Array]:
        """Loss of each sample, ``[]`` or ``[batch]``, and minus its derivative by `output`, a new array."""


class Squared(Loss):
    """``½ ‖output - target‖²``."""

    def value_and_error(self, output: Array, target: Array) -> tuple[Any, Array]:  # noqa: D102
        error = target - output
        return 0.5 * np.einsum("f...,f...->...", error, error), error


class CrossEntropy(Loss):
    """``-Σ target · log softmax(output)``."""

    def value_and_error(self, output: Array, target: Array) -> tuple[Any, Array]:  # noqa: D102
        single = output.ndim == 1
        # Of a vector an index is found four times as fast as a maximum, and a product with ones faster than a sum.
        shifted = output - (output[output.argmax()] if single else output.max(0))
        ones = _ones(len(output), output.dtype)
        error = np.exp(shifted)
        total = ones.dot(error)
        error *= -1.0 / total
        error += target
        if single:
            return math.log(total) - target.dot(shifted), error
        return np.log(total) - ones.dot(target * shifted), error


_ones = functools.lru_cache(maxsize=16)(np.ones)


class Dense:
    """One layer ``f(W x + b)``, and what its output is read through.

    Parameters
    ----------
    weight
        ``[outputs, inputs]``, in C order; changed in place as the layer learns.
    bias
        ``[outputs]``, changed in place; None for none.
    activation
        What follows; None for nothing.
    readout
        ``[classes, outputs]``, fixed: in label space what the output is multiplied by before it is compared with the
        target, in target space what makes of a target one for the output. None for the last layer.

    Attributes
    ----------
    momentum
        One array per parameter, shaped as it; None before the first step with momentum.

    Raises
    ------
    ModelError
        If the weight is not a float32 or float64 array in C order that can be written.
    """

    def __init__(
        self, weight: Array, bias: Array | None, activation: Activation | None = None, readout: Array | None = None
    ) -> None:
        if not in_place(weight):
            raise ModelError("A weight is a float32 or float64 array in C order that can be written.")
        self.parameters = [weight] if bias is None else [weight, bias]
        self.momentum: Sequence[Array] | None = None
        self.weight = weight
        self.bias = bias
        self.activation = activation
        self.readout = readout
        # The same for every step: an array's `T` is a new object each time.
        self.readback = None if readout is None else readout.T
        self._gemm, self._axpy = _GEMM[weight.dtype], _AXPY[weight.dtype]

    def forward(self, x: Array) -> Array:
        """Return the output, ``[outputs(, batch)]``, a new array."""
        z: Array = self.weight.dot(x)
        if self.bias is not None:
            rows = z.T
            rows += self.bias
        return z if self.activation is None else self.activation.apply(z)

    def back(self, error: Array, a: Array) -> None:
        """Carry an error from the output `a` to before the activation, in place."""
        if self.activation is None:
            return
        if error.size <= _AT_A_TIME:
            self.activation.back(error, a)
            return
        rows = max(1, _AT_A_TIME * len(error) // error.size)
        for first in range(0, len(error), rows):
            self.activation.back(error[first : first + rows], a[first : first + rows])

    def accumulate(self, into: Sequence[Array], x: Array, error: Array, keep: float) -> None:
        """Set ``into = keep * into + descent``, in place, from the input and the error before the activation."""
        weight, *bias = into
        # BLAS writes into an array in Fortran order, and the transpose of one in C order is one; of another it would
        # change a copy, see `in_place`.
        # It takes arrays in that order only, too; a batch in the other is the transpose of one.
        a, transposed = (x, 0) if x.flags.f_contiguous else (x.T, 1)
        b, plain = (error, 1) if error.flags.f_contiguous else (error.T, 0)
        self._gemm(1.0, a, b, keep, weight.T, transposed, plain, 1)
        for sums in bias:
            if keep != 1.0:
                sums *= keep
            sums += error if error.ndim == 1 else np.add.reduce(error, 1)

    def descend(self, x: Array, error: Array, scale: float, group: Mapping[str, Any]) -> None:
        """Learn.

        Parameters
        ----------
        x
            The input.
        error
            Minus the derivative of the samples' losses by the output; it is changed.
        scale
            How far to go.
        group
            ``lr``, ``momentum`` and ``weight_decay``, as in ``torch.optim.SGD``.
        """
        lr, momentum, decay = float(group["lr"]), group["momentum"], group["weight_decay"]
        if not momentum:
            error *= scale * lr
            self.accumulate(self.parameters, x, error, 1.0 - lr * decay)
            return
        if self.momentum is None:
            self.momentum = [np.zeros_like(parameter) for parameter in self.parameters]
        error *= scale
        self.accumulate(self.momentum, x, error, momentum)
        for parameter, buffer in zip(self.parameters, self.momentum, strict=True):
            # In place: the products themselves would take as much memory as the weights.
            if decay:
                self._axpy(parameter.ravel(), buffer.ravel(), a=-decay)
            self._axpy(buffer.ravel(), parameter.ravel(), a=lr)


class Perceptron:
    """Layers that learn each from a loss of its own, during the forward pass; `fedtp.TPSGD` says how.

    Parameters
    ----------
    layers
        First to last; all but the last have a readout.
    loss
        What compares.
    target_space
        Whether hidden layers compare their outputs with the target's projections, instead of their readouts with the
        target.
    normalize
        Whether steps are divided by the input's squared norm.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> hidden = Dense(rng.normal(size=(8, 2)), np.zeros(8), TANH, readout=rng.normal(size=(2, 8)))
    >>> last = Dense(np.zeros((2, 8)), np.zeros(2))
    >>> model = Perceptron([hidden, last], CrossEntropy(1 / 8))
    >>> groups = [{"lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}] * 2
    >>> for x in rng.normal(size=(500, 2)):
    ...     losses, output = model.step(x, np.eye(2)[int(x[0] > x[1])], groups, {0, 1})
    >>> int(model.predict(np.array([1.0, -1.0])).argmax()), int(model.predict(np.array([-1.0, 1.0])).argmax())
    (1, 0)
    """

    def __init__(
        self, layers: Sequence[Dense], loss: Loss, *, target_space: bool = False, normalize: bool = True
    ) -> None:
        self.layers = layers
        self.loss = loss
        self.target_space = target_space
        self.normalize = normalize

    def predict(self, x: Array) -> Array:
        """Return the output, ``[outputs(, batch)]``."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def step(
        self, x: Array, target: Array, groups: Sequence[Mapping[str, Any]], wanted: Collection[int]
    ) -> tuple[dict[int, Any], Array | None]:
        """Learn from a sample or a batch in one forward sweep.

        Parameters
        ----------
        x
            ``[features(, batch)]``.
        target
            What the output is compared with, ``[outputs(, batch)]``.
        groups
            The learning rate and the like of every layer, see `Dense.descend`.
        wanted
            The positions of the layers to train; the sweep stops after the last of them.

        Returns
        -------
        losses
            Of the trained layers by position, before they learnt: the mean over the batch.
        output
            What the network answered, before it learnt; None if the sweep stopped early.
        """
        losses = {}
        stop = max(wanted, default=-1) + 1
        for position in range(stop):
            layer = self.layers[position]
            a = layer.forward(x)
            if position in wanted:
                value, error = self._compare(layer, a, target)
                layer.back(error, a)
                layer.descend(x, error, self._scale(x), groups[position])
                losses[position] = value if a.ndim == 1 else value.mean()
                del error  # before the next one is made
            x = a
        return losses, x if stop == len(self.layers) else None

    def _compare(self, layer: Dense, a: Array, target: Array) -> tuple[Any, Array]:
        if layer.readout is None or layer.readback is None:
            return self.loss.value_and_error(a, target)
        if self.target_space:
            return self.loss.value_and_error(a, layer.readback.dot(target))
        value, error = self.loss.value_and_error(layer.readout.dot(a), target)
        return value, layer.readback.dot(error)

    def _scale(self, x: Array) -> float:
        """Return what the sum of a batch's errors is multiplied by, see `fedtp.TPSGD`."""
        samples = x.size // len(x)
        if not self.normalize:
            return 1.0 / samples
        flat = x.ravel("K")
        norm = 1.0 + flat.dot(flat) / samples  # the one is the bias's input
        alike = self.loss.curvature * samples
        if alike > 1.0:  # the largest eigenvalue is no larger than the sum of all, so else it could not count
            norm = max(norm, alike * (1.0 + _spectral(x)))
        return 1.0 / float(norm)


def _spectral(x: Array) -> float:
    """Return what `fedtp.normalization.spectral_norm` does."""
    samples, size = x.shape[1], 0.0
    v: Array = np.full(samples, 1.0 / math.sqrt(samples), x.dtype)
    for remaining in (True, False):
        v = x.T.dot(x.dot(v))
        size = math.sqrt(v.dot(v))
        if remaining:
            v /= max(size, 1e-30)
    return float(size / samples)


def in_place(array: Array) -> bool:
    """Whether BLAS can change an array where it is."""
    return array.dtype in _GEMM and array.flags.carray
