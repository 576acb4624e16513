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

import math
from collections.abc import Collection, Hashable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.linalg.blas import dger

from fedtp.errors import DataError
from fedtp.projection import Label, Projection
from fedtp.streaming import fast
from fedtp.streaming.features import Vector
from fedtp.streaming.judging import FORGETTING, seeds, shares, wrongs
from fedtp.streaming.state import State

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

    _batch: _Batch | None

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
            np.tanh(z, layer.flat)
            np.matmul(layer.table, layer.column, layer.read)
            if not layer.last:
                z = layer.upward.ravel()
        self._answers = self._answered(self._read)
        answer: Vector = self._shares.dot(self._answers[:, 0])
        return answer

    def guesses(self) -> Vector:
        """Return what each copy answers to the sample that was passed forward, ``[copies, outputs]``."""
        guesses: Vector = self._answers[:, 0].copy()
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
        self._judge(self._answers[:, 0] if guesses is None else guesses, target)
        below = self._below_first
        for layer in self._layers:
            if layer.last:
                np.subtract(target, self._answers, self._errors)
                self._errors *= self._rates
            else:
                np.subtract(target, self._answered(layer.answers), layer.answer_errors[:, 0])
                layer.answer_errors *= self._hidden_rates
            np.matmul(layer.answer_errors, layer.readout, below)
            np.multiply(layer.row, layer.row, layer.squares)
            below *= layer.ones - layer.squares
            below = layer.upward_errors
        x = self._x
        # BLAS changes an array in Fortran order in place, which the transpose of one in C order is.
        dger(1.0 / x.dot(x), x, self._first_errors, 1, 1, self._first.T, 1, 1, 1)
        for layer in self._layers:
            layer.flat_errors /= layer.squares.dot(layer.total)
            np.multiply(layer.errors, layer.row, layer.step)
            layer.table += layer.step
            layer.biases.fill(0.0)

    def forward_many(self, x: Vector) -> Vector:
        """Answer many samples, ``[samples, inputs]``: what `forward` returns, ``[outputs, samples]``."""
        batch = self._entered(x)
        z = self._first.dot(batch.x)
        for layer, a, read in zip(self._layers, batch.a, batch.read, strict=True):
            np.tanh(z.reshape(a.shape), a)
            np.matmul(layer.table, a, read)
            z = read[:, : layer.following]
        read = read.reshape(batch.answers.shape)
        batch.answers[...] = _softmax(read) if self.loss == "cross_entropy" else read
        return self._combined(batch)

    def learn_many(self, target: Vector) -> None:
        """Learn what the samples that were passed forward should have been answered, ``[outputs, samples]``."""
        batch = self._batch
        assert batch is not None, "what is learnt has been passed forward"
        self._judge_many(batch.answers[:, 0], target)
        below = first_errors = np.empty_like(batch.a[0])
        moves = []
        for layer, a, read in zip(self._layers, batch.a, batch.read, strict=True):
            if layer.last:
                errors = ((target - batch.answers) * self._rates[..., None]).reshape(read.shape)
            else:
                errors = np.empty_like(read)
                answers = read[:, layer.following :]
                errors[:, layer.following :] = target - (_softmax(answers) if self.loss == "cross_entropy" else answers)
                errors[:, layer.following :] *= self._hidden_rates
            np.matmul(layer.readout.swapaxes(1, 2), errors[:, layer.following :], below)
            below *= 1.0 - a * a
            below = errors[:, : layer.following]
            moves.append((layer, errors, a))
        first_errors /= self._norm(batch.x[None])
        self._first += first_errors.reshape(len(self._first), -1).dot(batch.x.T)
        for layer, errors, a in moves:
            errors /= self._norm(a)
            layer.table += np.matmul(errors, a.swapaxes(1, 2))
            layer.biases.fill(0.0)

    def _entered(self, x: Vector) -> _Batch:
        """Return what many samples pass in, ``[samples, inputs]``: the same again if they are as many as last time."""
        samples = len(x)
        if self._batch is None or self._batch.x.shape[1] != samples:
            self._batch = _Batch(
                np.zeros((len(self._x), samples)),
                a=tuple([np.empty((*layer.a.shape, samples)) for layer in self._layers]),
                read=tuple([np.empty((*layer.table.shape[:2], samples)) for layer in self._layers]),
                answers=np.empty((len(self.paces), 2, self.outputs, samples)),
            )
            self._batch.x[0] = 1.0
        self._batch.x[1 : 1 + self.inputs] = x.T
        return self._batch

    def _combined(self, batch: _Batch) -> Vector:
        """Return what the copies answer together, ``[outputs, samples]``."""
        guesses = batch.answers[:, 0]
        combined: Vector = self._shares.dot(guesses.reshape(len(guesses), -1)).reshape(guesses.shape[1:])
        return combined

    def readings(self, x: Vector) -> Vector:
        """Return what each block of the slowest copy makes of a sample, ``[blocks, outputs]``; nothing else changes.

        It is what is read through the readout of a hidden block, and what the last one puts out: the largest is the
        class, or the one is the value. The slowest copy, because it remembers longest what was before a drift.

        Parameters
        ----------
        x
            ``[inputs]``.
        """
        slowest = self.paces.argmin()
        first = self.first[slowest]
        z = first[:, 0] + first[:, 1 : 1 + self.inputs] @ x
        readings = []
        for table in self.tables:
            read = table[slowest] @ np.tanh(z)
            z = read[: len(read) - self.outputs]
            readings.append(read[len(z) :])
        return np.array([*readings, z])

    def set_paces(self, paces: Vector) -> None:
        """Have each copy learn at another pace from now on, ``[copies]``."""
        self.paces[:] = paces
        self._set_rates()

    def weights(self) -> list[Vector]:
        """Return copies of all that is learnt, readouts among it."""
        return [matrix.copy() for matrix in (self.first, *self.tables)]

    def take(self, other: Perceptrons, blocks: Collection[str]) -> None:
        """Take over some blocks' weights and readouts from another network of this kind, of the same size."""
        width = 1 + self.inputs
        for number, block in enumerate(self.blocks):
            if block not in blocks:
                continue
            if number == 0:
                self.first[:, :, :width] = other.first[:, :, :width]
            else:
                table = self.tables[number - 1]
                following = table.shape[1] - self.outputs
                table[:, :following] = other.tables[number - 1][:, :following]
            if number < len(self.tables):
                table = self.tables[number]
                following = table.shape[1] - self.outputs
                table[:, following:] = other.tables[number][:, following:]

    def keep_scales(self, before: Sequence[Vector]) -> None:
        """Undo what has been learnt since some `weights`, but for what scales and shifts each unit.

        That is what of a step lies along the unit's own weights, and its bias. Readouts are as they were.
        """
        for number, (old, matrix) in enumerate(zip(before, (self.first, *self.tables), strict=True)):
            following = matrix.shape[1] - (self.outputs if number else 0)
            matrix[:, following:] = old[:, following:]
            own = old[:, :following, 1:]
            along = ((matrix[:, :following, 1:] - own) * own).sum(2, keepdims=True)
            along /= np.maximum((own * own).sum(2, keepdims=True), 1e-300)
            matrix[:, :following, 1:] = own + along * own

    def _answered(self, read: Vector) -> Vector:
        """Return the answers to one sample that lie in what was read, ``[..., outputs]``."""
        if self.loss == "squared" or not self.outputs:
            return read.copy()
        flat = read.reshape(-1, self.outputs)
        largest = read.ravel()
        flat = np.exp(flat - largest[largest.argmax()])
        total = flat.dot(self._output_ones)
        if not total[total.argmin()] > 1e-200:  # one maximum for all is faster, and hardly ever too rough
            return _softmax(read[..., None])[..., 0]
        flat /= total[:, None]
        answered: Vector = flat.reshape(read.shape)
        return answered

    def _norm(self, a: Vector) -> Vector:
        """Return what the sum of many samples' errors is divided by, ``[copies, 1, 1]``, see `fedtp.TPSGD`."""
        copies, _, samples = a.shape
        flat = a.reshape(copies, -1)
        norm: Vector = np.matmul(flat[:, None], flat[:, :, None]) / samples
        alike = CURVATURE[self.loss] * samples
        return np.maximum(norm, alike * (1.0 + _spectral(a[:, 1:]))) if alike > 1.0 and samples > 1 else norm

    def _judge(self, answers: Vector, target: Vector) -> None:
        """Judge the copies by their answers to a sample, ``[copies, outputs]``."""
        if self.loss == "cross_entropy":
            right = int(target.argmax())
            guesses = answers.argmax(1).tolist()
            self._count([guess != right for guess in guesses] if guesses != [right] * len(guesses) else None)
        else:
            self._count(np.square(target - answers).sum(1).tolist())

    def _judge_many(self, answers: Vector, target: Vector) -> None:
        """Judge the copies by their answers to many samples, ``[copies, outputs, samples]``."""
        wrong, counted = wrongs(answers, target, classes=self.loss == "cross_entropy")
        self._count(wrong, counted)
        self.uncounted += answers.shape[2] - counted

    def _count(self, wrong: Sequence[float] | None, samples: int = 1) -> None:
        """Count how wrong the copies were, and let them count in predictions accordingly; None where none was."""
        self.uncounted += samples
        if wrong is None:
            return  # what has been counted fades alike
        fade = FORGETTING**self.uncounted
        self.mistakes = [fade * m + w for m, w in zip(self.mistakes, wrong, strict=True)]
        self.uncounted = 0
        self._share()

    def _share(self) -> None:
        self._shares = shares(self.mistakes, classes=self.loss == "cross_entropy")

    def _drawn(self, block: str, keys: Sequence[Label] | range, features: int) -> Vector:
        """Return a projection of every copy, ``[copies, keys, features]``."""
        copies = len(self.paces)
        drawn = [Projection(seed, classes=list(keys)).rows(block, features) for seed in seeds(self.seed, copies)]
        return np.array(drawn, np.float64).reshape(copies, len(keys), features)

    def _arrange(self) -> None:
        """Make what the steps work in, once: making an array takes as long as using it."""
        copies, units, width = self.first.shape
        self._first = self.first.reshape(copies * units, width)
        self._x = np.zeros(width)
        self._x[0] = 1.0
        self._entry = self._x[1 : 1 + self.inputs]
        self._first_errors = np.zeros(copies * units)
        self._below_first = self._first_errors.reshape(copies, 1, units)
        self._layers = [_Layer(table, self.outputs, last=table is self.tables[-1]) for table in self.tables]
        self._read = self._layers[-1].read.reshape(copies, 2, self.outputs)
        self._errors = self._layers[-1].errors.reshape(copies, 2, self.outputs)
        self._output_ones = np.ones(self.outputs)
        self._batch = None
        self._set_rates()
        self._share()

    def _set_rates(self) -> None:
        self._hidden_rates = HIDDEN_RATE * self.paces[:, None, None]
        rates = np.stack([self.paces, HIDDEN_RATE * self.paces], 1)
        self._rates = np.repeat(rates[:, :, None], self.outputs, 2)  # NumPy takes longer to broadcast

    def state(self) -> State:
        """Return what has been learnt, by block; see `fedtp.streaming.state`.

        Weights are ``[copies, units, inputs]``, from the second layer on ``[copies, units, 1 + inputs]`` with the bias
        before them; a block's readout is ``[copies, outputs, 1 + units]``.
        """
        arrays = {"0.bias": self.first[:, 1:, 0], "0.weight": self.first[:, 1:, 1 : 1 + self.inputs]}
        for block, following, layer in zip(self.blocks, self.blocks[1:], self._layers, strict=False):
            begin = 0 if layer.last else 1  # the constant is not learnt
            arrays[f"{following}.weight"] = layer.table[:, begin : layer.following]
            arrays[f"{block}.readout"] = layer.readout
        arrays["mistakes"] = np.array(self.mistakes, np.float64)
        arrays["uncounted"] = np.array(float(self.uncounted))
        readouts = [name for name in arrays if name.endswith(".readout")]
        # How wide an array is decides how its sums are rounded, so the room for more inputs is kept too.
        sizes = {"inputs": self.inputs, "outputs": self.outputs, "width": self.first.shape[2]}
        return State(
            arrays,
            sizes | {"paces": self.paces.tolist()},
            features={"0.weight": 2},
            classes=dict.fromkeys([*readouts, f"{self.blocks[-1]}.weight"], 1),
        )

    def load_state(self, state: State) -> None:
        """Take over what others of the same shape have learnt."""
        inputs, outputs = state.whole("inputs"), state.whole("outputs")
        width, paces = state.whole("width", least=1 + inputs), state.record.get("paces")
        copies = len(self.paces)
        if not isinstance(paces, list) or [type(pace) for pace in paces] != [float] * copies or min(paces) <= 0:
            raise DataError(f"the paces are {paces!r}, not {copies} numbers above 0")
        if width > 2 + 3 * inputs:
            raise DataError(f"there is room for {width - 1} inputs, but there are {inputs}")
        mistakes, uncounted = state.array("mistakes", copies), state.array("uncounted")
        if (mistakes < 0).any() or uncounted < 0:
            raise DataError("mistakes and samples must be counted from 0 up")
        first = np.zeros((copies, 1 + self.hidden[0], width))
        first[:, 0, 0] = _CONSTANT
        first[:, 1:, 0] = state.array("0.bias", copies, self.hidden[0])
        first[:, 1:, 1 : 1 + inputs] = state.array("0.weight", copies, self.hidden[0], inputs)
        tables = []
        following = [*self.hidden[1:], outputs]
        for number, (units, rows) in enumerate(zip(self.hidden, following, strict=True)):
            constant = np.zeros((copies, int(number < len(self.hidden) - 1), 1 + units))
            constant[:, :, 0] = _CONSTANT
            weight = state.array(f"{self.blocks[number + 1]}.weight", copies, rows, 1 + units)
            readout = state.array(f"{self.blocks[number]}.readout", copies, outputs, 1 + units)
            tables.append(np.concatenate([constant, weight, readout], 1))
        self.inputs, self.outputs, self.first, self.tables = inputs, outputs, first, tables
        self.paces = np.array(paces)
        self.mistakes, self.uncounted = mistakes.tolist(), round(float(uncounted))
        self._arrange()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._arrange()

    def __reduce__(self) -> tuple[Any, ...]:
        # What is loaded elsewhere learns as fast as it can there.
        return _blank, (), self.__getstate__()


