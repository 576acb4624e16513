"""Blocks one after the other, and all at once."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.errors import ModelError
from fedtp.models import cnn, mlp, recurrent
from fedtp.schedules import _stages, greedy, pipeline


def batches(count: int, *shape: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(6, *shape, generator=generator), torch.randint(3, (6,), generator=generator)) for _ in range(count)
    ]


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_pipeline_learns_what_steps_learn(threads: int, momentum: float, count: int) -> None:
    model = cnn((1, 8, 8), [4, 4], 3, hidden=[5], seed=1)
    twin = copy.deepcopy(model)
    one, two = TPSGD(model, seed=7, momentum=momentum), TPSGD(twin, seed=7, momentum=momentum)
    samples = batches(count, 1, 8, 8)
    losses = pipeline(one, iter(samples), threads=threads)
    wanted = [float(two.step(x, y) or 0) for x, y in samples]
    assert losses == wanted
    torch.testing.assert_close(dict(model.state_dict()), dict(twin.state_dict()), rtol=0, atol=0)


def test_few_samples_in_a_pipeline_learn_what_steps_learn() -> None:
    model = mlp(4, [5], 3, seed=1)  # which step() trains in NumPy
    twin = copy.deepcopy(model)
    samples = [(x[:1], y[:1]) for x, y in batches(7, 4)]
    losses, two = pipeline(TPSGD(model, seed=7), samples), TPSGD(twin, seed=7)
    assert losses == pytest.approx([float(two.step(x, y) or 0) for x, y in samples])
    torch.testing.assert_close(dict(model.state_dict()), dict(twin.state_dict()))


def test_a_pipeline_leaves_what_a_step_leaves() -> None:
    model = cnn((1, 8, 8), [4], 3, hidden=[5], seed=1)
    one, two = TPSGD(model, seed=7), TPSGD(copy.deepcopy(model), seed=7)
    samples = batches(4, 1, 8, 8)
    pipeline(one, samples)
    for x, y in samples:
        two.step(x, y)
    assert one.losses == two.losses
    assert one.output is not None
    torch.testing.assert_close(one.output, two.output, rtol=0, atol=0)


def test_a_pipeline_whose_last_block_is_frozen_has_no_losses() -> None:
    model = mlp(4, [5], 3)
    optimizer = TPSGD(model, seed=7)
    assert len(pipeline(optimizer, batches(2, 4))) == 2
    model[2].requires_grad_(False)
    assert pipeline(optimizer, batches(2, 4)) == []


def test_frozen_blocks_are_passed_through() -> None:
    model = mlp(4, [5, 5], 3)
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    pipeline(TPSGD(model, seed=7), batches(3, 4))
    changed = {n.split(".")[0] for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"2", "4"}


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=12), threads=st.integers(1, 6))
def test_stages_hold_every_block_once(sizes: list[int], threads: int) -> None:
    stages = _stages(sizes, threads)
    assert [position for stage in stages for position in stage] == list(range(len(sizes)))
    assert 1 <= len(stages) <= min(threads, len(sizes))
    assert all(stages)
    heaviest = max(sum(sizes[p] for p in stage) for stage in stages)
    assert heaviest <= sum(sizes) / threads + 2 * max(sizes)


def test_greedy_trains_one_block_after_the_other() -> None:
    model = mlp(4, [16], 3, seed=1)
    optimizer = TPSGD(model, seed=7)
    seen: list[tuple[int, bool]] = []

    def of_epoch(epoch: int) -> list[tuple[Tensor, Tensor]]:
        seen.append((epoch, torch.equal(model[2].weight, start)))
        return batches(4, 4)

    start = model[2].weight.detach().clone()
    losses = greedy(optimizer, 3, of_epoch)
    assert seen == [(0, True), (1, True), (2, True), (0, True), (1, False), (2, False)]
    assert list(losses) == ["0", "2"]
    assert all(values[-1] < values[0] for values in losses.values())


@pytest.mark.parametrize("output", ["all", "last"])
def test_greedy_trains_recurrent_blocks_on_what_is_no_padding(output: Any) -> None:
    model = recurrent(4, 5, 3, layers=2, output=output, seed=1)
    padded = copy.deepcopy(model)
    x, y = batches(1, 7, 4)[0]
    lengths = torch.tensor([7, 3, 1, 7, 5, 2])
    beyond = torch.arange(7) >= lengths[:, None]
    losses = greedy(TPSGD(model, seed=7), 2, lambda epoch: [(x, y, lengths)])
    other = greedy(TPSGD(padded, seed=7), 2, lambda epoch: [(x.masked_fill(beyond[..., None], 9.0), y, lengths)])
    assert losses == other
    assert list(losses) == ["0.l0", "0.l1", "1"]
    torch.testing.assert_close(dict(model.state_dict()), dict(padded.state_dict()), rtol=0, atol=0)


def test_greedy_leaves_frozen_blocks_out() -> None:
    model = mlp(4, [5, 5], 3)
    model[2].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    assert list(greedy(TPSGD(model, seed=7), 1, lambda epoch: batches(3, 4))) == ["0", "4"]
    changed = {n.split(".")[0] for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"0", "4"}


def test_what_greedy_cannot_do() -> None:
    optimizer = TPSGD(mlp(4, [5], 3), seed=7)
    with pytest.raises(ModelError, match="at least one epoch, got 0"):
        greedy(optimizer, 0, lambda epoch: batches(2, 4))
    once = iter(batches(2, 4))
    with pytest.raises(ModelError, match="Epoch 1 of block '0' has no batches"):
        greedy(optimizer, 2, lambda epoch: once)
    with pytest.raises(ModelError, match="takes neither lengths"):
        greedy(optimizer, 1, lambda epoch: [(*batches(1, 4)[0], torch.ones(6, dtype=torch.long))])


def test_what_cannot_be() -> None:
    with pytest.raises(ModelError, match="no rule for recurrent layers"):
        pipeline(TPSGD(recurrent(4, 5, 3), seed=7), [])
    with pytest.raises(ModelError, match="at least one thread, got 0"):
        pipeline(TPSGD(mlp(4, [5], 3), seed=7), [], threads=0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(6, 3))
    with pytest.raises(ModelError, match="with 6 inputs got an input"):
        pipeline(TPSGD(model, seed=7), batches(3, 4))
