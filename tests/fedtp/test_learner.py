"""What a learner says of a network: which blocks learn, how large they are, what they cost, who may learn with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedtp.cohort import Cohort
from fedtp.errors import ModelError
from fedtp.learner import Learner, learner_for, learner_of
from fedtp.learner_spec import LearnerSpec
from fedtp.models import mlp

FEATURES, HIDDEN, CLASSES = 5, 6, 3
ADAPTORS: dict[str, tuple[dict[str, int], dict[str, list[int]]]] = {
    # What of each block learns, and the sizes of its matrices, frozen ones excepted.
    "none": ({"0": 36, "2": 21}, {"0": [30], "2": [18]}),
    "scale-shift": ({"0": 12, "2": 6}, {"0": [], "2": []}),
    "bottleneck": ({"0": 6 * 2 + 2 + 2 * 6 + 6}, {"0": [12, 12]}),
    "low-rank": ({"0": 2 * 5 + 6 * 2 + 6, "2": 2 * 6 + 3 * 2 + 3}, {"0": [10, 12], "2": [12, 6]}),
}


def make(**settings: Any) -> Learner:
    spec = LearnerSpec.model_validate({"hidden": (HIDDEN,), "adaptor_size": 2, "seed": 3, **settings})
    return Learner(spec, FEATURES, CLASSES)


@pytest.mark.parametrize("adaptor", ADAPTORS)
@pytest.mark.parametrize("readout", ["fixed", "learnt", "shared"])
def test_only_what_learns_is_counted(adaptor: str, readout: str) -> None:
    learner = make(adaptor=adaptor, readout=readout)
    blocks, _ = ADAPTORS[adaptor]
    with_readout = {name: size + (CLASSES * HIDDEN if name == "0" else 0) for name, size in blocks.items()}
    assert learner.sizes == (with_readout if readout == "shared" else blocks)
    assert learner.held == (blocks if readout == "fixed" else with_readout)
    held, travels = learner.initial(), learner.initial_weights()
    assert {name: packed.size for name, packed in held.items()} == learner.held
    for name, packed in travels.items():
        np.testing.assert_array_equal(packed, held[name][: learner.sizes[name]])
    network = sum(p.numel() for p in learner.model.parameters())
    assert learner.numbers == network + (0 if readout == "fixed" else CLASSES * HIDDEN)


@pytest.mark.parametrize("adaptor", ADAPTORS)
@pytest.mark.parametrize("readout", ["fixed", "learnt", "shared"])
def test_operations_are_those_of_the_products(adaptor: str, readout: str) -> None:
    learner = make(adaptor=adaptor, readout=readout)
    _, matrices = ADAPTORS[adaptor]
    scoring = 2 * 30 + 2 * 18 + (0 if adaptor == "none" else sum(2 * n for sizes in matrices.values() for n in sizes))
    assert learner.flops(()) == scoring
    for name, sizes in matrices.items():
        changed = 2 * sum(sizes) + 2 * sum(sizes[1:])
        read = (0 if name == "2" else 4 if readout == "fixed" else 6) * HIDDEN * CLASSES
        assert learner.flops((name,)) == scoring + changed + read
    assert learner.flops() == learner.flops(tuple(matrices))


@pytest.mark.parametrize("method", ["tpsgd", "backprop", "fa", "dfa", "drtp", "last"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed_by_every_method(method: str, smoothing: float) -> None:
    x, y = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    learner = make(method=method, label_smoothing=smoothing)
    model = learner.network(learner.initial_weights())
    expected = torch.nn.functional.cross_entropy(model(x), y, label_smoothing=smoothing).detach()
    torch.testing.assert_close(learner.optimizer(model).step(x, y), expected)


def test_a_copy_of_what_a_device_begins_with() -> None:
    learner = make(readout="learnt")
    for of in (learner.initial, learner.initial_weights):
        before = {name: packed.copy() for name, packed in of().items()}
        for packed in of().values():
            packed += 1
        for name, packed in of().items():
            np.testing.assert_array_equal(packed, before[name])


@pytest.mark.parametrize("adaptor", ADAPTORS)
def test_a_network_has_the_weights_that_travelled(adaptor: str) -> None:
    learner = make(adaptor=adaptor, readout="shared")
    weights = {name: packed + 1 for name, packed in learner.initial_weights().items()}
    model = learner.network(weights)
    for (name, found), expected in zip(model.named_parameters(), learner.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected + 1 if expected.requires_grad else expected, msg=name)


def test_who_differs_in_what_is_shared_has_another_digest(tmp_path: Path) -> None:
    for seed in (1, 2):
        save_file(dict(mlp(FEATURES, [HIDDEN], CLASSES, seed=seed).state_dict()), tmp_path / f"{seed}.safetensors")
    first, second = (str(tmp_path / f"{seed}.safetensors") for seed in (1, 2))
    kinds: list[dict[str, Any]] = [
        {},
        {"readout": "learnt"},
        {"readout": "shared"},
        {"adaptor": "scale-shift"},
        {"adaptor": "bottleneck"},
        {"adaptor": "low-rank"},
        {"adaptor": "low-rank", "adaptor_size": 1},
        {"adaptor": "scale-shift", "pretrained": first},
        {"adaptor": "scale-shift", "pretrained": second},
        {"adaptor": "scale-shift", "pretrained": second, "readout": "learnt"},
    ]
    digests = [make(**kind).digest for kind in kinds]
    assert len(set(digests)) == len(kinds)
    assert [make(**kind).digest for kind in kinds] == digests
    # What learns is sent anyway: it may begin as it likes.
    assert make(pretrained=first).digest == make().digest


IMAGE: dict[str, Any] = {"network": "cnn", "channels": (3,), "hidden": (5,)}
SEQUENCE: dict[str, Any] = {"network": "recurrent", "hidden": (5,)}


@pytest.mark.parametrize(("shape", "form"), [((5,), {}), ((6, 6), IMAGE), ((7, 4), SEQUENCE)])
def test_the_digest_covers_what_errors_come_through(shape: tuple[int, ...], form: dict[str, Any]) -> None:
    def digest(**settings: Any) -> str:
        start = {} if form else {"hidden": (HIDDEN,)}
        return Learner(LearnerSpec.model_validate({"seed": 3, **start, **form, **settings}), shape, CLASSES).digest

    methods = ["tpsgd", "backprop", "fa", "dfa", "sdfa", "drtp", "last"]
    digests = {method: digest(method=method) for method in methods}
    assert len(set(digests.values())) == len(methods)
    for method in methods:
        assert digest(method=method) == digests[method]
        # By backpropagation nothing but the initial weights depends on the seed, and these are sent.
        assert (digest(method=method, seed=4) == digests[method]) == (method == "backprop")


@pytest.mark.parametrize(
    ("shape", "form", "input_shape"),
    [
        ((6, 6), {}, (36,)),
        ((6, 6), IMAGE, (1, 6, 6)),
        ((3, 6, 4), IMAGE, (3, 6, 4)),
        ((7, 4), SEQUENCE, (7, 4)),
        ((7, 4), {}, (28,)),
        (5, {}, (5,)),
    ],
)
def test_samples_are_shaped_as_the_network_takes_them(
    shape: int | tuple[int, ...], form: dict[str, Any], input_shape: tuple[int, ...]
) -> None:
    learner = Learner(LearnerSpec.model_validate(form), shape, CLASSES)
    assert learner.input_shape == input_shape
    assert learner.features == int(np.prod(shape))
    predicted = learner.predict(learner.model, torch.randn(9, learner.features))
    assert predicted.shape == (9,)
    config: dict[str, Any] = {
        **learner.spec.to_config(),
        "shape": shape if isinstance(shape, int) else ",".join(map(str, shape)),
        "classes": CLASSES,
    }
    assert learner_of(config) is learner_for(learner.spec, shape, CLASSES)


def test_a_sequence_is_predicted_by_the_steps_that_are_its_own() -> None:
    learner = Learner(LearnerSpec.model_validate(SEQUENCE), (7, 4), CLASSES)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 7, 4, generator=generator)
    lengths = torch.randint(1, 7, (50,), generator=generator)
    predicted = learner.predict(learner.model, x.flatten(1), lengths)
    expected = [int(learner.model(row[None, :n]).argmax()) for row, n in zip(x, lengths.tolist(), strict=True)]
    assert predicted.tolist() == expected
    assert not torch.equal(predicted, learner.predict(learner.model, x.flatten(1)))


@pytest.mark.parametrize(
    ("form", "shape", "message"),
    [
        (IMAGE, (5,), r'"cnn", which learns from pictures, but a sample has shape \(5,\)'),
        (IMAGE, (2, 3, 4, 5), r'"cnn", which learns from pictures'),
        (IMAGE, (1, 1), "too small"),
        (SEQUENCE, (3, 8, 8), r'"recurrent", which learns from sequences, but a sample has shape \(3, 8, 8\)'),
    ],
)
def test_a_network_that_does_not_suit_the_data_is_refused(
    form: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Learner(LearnerSpec.model_validate(form), shape, CLASSES)


@pytest.mark.parametrize("shape", ["", "8,x", "8,0", "-8", "8,,8"])
def test_a_run_config_must_say_what_a_sample_is(shape: str) -> None:
    with pytest.raises(ModelError, match='the shape of a sample, as in shape = "28,28"'):
        learner_of({"shape": shape, "classes": 3})
    with pytest.raises(ModelError, match="the number of classes"):
        learner_of({"shape": "8,8"})


def test_only_the_last_block_learns_where_the_others_stay() -> None:
    learner = make(method="last")
    assert list(learner.sizes) == ["2"]
    assert learner.flops() == learner.flops(()) + 2 * HIDDEN * CLASSES


def test_a_network_begins_with_the_pretrained_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for seed in (1, 2):  # a file that is written anew is read anew
        expected = mlp(FEATURES, [HIDDEN], CLASSES, seed=seed)
        save_file(dict(expected.state_dict()), path)
        spec = LearnerSpec(hidden=(HIDDEN,), pretrained=str(path), adaptor="scale-shift")
        learner = learner_for(spec, FEATURES, CLASSES)
        assert learner_for(spec, FEATURES, CLASSES) is learner
        x = torch.randn(7, FEATURES)
        torch.testing.assert_close(learner.model(x), expected(x))
    with pytest.raises(ModelError, match="not the network's"):
        learner_for(spec, FEATURES, CLASSES + 1)


def test_a_bottleneck_needs_a_hidden_layer() -> None:
    with pytest.raises(ModelError, match="no layer that a bottleneck adaptor fits"):
        make(hidden=(), adaptor="bottleneck")


@pytest.mark.parametrize("readout", ["fixed", "learnt", "shared"])
@pytest.mark.parametrize("devices", [1, 3])
def test_each_block_answers_by_itself(readout: str, devices: int) -> None:
    learner = make(readout=readout, hidden=(HIDDEN, 4))
    rng = np.random.default_rng(0)
    held = {name: rng.normal(size=(devices, size)).astype(np.float32) for name, size in learner.held.items()}
    x = rng.normal(size=(devices, 50, FEATURES)).astype(np.float32)
    cohort = Cohort(learner, devices)
    cohort.load(held)
    named = cohort.answers(torch.from_numpy(x)).numpy()
    assert named.shape == (devices, 50, 3)
    for device in range(devices):
        own = {name: packed[device] for name, packed in held.items()}
        model = learner.network(own)
        with torch.no_grad():
            hidden = model[:2](torch.from_numpy(x[device])).numpy()
            last = model(torch.from_numpy(x[device])).argmax(1).numpy()
        np.testing.assert_array_equal(named[device, :, 2], last)
        if readout == "fixed":
            matrix = cohort.optimizer.projection.rows("0", HIDDEN)
        else:
            matrix = own["0"][-CLASSES * HIDDEN :].reshape(CLASSES, HIDDEN)
        np.testing.assert_array_equal(named[device, :, 0], (hidden @ matrix.T).argmax(1))


@pytest.mark.parametrize("settings", [{"method": "backprop"}, {"space": "target", "loss": "squared"}])
def test_blocks_that_learn_without_readouts_do_not_answer(settings: dict[str, Any]) -> None:
    learner = make(**settings)
    assert not learner.reads_blocks
    with pytest.raises(ModelError, match=r"label space|by tpSGD"):
        Cohort(learner, 1).answers(torch.zeros(1, 1, FEATURES))