class _Layer:
    """A hidden layer's table, and what the steps of one sample work in.

    Attributes
    ----------
    following
        How many rows of the table are the weights of what follows; the rest are the readout.
    a
        What the layer puts out, ``[copies, 1 + units]``; `flat`, `column` and `row` are views of it.
    read
        What the table makes of it, ``[copies, rows, 1]``: `upward` for what follows, and the `answers`.
    errors
        The errors at what was read, times how far the layer goes, ``[copies, rows, 1]``.
    """

    def __init__(self, table: Vector, outputs: int, *, last: bool) -> None:
        copies, rows, width = table.shape
        self.table = table
        self.last = last
        self.following = rows - outputs
        self.readout = table[:, self.following :]
        self.biases = self.readout[:, :, 0]
        self.flat = np.zeros(copies * width)
        self.a = self.flat.reshape(copies, width)
        self.column, self.row = self.a[:, :, None], self.a[:, None, :]
        self.squares, self.ones, self.total = np.zeros((copies, 1, width)), np.ones((copies, 1, width)), np.ones(width)
        self.read = np.zeros((copies, rows, 1))
        self.upward, self.answers = self.read[:, : self.following, 0], self.read[:, self.following :, 0]
        self.errors = np.zeros((copies, rows, 1))
        self.flat_errors = self.errors[:, :, 0]
        transposed = self.errors.swapaxes(1, 2)
        self.upward_errors, self.answer_errors = transposed[:, :, : self.following], transposed[:, :, self.following :]
        self.step = np.zeros_like(table)


