"""Any network on a stream: the same as NumPy's where both can, growth, and networks that cannot learn."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from river import checks, datasets, metrics
from torch import nn

from fedtp.errors import ModelError
from fedtp.streaming import TPClassifier, TPRegressor, load, merge
from fedtp.streaming.features import Vector
from fedtp.streaming.perceptrons import Perceptrons
from fedtp.streaming.torch_networks import TorchNetworks

PACES = [1.0, 0.3, 0.05]


def build(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 12),
        nn.LayerNorm(12),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(12, 8),
        nn.Tanh(),
        nn.Linear(8, outputs),
    )


def steady(inputs: int, outputs: int) -> nn.Sequential:
    """Build what draws nothing at random as it learns."""
    return nn.Sequential(nn.Linear(inputs, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, outputs))


def convolve(inputs: int, outputs: int) -> nn.Sequential:
    """Build what takes any number of inputs by itself."""
    layers = nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, outputs))


def widen(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 2 * inputs), nn.Tanh(), nn.Linear(2 * inputs, outputs))


def normalize(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, outputs))


def batch_normalize(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, outputs))


def no_sequence(inputs: int, outputs: int) -> nn.Module:
    return nn.Linear(inputs, outputs)


def too_few(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 1))


def grown(model: Any) -> Any:
    model.grow_inputs(["a", "b"])
    model.grow_outputs(["x", "y"])
    return model


def learnt(networks: TorchNetworks, samples: int = 20) -> TorchNetworks:
    rng = np.random.default_rng(0)
    for x in rng.normal(size=(samples, len(networks.names))):
        networks.forward(x)
        networks.learn(np.eye(len(networks.keys))[int(x[0] > 0)])
    return networks


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("hidden", [(8,), (8, 6, 5)])
def test_plain_networks_are_those_of_numpy(hidden: tuple[int, ...], loss: Any) -> None:
    paces = [0.3, 0.1, 0.05]  # faster ones are chaotic for a while, so that rounding errors grow
    one, other = Perceptrons(hidden, paces, loss, 3), TorchNetworks(hidden, paces, loss, 3)
    both: list[Any] = [one, other]
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(8, 4))
    for step in range(200):
        for networks in both:
            if step in (0, 50, 100):
                networks.grow_inputs([f"feature {step}", step])
            if step in (0, 20, 120):
                networks.grow_outputs([f"class {step}"])
        x = rng.normal(size=(7 if step % 10 == 9 else 1, one.inputs))
        target = np.eye(one.outputs)[(x @ truth[: one.inputs, : one.outputs]).argmax(1)]
        answers = []
        for networks in both:
            if len(x) > 1:
                answers.append(networks.forward_many(x))
                networks.learn_many(target.T)
            else:
                answers.append(networks.forward(x[0]))
                networks.learn(target[0])
        np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)
    readings = [networks.readings(x[0]) for networks in both]
    np.testing.assert_allclose(readings[0], readings[1], atol=1e-5)
    for copy, optimizer in enumerate(other.optimizers):
        first = optimizer.chain.blocks[0].parameters[0].detach().numpy()
        np.testing.assert_allclose(first, one.first[copy, 1:, 1 : 1 + one.inputs], atol=1e-5)
    np.testing.assert_allclose(other.mistakes, one.mistakes, rtol=1e-5)
    assert other.blocks == one.blocks


@pytest.mark.parametrize("settings", [{"momentum": 0.5, "weight_decay": 1e-4}, {"space": "target", "loss": "squared"}])
@pytest.mark.parametrize("hidden", [(), (6,), build, convolve])
def test_growth_leaves_what_was_learnt(hidden: Any, settings: dict[str, Any]) -> None:
    settings = {"loss": "cross_entropy", **settings}
    torch.manual_seed(1)  # of what is dropped out: two classes may be all but equally likely
    networks = learnt(grown(TorchNetworks(hidden, PACES, seed=1, **settings)))
    x = np.array([0.5, -1.0])
    before = networks.forward(x)
    if hidden is not convolve:  # for it, a feature more moves the others' places
        networks.grow_inputs(["c", "a feature that sorts first"])
        np.testing.assert_allclose(networks.forward(np.append(x, [0.0, 0.0])), before, rtol=1e-5)
    networks.grow_outputs(["z"])
    shares = networks.forward(np.append(x, [0.0] * (len(networks.names) - 2)))[:2]
    if settings["loss"] == "squared":
        np.testing.assert_allclose(shares, before, rtol=1e-5)
    else:
        assert (shares.argmax(), (shares < before).all()) == (before.argmax(), True)
    learnt(networks, 5)
    assert np.isfinite(networks.forward(np.zeros(len(networks.names)))).all()


def test_momentum_and_readouts_grow_along() -> None:
    networks = learnt(grown(TorchNetworks((6,), [1.0], "cross_entropy", 1, momentum=0.9)))
    known = [dict(networks.optimizers[0].state[p]) for p in networks.optimizers[0].chain.blocks[0].parameters]
    networks.grow_outputs(["z"])
    networks.grow_inputs(["c"])
    new = [dict(networks.optimizers[0].state[p]) for p in networks.optimizers[0].chain.blocks[0].parameters]
    torch.testing.assert_close(new[0]["readout"][:2], known[0]["readout"])
    torch.testing.assert_close(new[0]["readout_momentum"][:2], known[0]["readout_momentum"])
    torch.testing.assert_close(new[0]["momentum_buffer"][:, :2], known[0]["momentum_buffer"])
    torch.testing.assert_close(new[1]["momentum_buffer"], known[1]["momentum_buffer"])
    assert not new[0]["readout_momentum"][2].any()
    assert not new[0]["momentum_buffer"][:, 2].any()


@pytest.mark.parametrize("hidden", [widen, normalize])
def test_what_cannot_grow_says_so_and_stays(hidden: Any) -> None:
    networks = learnt(grown(TorchNetworks(hidden, PACES, "cross_entropy", 1)))
    before = networks.forward(np.ones(2))
    with pytest.raises(ModelError, match="cannot grow to 3 inputs and 2 outputs"):
        networks.grow_inputs(["c"])
    np.testing.assert_array_equal(networks.forward(np.ones(2)), before)
    learnt(networks, 2)


def test_a_model_that_cannot_grow_goes_on_with_what_it_knows() -> None:
    model = TPClassifier(hidden=widen, seed=1)
    for step in range(20):
        model.learn_one({"a": float(step % 2), "b": 1.0}, step % 2 == 0)
    before = model.predict_proba_one({"a": 0.0, "b": 1.0})
    with pytest.raises(ModelError, match="cannot grow"):
        model.learn_one({"a": 0.0, "c": 1.0}, True)
    with pytest.raises(ModelError, match="cannot grow"):
        model.learn_many(pd.DataFrame({"a": [0.0], "c": [1.0]}), pd.Series([True]))
    assert model.predict_proba_one({"a": 0.0, "b": 1.0}) == before
    model.learn_one({"a": 0.0, "b": 1.0}, True)
    model.learn_one({"a": 0.0, "b": 1.0}, "a class more")
    assert model._raw_memory_usage > model._network.nbytes > 400  # type: ignore[attr-defined]


@pytest.mark.parametrize("policy", [None, "ensemble"])
@pytest.mark.parametrize("hidden", [steady, convolve, batch_normalize])
def test_a_model_is_saved_and_merged(tmp_path: Any, hidden: Any, policy: Any) -> None:
    models = [TPClassifier(hidden=hidden, seed=1, momentum=0.5, paces=(1.0, 0.1), policy=policy) for _ in range(2)]
    samples = list(datasets.Phishing().take(100))
    for number, model in enumerate(models):
        xs, ys = zip(*samples[50 * number :][:50], strict=True)
        model.learn_many(pd.DataFrame(list(xs)), pd.Series(list(ys)))
    models[0].save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", hidden=hidden)
    assert loaded.predict_proba_one(xs[0]) == models[0].predict_proba_one(xs[0])
    loaded.learn_many(pd.DataFrame(list(xs)), pd.Series(list(ys)))
    models[0].learn_many(pd.DataFrame(list(xs)), pd.Series(list(ys)))
    assert loaded.predict_proba_one(xs[0]) == models[0].predict_proba_one(xs[0])
    if policy is None:
        both = merge(models)
        weights = [model._network.weights() for model in (*models, both)]  # type: ignore[attr-defined]
        np.testing.assert_allclose(weights[2][1], (2 * weights[0][1] + weights[1][1]) / 3, atol=1e-6)


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (no_sequence, "nn.Sequential of layers"),
        (too_few, r"hidden\(2, 2\) must give a network of 2 outputs, got 1"),
        (lambda inputs, outputs: nn.Sequential(nn.Linear(inputs + 1, outputs)), "with 3 inputs got an input"),
    ],
)
def test_what_is_no_such_network_is_refused_before_it_learns(hidden: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        grown(TorchNetworks(hidden, PACES, "cross_entropy", 1))


def test_a_loss_that_does_not_fit_is_refused_at_once() -> None:
    with pytest.raises(ModelError, match="in target space"):
        TPClassifier(space="target")


def test_batch_normalisation_needs_batches() -> None:
    model = TPClassifier(hidden=batch_normalize, seed=1)
    X, y = (
        pd.DataFrame(np.random.default_rng(0).normal(size=(16, 3)), columns=list("abc")),
        pd.Series([True, False] * 8),
    )
    model.learn_many(X, y)
    x = X.iloc[0].to_dict()
    assert model.predict_proba_one(x) == pytest.approx(model.predict_proba_many(X).iloc[0].to_dict())
    with pytest.raises(ModelError, match="more than one value per channel"):
        model.learn_one(x, True)


def test_predicting_changes_nothing_and_drops_nothing() -> None:
    networks = learnt(grown(TorchNetworks(build, PACES, "cross_entropy", 1)))
    before = pickle.dumps(networks)
    answers = [networks.forward(np.ones(2)) for _ in range(3)]
    np.testing.assert_array_equal(answers[0], answers[2])
    networks.readings(np.zeros(2))
    assert pickle.dumps(networks) == before


def test_a_builders_weights_come_from_the_seed() -> None:
    def weights(seed: int) -> list[Vector]:
        torch.manual_seed(np.random.default_rng().integers(2**31))
        state = torch.get_rng_state()
        found = grown(TorchNetworks(build, PACES, "cross_entropy", seed)).weights()
        assert torch.equal(torch.get_rng_state(), state)
        return found  # type: ignore[no-any-return]

    for one, other in zip(weights(1), weights(1), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(weights(1)[0], weights(2)[0])


def test_a_builder_may_give_the_same_network_again() -> None:
    network = build(2, 2)
    networks = learnt(grown(TorchNetworks(lambda inputs, outputs: network, PACES, "cross_entropy", 1)))
    assert not np.array_equal(networks.guesses()[0], networks.guesses()[2])


def test_a_builders_precision_is_kept_and_memory_is_counted() -> None:
    networks = learnt(grown(TorchNetworks(build, [1.0], "cross_entropy", 1, momentum=0.9)))
    parameters = [p for block in networks.optimizers[0].chain for p in block.parameters]
    assert {p.dtype for p in parameters} == {torch.float32}
    readouts = 2 * (12 + 8)
    assert networks.nbytes == 4 * 2 * (sum(p.numel() for p in parameters) + readouts)
    assert networks.forward(np.ones(2)).sum() == pytest.approx(1.0, abs=1e-12)


def test_policies_can_change_it() -> None:
    networks, fresh = (grown(TorchNetworks((6, 5), PACES, "cross_entropy", 1)) for _ in range(2))
    numpys = [grown(Perceptrons((6, 5), PACES, "cross_entropy", 1)) for _ in range(2)]
    both: list[tuple[Any, Any]] = [(networks, fresh), (numpys[0], numpys[1])]
    x = np.array([0.3, 1.0])
    answers: list[list[Vector]] = []
    for model, new in both:
        answers.append([])
        for step in range(40):
            if step == 10:
                model.take(new, model.blocks[1:])
            if step == 20:
                model.set_paces(3 * model.paces)
            before = model.weights()
            answers[-1].append(model.forward(x * (step - 20) / 10))
            model.learn(np.eye(2)[int(step > 20)])
            if step > 30:
                model.keep_scales(before)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-9)


@pytest.mark.parametrize("hidden", [steady, convolve, (8,)])
def test_it_learns_and_pickles(hidden: Any) -> None:
    model = TPClassifier(hidden=hidden, seed=1, momentum=0.5)
    accuracy = metrics.Accuracy()
    for x, y in datasets.Phishing().take(400):
        accuracy.update(y, model.predict_one(x))
        model.learn_one(x, y)
    assert accuracy.get() > 0.7
    loaded = pickle.loads(pickle.dumps(model))
    for x, y in datasets.Phishing().take(20):
        assert loaded.predict_proba_one(x) == model.predict_proba_one(x)
        loaded.learn_one(x, y)
        model.learn_one(x, y)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "hinge", "absolute", nn.functional.mse_loss])
def test_other_losses(loss: Any) -> None:
    model, accuracy = TPClassifier(loss=loss, hidden=(16,), seed=1), metrics.Accuracy()
    for x, y in datasets.Phishing().take(400):
        accuracy.update(y, model.predict_one(x))
        model.learn_one(x, y)
    assert accuracy.get() > 0.75


def test_a_sample_without_features_teaches_nothing() -> None:
    model = TPClassifier(hidden=build, seed=1, policy="reset-head")
    model.learn_one({}, "x")
    assert model.predict_proba_one({}) == {"x": 1.0}
    regressor = TPRegressor(hidden=build, seed=1)
    assert regressor.predict_one({"a": 1.0}) == 0.0


# One check takes a long stream, to see that memory is flat: that of the estimators is the same whatever learns in them.
CHECKS = [
    (model, check)
    for model in (
        TPClassifier(hidden=steady, paces=(1.0,)),
        TPRegressor(hidden=steady, paces=(1.0,)),
        TPClassifier(hidden=(8,), momentum=0.5, weight_decay=1e-4, paces=(1.0,)),
    )
    for check in checks.yield_checks(model)
    if check.__name__ not in {*model._unit_test_skips(), "check_bounded_memory_growth"}
]


@pytest.mark.parametrize(("model", "check"), CHECKS, ids=lambda part: getattr(part, "__name__", type(part).__name__))
def test_it_passes_rivers_checks(model: Any, check: Callable[[Any], None]) -> None:
    check(model.clone())
