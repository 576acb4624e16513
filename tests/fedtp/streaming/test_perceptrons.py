"""Perceptrons against PyTorch's tpSGD, compiled steps against NumPy's, and what growing may change."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedtp import TPSGD
from fedtp.streaming import fast
from fedtp.streaming.features import LARGEST
from fedtp.streaming.perceptrons import HIDDEN_RATE, LOSSES, Perceptrons, StreamLoss, build

PACES = (0.3, 0.1, 0.02)
NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(params=["numpy", "numba"], autouse=True)
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whatever is tested holds of NumPy's steps and of compiled ones."""
    monkeypatch.setattr(fast, "enabled", request.param == "numba")
    if request.param == "numba":
        pytest.importorskip("numba")
    return request.param  # type: ignore[no-any-return]


def grown(
    hidden: Sequence[int] = (6,),
    paces: Sequence[float] = PACES,
    loss: StreamLoss = "cross_entropy",
    *,
    seed: int = 3,
    inputs: Sequence[Hashable] = NAMES[:3],
    outputs: Sequence[str] = ("x", "y"),
) -> Perceptrons:
    network = build(hidden, paces, loss, seed)
    network.grow_inputs(inputs)
    network.grow_outputs(outputs)
    return network


def samples(network: Perceptrons, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw samples, and targets that can be learnt: ``[samples, inputs]``, ``[samples, outputs]``."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, network.inputs))
    scores = x @ np.random.default_rng(9).normal(size=(network.inputs, network.outputs))
    if network.loss == "squared":
        return x, np.sin(scores)
    return x, np.eye(network.outputs)[scores.argmax(1)]


def teach(network: Perceptrons, count: int = 50, seed: int = 0) -> None:
    for x, target in zip(*samples(network, count, seed), strict=True):
        network.forward(x)
        network.learn(target)


def arrays(network: Perceptrons) -> list[np.ndarray]:
    return [network.first[:, :, : 1 + network.inputs], *network.tables, np.array(network.mistakes)]


def assert_same(one: Perceptrons, other: Perceptrons, **tolerance: float) -> None:
    for mine, theirs in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_allclose(mine, theirs, **{"rtol": 0.0, "atol": 0.0, **tolerance})


def test_builds_what_is_wanted(steps: str) -> None:
    assert type(grown()).__name__ == {"numpy": "Perceptrons", "numba": "CompiledPerceptrons"}[steps]


# PyTorch's tpSGD


class InPyTorch:
    """`fedtp.TPSGD` on the same network, with the weights that perceptrons of one copy have."""

    def __init__(self, network: Perceptrons, lr: float) -> None:
        widths = [network.inputs, *network.hidden, network.outputs]
        self.linear = [nn.Linear(i, o, dtype=torch.float64) for i, o in pairwise(widths)]
        layers: list[nn.Module] = []
        for linear in self.linear:
            layers += [linear, nn.Tanh()]
        self.model = nn.Sequential(*layers[:-1])
        for linear, weights in zip(self.linear, self.weights(network), strict=True):
            linear.weight.data[:], linear.bias.data[:] = weights[:, 1:], weights[:, 0]
        self.optimizer = TPSGD(
            self.model, seed=network.seed, lr=lr, loss=network.loss, readout="learnt", grid=None, classes=["x", "y"]
        )
        for group in self.optimizer.param_groups[:-1]:
            group["lr"] = HIDDEN_RATE * lr
        for readout, mine in zip(self.optimizer.learnt_readouts().values(), self.readouts(network), strict=True):
            # The projection is the same, and the gain is not.
            torch.testing.assert_close(readout.sign(), mine.sign())
            readout[:] = mine

    @staticmethod
    def weights(network: Perceptrons) -> list[torch.Tensor]:
        """Return each layer's weights, with its bias in the first column."""
        following = [table[0, : table.shape[1] - network.outputs] for table in network.tables]
        made = [network.first[0, 1:, : 1 + network.inputs], *(rows[1:] for rows in following[:-1]), following[-1]]
        return [torch.from_numpy(matrix.copy()) for matrix in made]

    @staticmethod
    def readouts(network: Perceptrons) -> list[torch.Tensor]:
        return [torch.from_numpy(table[0, -network.outputs :, 1:].copy()) for table in network.tables]

    def assert_same(self, network: Perceptrons) -> None:
        for linear, weights in zip(self.linear, self.weights(network), strict=True):
            torch.testing.assert_close(linear.weight.data, weights[:, 1:], rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(linear.bias.data, weights[:, 0], rtol=1e-9, atol=1e-11)
        for readout, mine in zip(self.optimizer.learnt_readouts().values(), self.readouts(network), strict=True):
            torch.testing.assert_close(readout, mine, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("hidden", [(7,), (7, 5)])
@pytest.mark.parametrize("batches", [(1,) * 60, (2, 40, 3, 16, 33, 8, 9, 7, 1, 25, 40)], ids=["samples", "batches"])
def test_learns_what_tpsgd_does(loss: StreamLoss, hidden: tuple[int, ...], batches: tuple[int, ...]) -> None:
    network = grown(hidden, (0.4,), loss)
    theirs = InPyTorch(network, 0.4)
    start = arrays(network)[0].copy()
    for step, size in enumerate(batches):
        x, target = samples(network, size, seed=step)
        x *= 3.0 if step % 2 else 0.3  # both rules of a batch's step
        x[size // 2 :] = x[0]
        if len(batches) == 60:
            answer = network.forward(x[0])[:, None]
            network.learn(target[0])
        else:
            answer = network.forward_many(x)
            network.learn_many(np.ascontiguousarray(target.T))
        y = torch.from_numpy(target)
        theirs.optimizer.step(torch.from_numpy(x), y.argmax(1) if loss == "cross_entropy" else y)
        assert theirs.optimizer.output is not None
        put_out = theirs.optimizer.output.softmax(1) if loss == "cross_entropy" else theirs.optimizer.output
        np.testing.assert_allclose(answer, put_out.T.numpy(), rtol=1e-9, atol=1e-11)
        theirs.assert_same(network)
    assert abs(arrays(network)[0] - start).max() > 0.01


# Compiled steps


@settings(max_examples=25, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    copies=st.integers(1, 4),
    outputs=st.integers(1, 4),
    loss=st.sampled_from(LOSSES),
    parts=st.lists(st.sampled_from(["samples", "batch", "late", "input", "output", "paces"]), max_size=12),
    seed=st.integers(0, 99),
)
def test_compiled_steps_are_those_of_numpy(
    hidden: list[int], copies: int, outputs: int, loss: StreamLoss, parts: list[str], seed: int
) -> None:
    compiled = pytest.importorskip("fedtp.streaming.compiled")
    paces = (0.4, 0.1, 0.05, 0.01)[:copies]
    both = [kind(hidden, paces, loss, seed) for kind in (Perceptrons, compiled.CompiledPerceptrons)]
    for network in both:
        network.grow_inputs(NAMES[:2])
        network.grow_outputs([f"{k}" for k in range(outputs)])
    for step, part in enumerate(["samples", *parts, "samples", "batch"]):
        x, targets = samples(both[0], 20, seed + step)
        answers: list[Any] = []
        for network in both:
            if part == "input":
                network.grow_inputs([f"new{step}"])
            elif part == "output":
                network.grow_outputs([f"new{step}"])
            elif part == "paces":
                network.set_paces(network.paces * 0.8)
            elif part == "batch":
                size = 1 + step % 20
                answers.append(network.forward_many(x[:size]))
                network.learn_many(targets[:size].T)
            else:
                for sample, target in zip(x, targets, strict=True):
                    answers.append(network.forward(sample).copy())
                    guesses = network.guesses()
                    network.learn(target, np.roll(guesses, 1, 1) if part == "late" else None)
        for mine, theirs in zip(answers[: len(answers) // 2], answers[len(answers) // 2 :], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-11)
        assert_same(*both, rtol=1e-9, atol=1e-11)
        assert both[0].uncounted == both[1].uncounted


def test_compiled_tanh() -> None:
    compiled = pytest.importorskip("fedtp.streaming.compiled")
    z = np.concatenate([np.linspace(-50, 50, 20001), np.logspace(-300, 308, 999), [0.0, np.inf, -np.inf, np.nan, 20.0]])
    made = z.copy()
    compiled._tanh(made)
    np.testing.assert_allclose(made, np.tanh(z), rtol=0, atol=5e-16)
    assert made[-1] == 1.0


def test_compiles_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, numba = pytest.importorskip("fedtp.streaming.compiled"), pytest.importorskip("numba")
    usual = numba.njit

    def without_a_place(*signature: Any, cache: bool = False, **options: Any) -> Any:
        def refuse(function: Any) -> Any:
            raise RuntimeError("cannot cache function: no locator available")

        return refuse if cache else usual(*signature, **options)

    monkeypatch.setattr(numba, "njit", without_a_place)
    assert compiled._compiled()(lambda x: x + 1)(2) == 3


def test_numba_is_imported_with_the_first_learner_only() -> None:
    code = (
        "import sys, fedtp.streaming; assert 'numba' not in sys.modules; "
        "from fedtp.streaming import fast; fast.enabled = False; fedtp.streaming.TPClassifier(); "
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_numba_steps_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "enabled", True)
    monkeypatch.setitem(sys.modules, "fedtp.streaming.compiled", None)  # importing it raises ImportError
    monkeypatch.delattr("fedtp.streaming.compiled", raising=False)
    assert type(build((4,), (1.0,), "cross_entropy", 0)) is Perceptrons


@pytest.mark.parametrize("loss", LOSSES)
def test_pickles_are_the_same_with_numba_and_without(loss: StreamLoss, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    network = grown(loss=loss)
    teach(network)
    pickled = pickle.dumps(network)
    kinds = []
    for enabled in (True, False):
        monkeypatch.setattr(fast, "enabled", enabled)
        kinds.append(pickle.loads(pickled))
    assert len({type(kind) for kind in kinds}) == 2
    for kind in kinds:
        teach(kind, seed=1)
    assert_same(*kinds, rtol=1e-9, atol=1e-12)


# Growth


@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
@pytest.mark.parametrize("loss", LOSSES)
def test_new_inputs_leave_answers_as_they_were(loss: StreamLoss, hidden: tuple[int, ...]) -> None:
    network = grown(hidden, loss=loss)
    teach(network)
    x = samples(network, 9, seed=5)[0]
    before, many = [network.forward(row).tolist() for row in x], network.forward_many(x)
    network.grow_inputs(["d"])
    network.grow_inputs(["e", 7, ("f", 1)])
    padded = np.hstack([x, np.zeros((9, 4))])
    assert [network.forward(row).tolist() for row in padded] == before
    np.testing.assert_allclose(network.forward_many(padded), many, rtol=1e-12)


@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
def test_new_classes_leave_the_ratios_of_old_ones(hidden: tuple[int, ...]) -> None:
    network = grown(hidden)
    teach(network)
    x = samples(network, 9, seed=5)[0]

    def guesses() -> np.ndarray:
        made = []
        for row in x:
            network.forward(row)
            made.append(network.guesses())
        return np.array(made)

    before = guesses()
    network.grow_outputs(["z", "w"])
    after = guesses()
    np.testing.assert_allclose(after[..., 1] / after[..., 0], before[..., 1] / before[..., 0], rtol=1e-12)
    # The new ones' logits are 0.
    np.testing.assert_array_equal(after[..., 2], after[..., 3])


def test_new_values_leave_the_old_ones() -> None:
    network = grown(loss="squared")
    teach(network)
    x = samples(network, 1, seed=5)[0][0]
    before = network.forward(x).copy()
    network.grow_outputs(["z"])
    assert network.forward(x).tolist() == [*before.tolist(), 0.0]


def test_weights_depend_on_the_seed_and_the_name_alone() -> None:
    one = grown((6, 5), inputs=("a", "b", "c"), outputs=("x", "y"))
    other = build((6, 5), PACES, "cross_entropy", 3)
    for name in ("c", "q", "a", "r", "s", "t", "b"):
        other.grow_inputs([name])
    for key in ("v", "y", "x"):
        other.grow_outputs([key])
    np.testing.assert_array_equal(one.first[:, :, [0, 1, 2, 3]], other.first[:, :, [0, 3, 7, 1]])
    assert other.first.shape[2] - 1 < 2 * other.inputs
    for layer, (mine, theirs) in enumerate(zip(one.tables, other.tables, strict=True)):
        following = theirs.shape[1] - 3
        np.testing.assert_array_equal(mine[:, -2:], theirs[:, [following + 2, following + 1]])
        if layer == 0:
            np.testing.assert_array_equal(mine[:, :following], theirs[:, :following])
    elsewhere = grown((6, 5), seed=4)
    assert not np.isin(one.first[:, 1:], elsewhere.first[:, 1:]).any()
    copies = one.first[:, 1:]
    assert not np.isin(copies[0], copies[1]).any()


def test_late_inputs_learn() -> None:
    network = grown()
    teach(network)
    network.grow_inputs(["late"])
    before = network.first[:, :, network.inputs].copy()
    teach(network)
    assert (abs(network.first[:, 1:, network.inputs] - before[:, 1:]) > 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("many", [False, True])
def test_constants_stay_as_they_are(loss: StreamLoss, many: bool) -> None:
    network = grown((6, 5), loss=loss)
    constants = [network.first[:, 0].copy(), network.tables[0][:, 0].copy()]
    if many:
        for step in range(20):
            x, target = samples(network, 8, step)
            network.forward_many(x)
            network.learn_many(target.T)
    else:
        teach(network)
    np.testing.assert_array_equal(network.first[:, 0], constants[0])
    np.testing.assert_array_equal(network.tables[0][:, 0], constants[1])
    assert (np.tanh(constants[0][:, 0]) == 1.0).all()
    for table in network.tables:
        assert (table[:, table.shape[1] - network.outputs :, 0] == 0.0).all()
    assert (network.tables[-1][:, : network.outputs, 0] != 0.0).all()  # the others have a bias


# State


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
def test_pickles_go_on_bit_for_bit(loss: StreamLoss, hidden: tuple[int, ...]) -> None:
    network = grown(hidden, loss=loss)
    teach(network)
    loaded = pickle.loads(pickle.dumps(network))
    assert type(loaded) is type(network)
    x = samples(network, 1, seed=8)[0][0]
    assert loaded.forward(x).tolist() == network.forward(x).tolist()
    for each in (network, loaded):
        teach(each, seed=1)
        each.grow_inputs(["late"])
        each.grow_outputs(["late"])
        teach(each, seed=2)
    assert_same(network, loaded)
    assert loaded.uncounted == network.uncounted


def test_mistakes_are_plain_numbers() -> None:
    network = grown()
    teach(network)
    assert {type(mistakes) for mistakes in network.mistakes} == {float}
    x, target = samples(network, 8)
    network.forward_many(x)
    network.learn_many(target.T)
    assert {type(mistakes) for mistakes in network.mistakes} == {float}


def test_forgets_mistakes_alike_one_by_one_and_in_batches() -> None:
    one = grown()
    teach(one)
    one.set_paces(np.full(3, 1e-15))
    many = pickle.loads(pickle.dumps(one))
    for step in range(3):
        x, target = samples(one, 40, step)
        for row, wanted in zip(x, target, strict=True):
            one.forward(row)
            one.learn(wanted)
        many.forward_many(x)
        many.learn_many(target.T)
    np.testing.assert_allclose(one.mistakes, many.mistakes, rtol=1e-9)
    assert one.uncounted == many.uncounted
    assert min(one.mistakes) > 0.0


def test_is_judged_by_late_guesses() -> None:
    network = grown()
    x, target = samples(network, 1)
    network.forward(x[0])
    right, wrong = target[0], target[0][::-1]
    network.learn(target[0], np.array([right, wrong, right]))
    assert network.mistakes == [0.0, 1.0, 0.0]


def test_changing_paces_between_forward_and_learn_loses_nothing() -> None:
    network, usual = grown(), grown()
    x, target = samples(network, 1)
    for each in (network, usual):
        each.forward(x[0])
    network.set_paces(np.array(PACES))
    for each in (network, usual):
        each.learn(target[0])
    assert_same(network, usual)


# Edges


@pytest.mark.parametrize("loss", LOSSES)
def test_answers_before_there_are_inputs_or_outputs(loss: StreamLoss) -> None:
    network = build((4, 3), PACES, loss, 0)
    assert network.forward(np.zeros(0)).shape == (0,)
    assert network.forward_many(np.zeros((2, 0))).shape == (0, 2)
    network.grow_outputs(["x", "y"])
    expected = 0.5 if loss == "cross_entropy" else 0.0
    assert network.forward(np.zeros(0)).tolist() == [expected] * 2
    assert network.forward_many(np.zeros((3, 0))).tolist() == [[expected] * 3] * 2
    network.learn(np.array([1.0, 0.0]))
    network.grow_inputs(["a"])
    teach(network)
    assert all(np.isfinite(array).all() for array in arrays(network))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1e150, -1e75, 1e-200, 0.0])
def test_inputs_of_any_size_leave_no_nan(loss: StreamLoss, size: float) -> None:
    network = grown((5, 4), loss=loss)
    x = np.array([size, -size, size])
    for _ in range(5):
        assert np.isfinite(network.forward(x)).all()
        network.learn(np.array([1.0, 0.0]))
        if abs(size) > LARGEST:
            continue
        assert np.isfinite(network.forward_many(np.array([x, -x]))).all()
        network.learn_many(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert all(np.isfinite(array).all() for array in arrays(network))


@pytest.mark.filterwarnings("error")
def test_logits_far_apart() -> None:
    network = grown()
    network.tables[-1][0, 0, 0] = 2000.0  # of one copy: the others' must not vanish beside it
    network.tables[-1][1, 1, 0] = -2000.0
    x, _ = samples(network, 1)
    answer = network.forward(x[0])
    assert answer.sum() == pytest.approx(1.0)
    guesses = network.guesses()
    np.testing.assert_allclose(guesses.sum(1), 1.0)
    np.testing.assert_allclose(guesses[:2], [[1.0, 0.0], [1.0, 0.0]])
    assert 0.0 < guesses[2, 0] < 1.0
    network.learn(np.array([0.0, 1.0]))
    assert all(np.isfinite(array).all() for array in arrays(network))
    np.testing.assert_allclose(network.forward_many(x).sum(0), 1.0)


def test_answers_and_guesses_are_the_callers_own() -> None:
    network = grown()
    x = samples(network, 2)[0]
    answer = network.forward(x[0])
    guesses = network.guesses()
    kept = answer.copy(), guesses.copy()
    network.forward(x[1])
    network.guesses()[:] = 9.0
    np.testing.assert_array_equal(answer, kept[0])
    np.testing.assert_array_equal(guesses, kept[1])
    assert network.guesses().max() <= 1.0
