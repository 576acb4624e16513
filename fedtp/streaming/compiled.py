"""The steps of `fedtp.streaming.perceptrons` and `fedtp.streaming.features`, compiled by Numba.

NumPy takes longer to begin its forty operations on a sample than to carry them out; here a sample is one call forward
and one to learn. The numbers are NumPy's but for the order of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numba
import numpy as np

from fedtp.streaming.features import Vector
from fedtp.streaming.perceptrons import CURVATURE, HIDDEN_RATE, Perceptrons

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Sums may be reordered, for processors add several numbers at a time. NaN and infinite numbers stay what they are. Not
#: so in a loop that also writes: there the order would depend on where in memory the arrays happen to lie.
_REORDER = {"reassoc", "contract", "nsz"}


def _compiled(*signature: Any, fastmath: set[str] | bool = _REORDER) -> Callable[[_Function], _Function]:
    """Compile a function, and keep the result on disk where there is a place for it.

    What is kept does not notice that a number in another file has changed: such numbers are arguments.
    """
    # NumPy's rule for divisions by 0: a check before each would keep loops from working on several numbers at once.
    njit: Any = partial(numba.njit, *signature, error_model="numpy", fastmath=fastmath)

    def compiled(function: _Function) -> _Function:
        made: _Function
        try:
            made = njit(cache=True)(function)
        except RuntimeError:  # neither beside this file nor in the user's folder may anything be written
            made = njit()(function)
        return made

    return compiled


_VECTOR = numba.float64[::1]
_VALUES = numba.types.Array(numba.float64, 1, "C", readonly=True)
_ROWS = numba.types.Array(numba.float64, 2, "C", readonly=True)


@_compiled(numba.void(_VALUES, _VECTOR, _VECTOR, _VECTOR, _VECTOR))
def standardize(values: Vector, weights: Vector, means: Vector, variances: Vector, into: Vector) -> None:
    """Do what `Features.standardized` does with one sample."""
    for i in range(len(values)):
        deviation = values[i] - means[i]
        spread = deviation * deviation * weights[i] + variances[i]
        into[i] = 0.0 if deviation != deviation else deviation / math.sqrt(spread)


@_compiled(numba.void(_VALUES, _VECTOR, _VECTOR, _VECTOR, _VECTOR, numba.float64))
def learn_values(
    values: Vector, counts: Vector, means: Vector, variances: Vector, weights: Vector, least_variance: float
) -> None:
    """Do what `Features.learn` does."""
    for i in range(len(values)):
        deviation = values[i] - means[i]
        if deviation == deviation:
            weight = weights[i]
            means[i] += weight * deviation
            spread = weight * deviation * deviation + variances[i]
            variances[i] = (1.0 - weight) * spread
            if counts[i] == 0.0:
                variances[i] += least_variance
            counts[i] += 1.0
            weights[i] = 1.0 / (counts[i] + 1.0)


@_compiled(numba.void(_ROWS, _VECTOR, _VECTOR, _VECTOR, numba.float64[:, ::1]))
def standardize_many(values: Vector, weights: Vector, means: Vector, variances: Vector, into: Vector) -> None:
    """Do what `Features.standardized` does with many samples."""
    for row in range(len(values)):
        standardize(values[row], weights, means, variances, into[row])


@_compiled(numba.void(_ROWS, _VECTOR, _VECTOR, _VECTOR, _VECTOR, numba.float64))
def learn_values_many(
    values: Vector, counts: Vector, means: Vector, variances: Vector, weights: Vector, least_variance: float
) -> None:
    """Do what `Features.learn_many` does."""
    for row in range(len(values)):
        learn_values(values[row], counts, means, variances, weights, least_variance)


#: The terms of the series of exp, last to first.
_SERIES = tuple([1.0 / math.factorial(n) for n in reversed(range(14))])


@_compiled(fastmath=False)  # the order of operations is what makes it exact
def _tanh(z: Vector) -> None:
    """Replace numbers by their tanh.

    That of the mathematical library does one at a time, and takes five times as long. It is 1 - 2 / (exp(2z) + 1), and
    exp(x) is 2^k exp(r) with a whole k and |r| below 0.35, where so many terms of the series are exact.
    """
    for i in range(len(z)):
        x = 2.0 * z[i]
        x = 40.0 if x > 40.0 else -40.0 if x < -40.0 else x  # beyond it is 1 in double precision
        shifted = np.float64(x * 1.4426950408889634 + 6755399441055744.0)  # 1.5 * 2^52: the last bits hold k
        k = shifted - 6755399441055744.0
        r = x - k * 6.93145751953125e-1 - k * 1.42860682030941723212e-6  # log 2, whose first part is exact times k
        series = 0.0
        for n in range(len(_SERIES)):
            series = series * r + _SERIES[n]
        power = np.int64((shifted.view(np.int64) + 1023) << 52).view(np.float64)
        z[i] = 1.0 - 2.0 / (series * power + 1.0)


@_compiled(fastmath=False)
def _softmax(read: Vector, into: Vector) -> None:
    largest = read.max() if len(read) else 0.0
    total = 0.0
    for k in range(len(read)):
        into[k] = math.exp(read[k] - largest)
        total += into[k]
    for k in range(len(read)):
        into[k] /= total


@_compiled()
def forward(
    sample: Vector,
    combined: Vector,
    first: Vector,
    tables: tuple[Vector, ...],
    x: Vector,
    activations: tuple[Vector, ...],
    reads: tuple[Vector, ...],
    answers: Vector,
    shares: Vector,
    classes: bool,
) -> None:
    """Do what `Perceptrons.forward` does, into `combined`."""
    x[1 : 1 + len(sample)] = sample
    copies, _, outputs = answers.shape
    combined[:] = 0.0
    for copy in range(copies):
        _product(first[copy], x, activations[0][copy])
        _tanh(activations[0][copy])
        for layer in range(len(tables)):
            read = reads[layer][copy]
            _product(tables[layer][copy], activations[layer][copy], read)
            if layer + 1 < len(tables):
                above = activations[layer + 1][copy]
                above[:] = read[: len(above)]
                _tanh(above)
        for half in range(2):
            of_half = read[half * outputs : (half + 1) * outputs]
            if classes:
                _softmax(of_half, answers[copy, half])
            else:
                answers[copy, half] = of_half
        for k in range(outputs):
            combined[k] += shares[copy] * answers[copy, 0, k]


@_compiled()
def _product(matrix: Vector, vector: Vector, into: Vector) -> None:
    for row in range(len(matrix)):
        total = 0.0
        for column in range(len(vector)):
            total += matrix[row, column] * vector[column]
        into[row] = total


@_compiled(fastmath=False)
def _judge(judged: Vector, target: Vector, wrong: Vector, classes: bool) -> bool:
    """Note how wrong each copy was, and return whether any was."""
    anyone = False
    for copy in range(len(wrong)):
        if classes:
            wrong[copy] = 0.0 if judged[copy, 0].argmax() == target.argmax() else 1.0
        else:
            wrong[copy] = 0.0
            for k in range(len(target)):
                wrong[copy] += (target[k] - judged[copy, 0, k]) ** 2
        anyone |= wrong[copy] > 0.0
    return anyone


@_compiled()
def learn(
    target: Vector,
    first: Vector,
    tables: tuple[Vector, ...],
    x: Vector,
    activations: tuple[Vector, ...],
    reads: tuple[Vector, ...],
    answers: Vector,
    errors: tuple[Vector, ...],
    first_errors: Vector,
    paces: Vector,
    hidden_rate: float,
    judged: Vector,
    wrong: Vector,
    classes: bool,
) -> bool:
    """Do what `Perceptrons.learn` does, and return whether a copy was wrong."""
    copies, _, outputs = answers.shape
    last = len(tables) - 1
    for copy in range(copies):
        pace, hidden_pace = paces[copy], hidden_rate * paces[copy]
        below = first_errors[copy]
        for layer in range(len(tables)):
            error = errors[layer][copy]
            following = len(error) - outputs
            of_answers = error[following:]
            if layer == last:
                of_answers[:] = answers[copy, 1]
                for k in range(outputs):
                    error[k] = pace * (target[k] - answers[copy, 0, k])
            elif classes:
                _softmax(reads[layer][copy, following:], of_answers)
            else:
                of_answers[:] = reads[layer][copy, following:]
            a, readout = activations[layer][copy], tables[layer][copy, following:]
            below[: len(a)] = 0.0
            for k in range(outputs):
                of_answers[k] = hidden_pace * (target[k] - of_answers[k])
                for unit in range(len(a)):
                    below[unit] += of_answers[k] * readout[k, unit]
            for unit in range(len(a)):
                below[unit] *= 1.0 - a[unit] * a[unit]
            below = error
        _move(first[copy], first_errors[copy], x, 0)
        for layer in range(len(tables)):
            _move(tables[layer][copy], errors[layer][copy], activations[layer][copy], outputs)
    return _judge(judged, target, wrong, classes)


@_compiled()
def _move(matrix: Vector, errors: Vector, a: Vector, readouts: int) -> None:
    """Follow errors, divided by the squared norm of the input `a`; the last rows are readouts, which have no bias."""
    norm = 0.0
    for column in range(len(a)):
        norm += a[column] * a[column]
    for row in range(len(matrix)):
        error = errors[row] / norm
        for column in range(len(a)):
            matrix[row, column] += error * a[column]
    for row in range(len(matrix) - readouts, len(matrix)):
        matrix[row, 0] = 0.0


@_compiled()
def forward_many(
    first: Vector,
    tables: tuple[Vector, ...],
    x: Vector,
    activations: tuple[Vector, ...],
    reads: tuple[Vector, ...],
    answers: Vector,
    shares: Vector,
    classes: bool,
) -> Vector:
    """Do what `Perceptrons.forward_many` does."""
    copies, _, outputs, samples = answers.shape
    combined = np.zeros((outputs, samples))
    for copy in range(copies):
        np.dot(first[copy], x, activations[0][copy])
        _tanh(activations[0][copy].ravel())
        for layer in range(len(tables)):
            read = reads[layer][copy]
            np.dot(tables[layer][copy], activations[layer][copy], read)
            if layer + 1 < len(tables):
                above = activations[layer + 1][copy]
                above[:] = read[: len(above)]
                _tanh(above.ravel())
        for half in range(2):
            answers[copy, half] = read[half * outputs : (half + 1) * outputs]
            if classes:
                _softmax_many(answers[copy, half])
        combined += shares[copy] * answers[copy, 0]
    return combined


@_compiled(fastmath=False)
def _softmax_many(z: Vector) -> None:
    for sample in range(z.shape[1]):
        largest = -np.inf
        for k in range(len(z)):
            largest = max(largest, z[k, sample])
        total = 0.0
        for k in range(len(z)):
            z[k, sample] = math.exp(z[k, sample] - largest)
            total += z[k, sample]
        for k in range(len(z)):
            z[k, sample] /= total


@_compiled()
def learn_many(
    target: Vector,
    first: Vector,
    tables: tuple[Vector, ...],
    x: Vector,
    activations: tuple[Vector, ...],
    reads: tuple[Vector, ...],
    answers: Vector,
    paces: Vector,
    hidden_rate: float,
    curvature: float,
    classes: bool,
) -> None:
    """Do what `Perceptrons.learn_many` does once the copies have been judged; `reads` become errors."""
    copies, _, outputs, _ = answers.shape
    last = len(tables) - 1
    input_norm = _norm(x, curvature)
    for copy in range(copies):
        pace, hidden_pace = paces[copy], hidden_rate * paces[copy]
        below = first_errors = np.empty_like(activations[0][copy])
        for layer in range(len(tables)):
            errors, a = reads[layer][copy], activations[layer][copy]
            following = len(errors) - outputs
            of_answers = errors[following:]
            if layer == last:
                errors[:outputs] = pace * (target - answers[copy, 0])
                of_answers[:] = answers[copy, 1]
            elif classes:
                _softmax_many(of_answers)
            of_answers[:] = hidden_pace * (target - of_answers)
            below[: len(a)] = np.dot(tables[layer][copy, following:].T, of_answers) * (1.0 - a * a)
            below = errors
        first[copy] += np.dot(first_errors / input_norm, x.T)
        for layer in range(len(tables)):
            a = activations[layer][copy]
            tables[layer][copy] += np.dot(reads[layer][copy] / _norm(a, curvature), a.T)
            tables[layer][copy, -outputs:, 0] = 0.0


@_compiled()
def _norm(a: Vector, curvature: float) -> float:
    samples: int = a.shape[1]
    norm: float = 0.0
    for number in a.flat:
        norm += number * number
    norm /= samples
    if samples == 1 or curvature * samples <= 1.0:
        return norm
    units = a[1:]
    v = np.full(samples, 1.0 / math.sqrt(samples))
    size = 0.0
    for _ in range(2):
        v = np.dot(units.T, np.dot(units, v))
        size = math.sqrt(np.dot(v, v))
        v /= max(size, 1e-30)
    return max(norm, curvature * samples * (1.0 + size / samples))


class CompiledPerceptrons(Perceptrons):
    """`Perceptrons` whose steps are compiled; the state is the same."""

    def forward(self, x: Vector) -> Vector:  # noqa: D102
        combined = np.empty(self.outputs)
        forward(x, combined, *self._passed, self._shares, self._classes)
        return combined

    def learn(self, target: Vector, guesses: Vector | None = None) -> None:  # noqa: D102
        judged = self._answers if guesses is None else np.stack([guesses, guesses], 1)
        erred = learn(target, *self._passed, *self._learning, judged, self._wrong, self._classes)
        self._count(self._wrong.tolist() if erred else None)

    def forward_many(self, x: Vector) -> Vector:  # noqa: D102
        combined: Vector = forward_many(self.first, self._tables, *self._entered(x), self._shares, self._classes)
        return combined

    def learn_many(self, target: Vector) -> None:  # noqa: D102
        assert self._batch is not None, "what is learnt has been passed forward"
        self._judge_many(self._batch.answers[:, 0], target)
        settings = self.paces, HIDDEN_RATE, CURVATURE[self.loss], self._classes
        learn_many(np.ascontiguousarray(target), self.first, self._tables, *self._batch, *settings)

    def _arrange(self) -> None:
        super()._arrange()
        copies = len(self.paces)
        self._answers = np.zeros((copies, 2, self.outputs))
        self._wrong = np.zeros(copies)
        self._classes = self.loss == "cross_entropy"
        self._tables = tuple(self.tables)
        self._passed = (
            self.first,
            self._tables,
            self._x,
            tuple([layer.a for layer in self._layers]),
            tuple([layer.read[:, :, 0] for layer in self._layers]),
            self._answers,
        )
        errors = tuple([layer.flat_errors for layer in self._layers])
        self._learning = errors, self._first_errors.reshape(copies, -1), self.paces, HIDDEN_RATE
