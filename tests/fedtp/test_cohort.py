"""A cohort against single devices, each trained by itself."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtp.blocks import Chain
from fedtp.cohort import Cohort, stack
from fedtp.errors import ModelError
from fedtp.learner import Learner
from fedtp.learner_spec import LearnerSpec

FEATURES, CLASSES = 5, 3
Packed = dict[str, NDArray[np.float32]]


def make_learner(**settings: Any) -> Learner:
    spec = LearnerSpec.model_validate({"hidden": (6,), "batch_size": 4, "lr": 0.5, "seed": 3, **settings})
    return Learner(spec, FEATURES, CLASSES)


def draw(counts: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of devices with different counts, padded with numbers that would show if they were learnt from."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(counts), max(counts), FEATURES, generator=generator)
    y = torch.randint(CLASSES, (len(counts), max(counts)), generator=generator)
    for d, count in enumerate(counts):
        x[d, count:] = 1e3
    return x, y, torch.tensor(counts)


def by_itself(
    learner: Learner, weights: Packed, x: Tensor, y: Tensor, blocks: tuple[str, ...], lengths: Tensor | None = None
) -> tuple[Tensor, float, Packed, Packed]:
    """One device: predictions, loss, weights and momentum after it, by the plain loop over its batches."""
    spec = learner.spec
    model = learner.network(weights)
    chain = Chain(model)
    optimizer = learner.optimizer(model)
    readouts = learner.readouts(optimizer)
    for name, matrices in readouts.items():
        for matrix in matrices:
            matrix.copy_(torch.tensor(weights[name][-matrix.numel() :]).view(matrix.shape))
    predicted, losses = [], 0.0
    for epoch in range(spec.epochs if blocks else 1):
        for start in range(0, len(y), spec.batch_size):
            batch = slice(start, start + spec.batch_size)
            xs, ys, steps = x[batch], y[batch], None if lengths is None else lengths[batch]
            if epoch == 0:
                predicted.append(learner.predict(model, xs, steps))
            shaped = xs.unflatten(-1, learner.input_shape)
            loss = optimizer.step(shaped, ys, blocks=blocks, lengths=steps) if blocks else None
            if epoch == 0:
                losses += len(xs) * (float("nan") if loss is None else loss.item())
    trained, state = [chain[name] for name in blocks], optimizer.state
    momentum = {
        block.name: block.join(
            [
                *(state[p]["momentum_buffer"] for p in block.parameters),
                *(state[block.parameters[0]]["readout_momentum"] for _ in readouts[block.name]),
            ]
        ).numpy()
        for block in trained
        if spec.momentum
    }
    after = {name: chain[name].join([*chain[name].parameters, *readouts[name]]).numpy() for name in learner.sizes}
    return torch.cat(predicted), losses / len(y), after, momentum


@settings(max_examples=80, deadline=None)
@given(
    batches=st.integers(1, 3),
    short=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    blocks=st.sampled_from([("0", "2"), ("0",), ("2",), ()]),
    how=st.sampled_from(
        [
            {},
            {"method": "backprop"},
            {"readout": "learnt"},
            {"readout": "shared"},
            {"adaptor": "scale-shift"},
            {"adaptor": "scale-shift", "method": "backprop"},
            {"adaptor": "bottleneck", "adaptor_size": 2, "readout": "learnt"},
        ]
    ),
    momentum=st.sampled_from([0.0, 0.9]),
    epochs=st.integers(1, 2),
    own=st.booleans(),
)
def test_devices_learn_as_if_alone(
    batches: int,
    short: list[int],
    blocks: tuple[str, ...],
    how: dict[str, Any],
    momentum: float,
    epochs: int,
    own: bool,
) -> None:
    learner = make_learner(**how, momentum=momentum, epochs=epochs, weight_decay=0.01)
    blocks = tuple(name for name in blocks if name in learner.sizes)
    counts = [4 * batches - missing for missing in short]
    x, y, counted = draw(counts)
    cohort = Cohort(learner, len(counts))
    start = learner.initial()
    if own:
        generator = np.random.default_rng(0)
        each = {n: generator.normal(size=(len(counts), w.size)).astype(np.float32) for n, w in start.items()}
    else:
        each = {name: np.tile(packed, (len(counts), 1)) for name, packed in start.items()}
    cohort.load(each if own else start)
    predicted, loss = cohort.learn(x, y, counted, blocks)
    for d, count in enumerate(counts):
        alone = by_itself(learner, {n: w[d] for n, w in each.items()}, x[d, :count], y[d, :count], blocks)
        assert torch.equal(predicted[d, :count], alone[0])
        if learner.spec.method == "tpsgd" and "2" not in blocks:
            assert loss[d].isnan()
        elif blocks:
            assert loss[d].item() == pytest.approx(alone[1], rel=1e-4)
        for name, packed in alone[2].items():
            np.testing.assert_allclose(cohort.weights(name)[d], packed, rtol=1e-3, atol=1e-5)
        for name, packed in alone[3].items():
            np.testing.assert_allclose(cohort.momentum(name)[d], packed, rtol=1e-3, atol=1e-5)


NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "grey": ((6, 6), {"network": "cnn", "channels": (3,), "hidden": (5,), "activation": "relu"}),
    "coloured": ((2, 6, 4), {"network": "cnn", "channels": (3, 4), "hidden": (), "kernel": 1}),
    "gru": ((20, 4), {"network": "recurrent", "hidden": (5,)}),
    "lstms": ((7, 4), {"network": "recurrent", "hidden": (5, 5), "cell": "lstm"}),
    "rnn": ((7, 4), {"network": "recurrent", "hidden": (5,), "cell": "rnn", "readout": "shared"}),
    "read": ((6, 6), {"network": "cnn", "channels": (3,), "hidden": (5,), "readout": "learnt", "momentum": 0.9}),
}


@pytest.mark.parametrize("method", ["tpsgd", "backprop", "fa", "dfa", "sdfa", "drtp", "last"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("part", ["all", "first", "last"])
def test_every_network_learns_in_a_cohort_as_it_does_alone(network: str, method: str, part: str) -> None:
    shape, form = NETWORKS[network]
    if method != "tpsgd" and "readout" in form:
        form = {key: value for key, value in form.items() if key != "readout"}
    spec = LearnerSpec.model_validate({"method": method, "batch_size": 4, "lr": 0.1, "seed": 3, "epochs": 2, **form})
    learner = Learner(spec, shape, CLASSES)
    names = tuple(learner.sizes)
    blocks = {"all": names, "first": names[:1], "last": names[-1:]}[part]
    assert learner.stacks == (method != "fa")
    counts = [7, 6, 8] if learner.stacks else [7]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(counts), 8, learner.features, generator=generator)
    y = torch.randint(CLASSES, (len(counts), 8), generator=generator)
    steps = torch.randint(1, shape[0] + 1, (len(counts), 8), generator=generator) if learner.sequential else None
    if steps is not None:  # what is past the end of a sequence must not matter
        padding = torch.arange(shape[0]) >= steps.unsqueeze(-1)
        x.view(*x.shape[:2], *shape)[padding] = 9.0
    cohort, start = Cohort(learner, len(counts)), learner.initial()
    cohort.load(start)
    most = max(counts)
    batches = x[:, :most], y[:, :most], torch.tensor(counts)
    predicted, loss = cohort.learn(*batches, blocks, None if steps is None else steps[:, :most])
    for d, count in enumerate(counts):
        own = None if steps is None else steps[d, :count]
        answers, value, after, momentum = by_itself(learner, start, x[d, :count], y[d, :count], blocks, own)
        assert torch.equal(predicted[d, :count], answers)
        if not np.isnan(value):
            assert loss[d].item() == pytest.approx(value, rel=1e-4)
        for name in learner.sizes:
            np.testing.assert_allclose(cohort.weights(name)[d], after[name], rtol=1e-4, atol=1e-6)
            assert (name in blocks) != np.array_equal(after[name], start[name])
        for name, packed in momentum.items():
            np.testing.assert_allclose(cohort.momentum(name)[d], packed, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("readout", ["fixed", "shared"])
def test_what_cannot_be_stacked_learns_alone(momentum: float, readout: str) -> None:
    learner = make_learner(adaptor="low-rank", readout=readout, momentum=momentum, epochs=2)
    assert not learner.stacks
    with pytest.raises(ModelError, match="no rule that works for many devices"):
        Cohort(learner, 2)
    cohort, blocks = Cohort(learner, 1), ("0", "2")
    x, y, counts = draw([7])
    generator = np.random.default_rng(0)
    start = {n: generator.normal(size=w.size).astype(np.float32) for n, w in learner.initial().items()}
    cohort.load(start)
    predicted, loss = cohort.learn(x, y, counts, blocks)
    alone = by_itself(learner, start, x[0], y[0], blocks)
    assert torch.equal(predicted[0], alone[0])
    assert loss.item() == pytest.approx(alone[1], rel=1e-4)
    for name in blocks:
        np.testing.assert_allclose(cohort.weights(name), alone[2][name][None], rtol=1e-3, atol=1e-5)
        assert not np.allclose(alone[2][name], start[name], atol=1e-3)
        if momentum:
            np.testing.assert_allclose(cohort.momentum(name), alone[3][name][None], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "how", [{}, {"method": "backprop"}, {"readout": "learnt"}, {"adaptor": "scale-shift", "readout": "shared"}]
)
def test_momentum_goes_on_where_it_was_put_aside(how: dict[str, Any]) -> None:
    learner = make_learner(**how, momentum=0.9)
    x, y, counts = draw([8, 7])
    whole, halves = Cohort(learner, 2), Cohort(learner, 2)
    for cohort in (whole, halves):
        cohort.load(learner.initial())
    whole.learn(x, y, counts, ("0", "2"))
    whole.learn(x, y, counts, ("0", "2"))

    halves.learn(x, y, counts, ("0", "2"))
    weights = {name: halves.weights(name) for name in learner.sizes}
    momentum = {name: halves.momentum(name) for name in learner.sizes}
    halves.learn(-x, y, counts, ("0", "2"))  # other devices come and go
    assert not np.array_equal(halves.weights("0"), weights["0"]), "what was put aside is a copy"
    assert not np.array_equal(halves.momentum("0"), momentum["0"])
    halves.load(weights)
    halves.load_momentum(momentum)
    halves.learn(x, y, counts, ("0", "2"))
    for name in learner.sizes:
        np.testing.assert_array_equal(halves.weights(name), whole.weights(name))


def test_weights_off_the_wire_are_loaded_without_a_warning() -> None:
    learner = make_learner()
    start = {name: np.frombuffer(packed.tobytes(), np.float32) for name, packed in learner.initial_weights().items()}
    cohort = Cohort(learner, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cohort.load(start)
    x, y, counts = draw([4, 4])
    cohort.learn(x, y, counts, ("0", "2"))
    np.testing.assert_array_equal(start["0"], learner.initial_weights()["0"])


def test_all_devices_need_the_same_number_of_batches() -> None:
    cohort = Cohort(make_learner(), 2)
    with pytest.raises(ModelError, match="not all 0 in a batch"):
        cohort.learn(*draw([8, 4]), ("0", "2"))


def test_a_stack_leaves_its_model_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2, bias=False))
    model[0].weight.requires_grad_(False)
    many = stack(model, 3)
    assert [tuple(p.shape) for p in many.parameters()] == [(3, 3, 4), (3, 3), (3, 2, 3)]
    assert [p.requires_grad for p in many.parameters()] == [False, True, True]
    assert all(p.is_contiguous() for p in many.parameters())
    x = torch.randn(3, 5, 4)
    torch.testing.assert_close(Chain(many).forward(x), model(x))
    with torch.no_grad():
        many[2].weight.zero_()
    assert model[2].weight.any()


@pytest.mark.parametrize(
    ("model", "devices", "message"),
    [
        (nn.Sequential(nn.Linear(4, 2)), 0, "at least one device, got 0"),
        (stack(nn.Sequential(nn.Linear(4, 2)), 2), 3, "a stack of 2 devices already"),
        (nn.Sequential(nn.Linear(4, 2), nn.Softplus(), nn.Linear(2, 2)), 2, "layers of block '0' have no rule"),
        (nn.Sequential(nn.Bilinear(4, 4, 2)), 2, "layers of block '0' have no rule"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 2, "begins with a layer that learns"),
        (nn.Linear(4, 2), 2, r"nn.Sequential"),
    ],
)
def test_what_cannot_be_stacked(model: nn.Sequential, devices: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        stack(model, devices)
