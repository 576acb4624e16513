"""The account of what a network costs, against what PyTorch and NumPy allocate, and against counting by hand."""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile

from fedtp import TPSGD, costs
from fedtp.blocks import Chain
from fedtp.learner import Learner
from fedtp.learner_spec import LearnerSpec
from fedtp.models import cnn

KIB = 1024
MICROCONTROLLER = 256 * KIB

CNN: dict[str, Any] = {"network": "cnn", "channels": (16, 32), "hidden": (64,), "activation": "relu"}
GRU: dict[str, Any] = {"network": "recurrent", "hidden": (64,)}
NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "wide, one sample": ((784,), {"hidden": (300,), "batch_size": 1}),
    "wide, some": ((784,), {"hidden": (300, 100), "batch_size": 16}),
    "deep, many": ((256,), {"hidden": (256,) * 5, "batch_size": 200}),
    "gelu": ((256,), {"hidden": (256,) * 3, "batch_size": 100, "activation": "gelu"}),
    "cnn": ((28, 28), {**CNN, "batch_size": 10}),
    "coloured": ((3, 16, 16), {**CNN, "batch_size": 32, "activation": "tanh"}),
    "gru": ((60, 40), {**GRU, "batch_size": 10}),
    "two lstm": ((40, 20), {"network": "recurrent", "cell": "lstm", "hidden": (32, 32), "batch_size": 8}),
    "adaptors": ((256,), {"hidden": (128, 128), "batch_size": 100, "adaptor": "bottleneck"}),
}
METHODS: list[dict[str, Any]] = [
    {"method": "tpsgd"},
    {"method": "tpsgd", "momentum": 0.9, "readout": "learnt"},
    {"method": "backprop"},
    {"method": "backprop", "momentum": 0.9},
    {"method": "fa"},
    {"method": "dfa"},
    {"method": "drtp"},
]


def make(shape: tuple[int, ...] = (784,), **settings: Any) -> Learner:
    return Learner(LearnerSpec.model_validate(settings), shape, 10)


def measured(step: Callable[[], Any]) -> int:
    """The most bytes that a step holds at a time beyond what lives before it."""
    step()  # momentum and readouts are there from the first step on
    tracemalloc.start()
    step()
    _, in_numpy = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = top = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return top + in_numpy


def batch(learner: Learner) -> tuple[torch.Tensor, torch.Tensor]:
    count = learner.spec.batch_size
    return torch.randn(count, *learner.input_shape), torch.randint(10, (count,))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
@pytest.mark.parametrize("network", NETWORKS)
def test_what_a_step_makes_is_what_it_is_measured_to_allocate(network: str, method: dict[str, Any]) -> None:
    shape, form = NETWORKS[network]
    learner = make(shape, **form, **method)
    optimizer = learner.optimizer(copy.deepcopy(learner.model))
    x, y = batch(learner)
    for blocks in (None, tuple(learner.sizes)[:1], tuple(learner.sizes)[-1:]):
        found = measured(lambda blocks=blocks: optimizer.step(x, y, blocks=blocks))  # type: ignore[misc]
        account = max(block.working for block in learner.memory(blocks).values())
        assert account == pytest.approx(found, rel=0.15, abs=12 * KIB)  # Python's own objects take some


@pytest.mark.parametrize("network", ["wide, one sample", "wide, some", "deep, many", "gelu", "cnn", "coloured"])
@pytest.mark.parametrize("readout", ["fixed", "learnt"])
def test_a_block_needs_what_it_is_measured_to_need_by_itself(network: str, readout: str) -> None:
    """Each block as the first of the network that begins with it: its step, its input, and what lived before."""
    shape, form = NETWORKS[network]
    learner = make(shape, **form, momentum=0.9, readout=readout)
    x, y = batch(learner)
    layers, peaks = list(learner.model), []
    starts = [i for i, layer in enumerate(layers) if any(True for _ in layer.parameters())]
    for start, end in zip(starts, [*starts[1:], len(layers)], strict=True):
        optimizer = learner.optimizer(copy.deepcopy(nn.Sequential(*layers[start:])))
        step = measured(lambda optimizer=optimizer, x=x: optimizer.step(x, y, blocks=[0]))  # type: ignore[misc]
        first = optimizer.chain.blocks[0]
        readouts = sum(matrix.numel() for matrix in optimizer.feedback(first))
        kept = 2 * first.size + readouts * (1 if readout == "fixed" else 2)  # momentum is as large
        peaks.append(step + x.nbytes + 4 * kept)
        with torch.no_grad():
            x = nn.Sequential(*layers[start:end])(x)
    assert learner.training_bytes() == pytest.approx(max(peaks), rel=0.15)
    for name, found in zip(learner.sizes, peaks, strict=True):
        assert learner.memory()[name].total == pytest.approx(found, rel=0.15, abs=12 * KIB)


