"""Copies of one multilayer perceptron that learn from a stream by tpSGD at different paces, in NumPy.

No step size suits every stream: after a drift a fast learner is back first, and where nothing changes a slow one is
more exact. So a few copies learn at paces of their own, and each counts in a prediction by how seldom it was wrong of
late. One call of NumPy works on all of them, so for networks of a usual size they take hardly longer than one.

Every layer's input begins with a constant 1, whose weight is the bias. The constant is made by the layer below as its
unit 0: its bias is so large that its tanh is exactly 1, where the slope is 0 and nothing is learnt. What reads a hidden
layer lies in one table: the next layer's weights, and below them the readout through which the hidden layer is compared
with the label. One product serves both, and one update.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from scipy.linalg.blas import dger

from fedtp.projection import Label, Projection
from fedtp.streaming.features import Vector

StreamLoss = Literal["cross_entropy", "squared"]
LOSSES = get_args(StreamLoss)

#: How far hidden blocks and their readouts go, where the last block goes 1 (docs/streams.md).
HIDDEN_RATE = 2.0
#: Standard deviation of the first layer's weights and biases. It may not depend on how many features there are: a new
#: feature draws the same weights on every device, and moves no other's.
FIRST_WEIGHTS = 0.3
#: What readouts start at: times the projection over the root of the units.
READOUT_GAIN = {"cross_entropy": 3.0, "squared": 1.0}
#: How fast the loss's error changes with the output, as in `fedtp.losses`.
CURVATURE = {"cross_entropy": 1 / 8, "squared": 1.0}
#: What a mistake counts for one sample later.
FORGETTING = 0.998
#: A bias whose tanh is 1 in double precision.
_CONSTANT = 20.0


class Perceptrons:
    """Copies of a multilayer perceptron with tanh units, whose inputs and outputs can grow.

    Parameters
    ----------
    hidden
        Units of each hidden layer, at least of one.
    paces
        The learning rate of each copy's last block; hidden blocks and their readouts go `HIDDEN_RATE` times as far.
    loss
        ``"cross_entropy"`` of classes, or ``"squared"`` of values.
    seed
        Of the weights and the projections.

    Attributes
    ----------
    inputs, outputs
        How many there are.
    first
        The first layer's weights, ``[copies, 1 + units, 1 + inputs]``; there may be room for more inputs, all 0.
    tables
        What reads each hidden layer. Of the last one ``[copies, 2 outputs, 1 + units]``: the last layer's weights and
        the readout; of the others ``[copies, 1 + next layer's units + outputs, 1 + units]``.
    mistakes
        Of each copy, discounted by `FORGETTING` a sample; of values the squares of errors.
    uncounted
        How many samples have been learnt since mistakes were counted.
    """

    def __init__(self, hidden: Sequence[int], paces: Sequence[float], loss: StreamLoss, seed: int) -> None:
        self.hidden = tuple(hidden)
        self.paces = np.array(paces, np.float64)
        self.loss = loss
        self.seed = seed
        self.inputs = self.outputs = 0
        copies = len(self.paces)
        self.mistakes = [0.0] * copies
        self.uncounted = 0
        self.first = np.zeros((copies, 1 + hidden[0], 1))
        self.first[:, 0, 0] = _CONSTANT
        self.first[:, 1:, 0] = FIRST_WEIGHTS * self._drawn("0.bias", ["bias"], hidden[0])[:, 0]
        self.tables: list[Vector] = []
        for block, units, following in zip(self.blocks[1:], hidden, hidden[1:], strict=False):
            table = np.zeros((copies, 1 + following, 1 + units))
            table[:, 0, 0] = _CONSTANT
            table[:, 1:, 1:] = self._drawn(f"{block}.weight", range(following), units) / math.sqrt(units)
            self.tables.append(table)
        self.tables.append(np.zeros((copies, 0, 1 + hidden[-1])))
        self._arrange()

    @property
    def blocks(self) -> list[str]:
        """The names of the blocks, first to last: those of `fedtp.models.mlp`."""
        return [str(2 * layer) for layer in range(len(self.hidden) + 1)]

    def grow_inputs(self, names: Sequence[Hashable]) -> None:
        """Add features: their weights are drawn from the seed and their names."""
        inputs = self.inputs + len(names)
        copies, units, width = self.first.shape
        if 1 + inputs > width:
            # The first sample mostly brings all there are. Where more have come, more may come: they find room.
            room = inputs if not self.inputs else max(inputs, self.inputs * 3 // 2)
            grown = np.zeros((copies, units, 1 + room))
            grown[:, :, : 1 + self.inputs] = self.first[:, :, : 1 + self.inputs]
            self.first = grown
        keys = [name if isinstance(name, str | int | float) else repr(name) for name in names]
        drawn = self._drawn("0.weight", keys, units - 1)
        self.first[:, 1:, 1 + self.inputs : 1 + inputs] = FIRST_WEIGHTS * drawn.swapaxes(1, 2)
        self.inputs = inputs
        self._arrange()

    def grow_outputs(self, keys: Sequence[Label]) -> None:
        """Add outputs: their weights are 0, and their readouts are drawn from the seed and their keys."""
        for layer, (block, units) in enumerate(zip(self.blocks, self.hidden, strict=False)):
            table = self.tables[layer]
            readouts = np.zeros((len(table), len(keys), 1 + units))
            gain = READOUT_GAIN[self.loss] / math.sqrt(units)
            readouts[:, :, 1:] = gain * self._drawn(block, keys, units)
            parts = [table, readouts]
            if layer == len(self.hidden) - 1:
                parts = [table[:, : self.outputs], np.zeros_like(readouts), table[:, self.outputs :], readouts]
            self.tables[layer] = np.concatenate(parts, 1)
        self.outputs += len(keys)
        self._arrange()

    def forward(self, x: Vector) -> Vector:
        """Answer one sample; `learn` goes on from there.

        Parameters
        ----------
        x
            ``[inputs]``.

        Returns
        -------
        numpy.ndarray
            The probabilities of the classes, or the values, ``[outputs]``.
        """
        self._entry[:] = x
        z = self._first.dot(self._x)
        for layer in self._layers:
            layer.a = a = np.tanh(z).reshape(layer.form)
            layer.read = read = np.matmul(layer.table, a)
            z = read if layer.last else read[:, : layer.following]
        self._answers = self._answered(z.reshape(self._form))
        answer: Vector = self._shares.dot(self._answers[:, 0])
        return answer

    def guesses(self) -> Vector:
        """Return what each copy answers to the sample that was passed forward, ``[copies, outputs]``."""
        guesses: Vector = self._answers[:, 0]
        return guesses

    def learn(self, target: Vector, guesses: Vector | None = None) -> None:
        """Learn what the sample that was passed forward should have been answered.

        Parameters
        ----------
        target
            ``[outputs]``: of classes 1 for the right one, and 0.
        guesses
            By what the copies are judged, if they were asked about the sample long before it is learnt: what they
            answered then.
        """
        self._blame_one(self._answers[:, 0] if guesses is None else guesses, target)
        errors = target - self._answers
        errors *= self._rates
        for position, layer in enumerate(self._layers):
            # The error at what was read through the readout, times how far the layer goes.
            if layer.last:
                answer = errors[:, 1]
            else:
                answer = target - self._answered(layer.read[:, layer.following :, 0])
                answer *= self._hidden_rates
            a = layer.a[:, :, 0]
            squares = a * a
            error = np.matmul(answer[:, None], layer.readout)[:, 0]
            error *= 1.0 - squares
            if position == 0:
                x = self._x
                # BLAS changes an array in Fortran order in place, which the transpose of one in C order is.
                dger(1.0 / x.dot(x), x, error.ravel(), 1, 1, self._first.T, 1, 1, 1)
            else:
                before = self._layers[position - 1]
                before.move(np.concatenate([error, before.answer], 1))
            layer.norm, layer.answer = squares.dot(layer.ones), answer
        layer.move(errors.reshape(self._flat_form))

    def forward_many(self, x: Vector) -> Vector:
        """Answer many samples, ``[samples, inputs]``: what `forward` returns, ``[outputs, samples]``."""
        samples = len(x)
        ones = np.zeros((len(self._x), samples))
        ones[0], ones[1 : 1 + self.inputs] = 1.0, x.T
        self._batch = ones
        z = self._first.dot(ones)
        for layer in self._layers:
            layer.a = a = np.tanh(z).reshape(*layer.form[:2], samples)
            layer.read = read = np.matmul(layer.table, a)
            z = read[:, : layer.following].reshape(-1, samples)
        answers = read.reshape(*self._form, samples)
        self._answers = _softmax(answers) if self.loss == "cross_entropy" else answers
        return np.tensordot(self._shares, self._answers[:, 0], 1)

    def learn_many(self, target: Vector) -> None:
        """Learn what the samples that were passed forward should have been answered, ``[outputs, samples]``."""
        self._blame_many(target)
        errors = target - self._answers
        errors *= self._rates[..., None]
        for position, layer in enumerate(self._layers):
            if layer.last:
                answer = errors[:, 1]
            else:
                read = layer.read[:, layer.following :]
                answer = target - (_softmax(read) if self.loss == "cross_entropy" else read)
                answer *= self._hidden_rates[..., None]
            a = layer.a
            error = np.matmul(layer.readout.swapaxes(1, 2), answer)
            error *= 1.0 - a * a
            if position == 0:
                error /= self._norm(self._batch[None])
                self._first += error.reshape(len(self._first), -1).dot(self._batch.T)
            else:
                before = self._layers[position - 1]
                before.move_many(np.concatenate([error, before.answer], 1))
            layer.norm, layer.answer = self._norm(a), answer
        layer.move_many(errors.reshape(*self._flat_form, -1))

    def losses(self, target: Vector) -> Vector:
        """Return the loss of each block of the fastest copy, ``[blocks]``, for the sample that was passed forward."""
        fastest = self.paces.argmax()
        answers = [self._answered(layer.read[fastest, layer.following :, 0]) for layer in self._layers[:-1]]
        answers += [self._answers[fastest, 1], self._answers[fastest, 0]]
        if self.loss == "cross_entropy":
            return np.array([-math.log(max(target.dot(answer), 1e-12)) for answer in answers])
        return np.array([0.5 * float(np.square(target - answer).sum()) for answer in answers])

    def _answered(self, read: Vector) -> Vector:
        """Return the answers to one sample that lie in what was read, ``[..., outputs]``."""
        if self.loss == "squared":
            return read
        flat = read.reshape(-1, self.outputs)
        largest = flat.ravel()
        flat = np.exp(flat - largest[largest.argmax()])
        total = flat.dot(self._output_ones)
        if not total[total.argmin()] > 1e-200:  # one maximum for all is faster, and hardly ever too rough
            return _softmax(read[..., None])[..., 0]
        flat /= total[:, None]
        return flat.reshape(read.shape)

    def _norm(self, a: Vector) -> Vector:
        """Return what the sum of many samples' errors is divided by, ``[copies]``, see `fedtp.TPSGD`."""
        copies, _, samples = a.shape
        flat = a.reshape(copies, -1)
        norm: Vector = np.matmul(flat[:, None], flat[:, :, None])[:, 0, 0] / samples
        alike = CURVATURE[self.loss] * samples
        return np.maximum(norm, alike * (1.0 + _spectral(a[:, 1:]))) if alike > 1.0 and samples > 1 else norm

    def _blame_one(self, answers: Vector, target: Vector) -> None:
        """Count the copies' mistakes, and let them count in predictions accordingly."""
        self.uncounted += 1
        if self.loss == "cross_entropy":
            right = target.argmax()
            guesses = answers.argmax(1).tolist()
            if guesses == [right] * len(guesses):
                return  # while nobody errs, what has been counted only fades
            worse = [guess != right for guess in guesses]
        else:
            worse = np.square(target - answers).sum(1).tolist()
        fade = FORGETTING**self.uncounted
        self.mistakes = [fade * m + w for m, w in zip(self.mistakes, worse, strict=True)]
        self.uncounted = 0
        self._share()

    def _blame_many(self, target: Vector) -> None:
        answers = self._answers[:, 0]
        if self.loss == "cross_entropy":
            worse = answers.argmax(1) != target.argmax(0)
        else:
            worse = np.square(target - answers).sum(1)
        fades = FORGETTING ** np.arange(worse.shape[1])[::-1]  # as if they had come one by one
        fade = FORGETTING ** (self.uncounted + len(fades))
        self.mistakes = [fade * m + w for m, w in zip(self.mistakes, worse.dot(fades).tolist(), strict=True)]
        self.uncounted = 0
        self._share()

    def _share(self) -> None:
        if self.loss == "cross_entropy":
            shares = [math.exp(-m) for m in self.mistakes]
        else:  # a likelihood, if errors are normal with a variance that is the copy's own
            least = max(min(self.mistakes), 1e-12)
            shares = [(max(m, 1e-12) / least) ** -8.0 for m in self.mistakes]
        self._shares = np.array(shares) / sum(shares)

    def _drawn(self, block: str, keys: Sequence[Label] | range, features: int) -> Vector:
        """Return a projection of every copy, ``[copies, keys, features]``."""
        seeds = [self.seed, *(_mixed(self.seed, copy) for copy in range(1, len(self.paces)))]
        return np.array(
            [Projection(seed, classes=list(keys)).rows(block, features) for seed in seeds], np.float64
        ).reshape(len(seeds), len(keys), features)

    def _arrange(self) -> None:
        copies, units, width = self.first.shape
        self._first = self.first.reshape(copies * units, width)
        self._hidden_rates = HIDDEN_RATE * self.paces[:, None]
        self._rates = np.stack([self.paces, HIDDEN_RATE * self.paces], 1)[:, :, None]
        self._x = np.zeros(width)
        self._x[0] = 1.0
        self._entry = self._x[1 : 1 + self.inputs]
        self._layers = [_Layer(table, self.outputs, last=table is self.tables[-1]) for table in self.tables]
        self._form = copies, 2, self.outputs
        self._flat_form = copies, 2 * self.outputs
        self._output_ones = np.ones(self.outputs)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._arrange()


class _Layer:
    """A hidden layer's table, and what the steps use of it: made once, because making it takes as long as using it.

    Attributes
    ----------
    a, read
        What the layer put out, ``[copies, 1 + units, samples]``, and what the table made of it.
    answer
        The error at what was read through the readout, times how far the layer goes.
    norm
        What the errors at `read` are divided by, ``[copies]``.
    """

    def __init__(self, table: Vector, outputs: int, *, last: bool) -> None:
        copies, rows, width = table.shape
        self.table = table
        self.last = last
        self.following = rows - outputs  # rows that are weights; the rest is the readout
        self.readout = table[:, self.following :]
        self.biases = self.readout[:, :, 0]
        self.form = copies, width, 1
        self.ones = np.ones(width)
        self.a = self.read = self.answer = self.norm = table

    def move(self, errors: Vector) -> None:
        """Follow the errors at what was read of one sample, ``[copies, rows]``."""
        errors /= self.norm[:, None]
        self.table += errors[:, :, None] * self.a.swapaxes(1, 2)
        self.biases[...] = 0.0

    def move_many(self, errors: Vector) -> None:
        """Follow the errors at what was read of many samples, ``[copies, rows, samples]``."""
        errors /= self.norm[:, None, None]
        self.table += np.matmul(errors, self.a.swapaxes(1, 2))
        self.biases[...] = 0.0


def build(hidden: Sequence[int], paces: Sequence[float], loss: StreamLoss, seed: int) -> Perceptrons:
    """Return perceptrons that learn as fast as what is installed allows."""
    return Perceptrons(hidden, paces, loss, seed)


def _softmax(z: Vector) -> Vector:
    """Return the exponentials over the last axis but one, divided by their sum."""
    z = z - z.max(-2, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(-2, keepdims=True)
    return z


def _spectral(x: Vector) -> Vector:
    """Return what `fedtp.normalization.spectral_norm` does, ``[copies]``, of ``[copies, units, samples]``."""
    samples = x.shape[2]
    v = np.full((len(x), samples, 1), 1.0 / math.sqrt(samples))
    size = np.zeros(len(x))
    for _ in range(2):
        v = np.matmul(x.swapaxes(1, 2), np.matmul(x, v))
        size = np.sqrt(np.matmul(v.swapaxes(1, 2), v))[:, 0, 0]
        v /= np.maximum(size, 1e-30)[:, None, None]
    return size / samples


def _mixed(seed: int, copy: int) -> int:
    """Return a seed for another copy."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {copy}".encode(), digest_size=8).digest(), "little")