class _Batch(NamedTuple):
    """Many samples on their way: the input with its constant, and each layer's output and what was read of it."""

    x: Vector
    a: tuple[Vector, ...]
    read: tuple[Vector, ...]
    answers: Vector


def build(hidden: Sequence[int], paces: Sequence[float], loss: StreamLoss, seed: int) -> Perceptrons:
    """Return perceptrons that learn as fast as what is installed allows."""
    return _fastest()(hidden, paces, loss, seed)


def _fastest() -> type[Perceptrons]:
    compiled = fast.compiled()
    return Perceptrons if compiled is None else compiled.CompiledPerceptrons


def _blank() -> Perceptrons:
    return object.__new__(_fastest())


def _softmax(z: Vector) -> Vector:
    """Return the exponentials over the last axis but one, divided by their sum."""
    z = z - z.max(-2, keepdims=True, initial=-np.inf)
    np.exp(z, out=z)
    z /= z.sum(-2, keepdims=True)
    return z


def _spectral(x: Vector) -> Vector:
    """Return what `fedtp.normalization.spectral_norm` does, ``[copies, 1, 1]``, of ``[copies, units, samples]``."""
    samples = x.shape[2]
    v = np.full((len(x), samples, 1), 1.0 / math.sqrt(samples))
    size: Vector = np.zeros((len(x), 1, 1))
    for _ in range(2):
        v = np.matmul(x.swapaxes(1, 2), np.matmul(x, v))
        size = np.sqrt(np.matmul(v.swapaxes(1, 2), v))
        v /= np.maximum(size, 1e-30)
    size /= samples
    return size