def test_a_microcontroller_trains_what_it_could_never_train_by_backpropagation() -> None:
    """Even one sample at a time, and without momentum."""
    for form, expected in (
        ({"hidden": (64, 64, 64, 64)}, (203, 498)),
        ({**CNN, "channels": (16, 32, 32)}, (153, 409)),
    ):
        kib = []
        for method in ("tpsgd", "backprop"):
            learner = make((28, 28), **form, method=method, batch_size=1)
            kib.append(learner.training_bytes() / KIB)
            assert (learner.training_bytes() <= MICROCONTROLLER) == (method == "tpsgd")
            assert learner.scoring_bytes() < MICROCONTROLLER
        assert tuple(map(round, kib)) == expected


def test_memory_does_not_grow_with_depth() -> None:
    def at(depth: int, method: str) -> int:
        return make((128,), hidden=(128,) * depth, method=method, batch_size=100).training_bytes()

    peaks = {method: (at(4, method), at(16, method)) for method in ("tpsgd", "drtp", "backprop", "dfa")}
    for method in ("tpsgd", "drtp"):
        assert peaks[method][1] == pytest.approx(peaks[method][0], rel=1e-3)  # every block's loss is a number
    assert peaks["backprop"][1] > 3 * peaks["backprop"][0]
    assert peaks["dfa"][1] > 2 * peaks["dfa"][0]


@pytest.mark.parametrize(("method", "grows"), [("tpsgd", False), ("backprop", True)])
def test_whether_memory_grows_with_the_length_of_sequences(method: str, grows: bool) -> None:
    short, long = (make((steps, 20), **GRU, method=method).training_bytes() for steps in (32, 128))
    sequence = 4 * 10 * (128 - 32) * 20
    assert (long - short > 3 * sequence) == grows


forms = st.fixed_dictionaries(
    {
        "hidden": st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
        "method": st.sampled_from(["tpsgd", "backprop", "fa", "dfa", "sdfa", "drtp", "last"]),
        "momentum": st.sampled_from([0.0, 0.9]),
        "activation": st.sampled_from(["tanh", "relu", "gelu"]),
        "batch_size": st.integers(1, 70),
    }
)


@settings(max_examples=60, deadline=None)
@given(forms, st.data())
def test_more_blocks_and_larger_batches_never_need_less(form: dict[str, Any], data: st.DataObject) -> None:
    learner = make((30,), **form)
    names = list(learner.sizes)
    some = tuple(data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1)))
    fewer = tuple(data.draw(st.lists(st.sampled_from(some), unique=True)))
    assert learner.training_bytes(fewer) <= learner.training_bytes(some) <= learner.training_bytes()
    assert learner.flops(fewer) <= learner.flops(some) <= learner.flops()
    larger = make((30,), **{**form, "batch_size": form["batch_size"] + data.draw(st.integers(1, 50))})
    assert learner.training_bytes(some) <= larger.training_bytes(some)
    assert learner.training_bytes(()) == 0
    copies = 2 if form["momentum"] else 1
    sizes = [4 * copies * learner.sizes[name] for name in some]
    assert learner.training_bytes(some) > (sum(sizes) if form["method"] in ("backprop", "fa") else max(sizes))


def test_what_a_block_holds_is_counted_by_hand() -> None:
    fixed = make((30,), hidden=(20,), momentum=0.9).memory()
    assert fixed["0"].held == 4 * (2 * (30 * 20 + 20) + 10 * 20)
    assert fixed["2"].held == 4 * 2 * (20 * 10 + 10)
    learnt = make((30,), hidden=(20,), momentum=0.9, readout="learnt").memory()
    assert learnt["0"].held == 4 * 2 * (30 * 20 + 20 + 10 * 20)
    whole = make((30,), hidden=(20,), method="backprop").memory()
    assert {block.held for block in whole.values()} == {4 * (30 * 20 + 20 + 20 * 10 + 10)}
    assert make((30,), hidden=(20,)).memory(("2",))["0"].held == 0, "what is only passed through is read from flash"


def test_counting_changes_nothing() -> None:
    learner = make((28, 28), **CNN)
    before = learner.initial_weights()
    learner.memory()
    learner.flops()
    learner.scoring_bytes()
    for name, packed in learner.initial_weights().items():
        assert (packed == before[name]).all()
        assert torch.equal(learner.chain[name].pack(), torch.tensor(packed))


def test_scoring_needs_the_largest_pair_of_neighbours() -> None:
    assert make((30,), hidden=(20, 50)).scoring_bytes() == 4 * (20 + 50)
    maps, pooled = 16 * 28 * 28, 16 * 14 * 14
    assert make((28, 28), **CNN).scoring_bytes() == 4 * max(maps + pooled, pooled + 32 * 14 * 14)
    # A sequence is there as a whole, its steps pass one by one; an LSTM has two states.
    assert make((60, 40), **GRU).scoring_bytes() == 4 * (60 * 40 + 64)
    assert make((60, 40), **GRU, cell="lstm").scoring_bytes() == 4 * (60 * 40 + 2 * 64)


def test_operations_of_a_cnn_are_counted_by_hand() -> None:
    one, two, dense, last = 9 * 16 * 784, 16 * 9 * 32 * 196, 32 * 49 * 64, 64 * 10
    forward = one + two + dense + last
    learner = make((28, 28), **CNN)
    assert learner.flops(()) == 2 * forward
    # A readout sees means over 2 x 2 cells; two products with it, and one that changes the weights.
    assert learner.flops(("0",)) == 2 * (forward + one + 2 * 16 * 4 * 10)
    assert learner.flops(("0", "7")) == 2 * (forward + one + dense + 2 * 16 * 4 * 10 + 2 * 64 * 10)
    assert make((28, 28), **CNN, readout="learnt").flops(("3",)) == 2 * (forward + two + 3 * 32 * 4 * 10)
    for method in ("backprop", "fa"):
        learner = make((28, 28), **CNN, method=method)
        assert learner.flops() == 2 * (3 * forward - one)
        assert learner.flops(("7",)) == 2 * (forward + dense + last)
    # Direct feedback reaches every number of a block's pooled output.
    fed = (16 * 196 + 32 * 49 + 64) * 10
    for method in ("dfa", "sdfa", "drtp"):
        assert make((28, 28), **CNN, method=method).flops() == 2 * (2 * forward + fed)
    assert make((28, 28), **CNN, method="last").flops() == 2 * (forward + last)


def test_operations_of_a_recurrent_network_are_those_of_its_time_steps() -> None:
    step, last = 3 * 64 * (40 + 64), 64 * 10
    learner = make((60, 40), **GRU)
    assert learner.flops(()) == 2 * (60 * step + last)
    assert learner.flops() == 2 * (2 * 60 * step + 2 * last + 2 * 60 * 64 * 10)
    through_time = 3 * 64 * 64
    assert make((60, 40), **GRU, method="backprop").flops() == 2 * (60 * (2 * step + through_time) + 3 * last)


def test_target_space_takes_one_product_less() -> None:
    settings: dict[str, Any] = {"hidden": (20,), "loss": "squared"}
    assert make((30,), **settings).flops() - make((30,), **settings, space="target").flops() == 2 * 20 * 10


def test_a_model_of_ones_own_is_counted_too() -> None:
    """With normalisation and an embedding, which `LearnerSpec` does not offer."""
    model = cnn((1, 8, 8), [16], 10, hidden=[32])
    counted = costs.operations(model, torch.zeros(1, 1, 8, 8), lambda a: a[0].numel())
    assert [block.forward for block in counted.values()] == [2 * 9 * 16 * 64, 2 * 16 * 16 * 32, 2 * 32 * 10]
    x, y = torch.randn(20, 1, 8, 8), torch.randint(10, (20,))
    optimizer = TPSGD(model, seed=7)
    found = measured(lambda: optimizer.step(x, y))
    account = costs.memory(optimizer, x, y)
    assert max(block.working for block in account.values()) == pytest.approx(found, rel=0.15, abs=12 * KIB)

    words = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(40, 10))
    counted = costs.operations(words, torch.zeros(1, 5, dtype=torch.long), lambda a: a[0].numel())
    assert [block.forward for block in counted.values()] == [0, 2 * 40 * 10]
    assert costs.scoring_bytes(words, torch.zeros(1, 5, dtype=torch.long)) > 0
    assert Chain(words).blocks[0].size == 400
