"""FA, DFA, sDFA, DRTP and last-layer training against a few lines of autograd."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedtp.baselines import Backprop, DirectFeedback, FeedbackAlignment
from fedtp.cohort import stack
from fedtp.data import load
from fedtp.errors import ModelError
from fedtp.models import mlp
from fedtp.projection import Projection
from fedtp.recurrent import Recurrent


def dense() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()


def pictures() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(12, 3)).double()


def sequences() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Recurrent(nn.LSTM(4, 5, num_layers=2)), nn.Linear(5, 3)).double()


MODELS = {"dense": (dense, (7, 4)), "pictures": (pictures, (7, 2, 8, 8)), "sequences": (sequences, (7, 6, 4))}


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1, 0, 1])


@pytest.mark.parametrize("name", MODELS)
def test_with_its_own_weights_as_feedback_alignment_is_backpropagation(name: str) -> None:
    make, shape = MODELS[name]
    model, twin = make(), make()
    aligned, plain = FeedbackAlignment(model, lr=0.5, momentum=0.9), Backprop(twin, lr=0.5, momentum=0.9)
    x, y = batch(*shape)
    for _ in range(3):
        for block in aligned.chain:
            weights = [p.detach() for p in block.rule.parameters if p.dim() > 1]
            block.rule.feedback = [w.clone() for w in weights]  # type: ignore[attr-defined]
        torch.testing.assert_close(aligned.step(x, y), plain.step(x, y))
    torch.testing.assert_close(dict(model.state_dict()), dict(twin.state_dict()))


def test_alignment_returns_errors_through_its_feedback() -> None:
    model = dense()
    before = copy.deepcopy(model)
    optimizer = FeedbackAlignment(model, lr=0.5, seed=3)
    x, y = batch(7, 4)
    optimizer.step(x, y)
    feedback = [block.rule.feedback[0] for block in optimizer.chain]  # type: ignore[attr-defined]
    assert feedback[2].shape == (3, 5)
    rows = Projection(3, classes=1).rows("4 0", 15)
    torch.testing.assert_close(feedback[2].flatten(), torch.tensor(rows[0], dtype=torch.float64) * math.sqrt(2 / 5))
    h1 = before[1](before[0](x))
    z2 = before[2](h1)
    e3 = torch.eye(3, dtype=torch.float64)[y] - before[4](z2.relu()).softmax(-1)
    e2 = (e3 @ feedback[2]) * (z2 > 0)
    e1 = (e2 @ feedback[1]) * (1 - h1**2)
    for layer, error, seen in ((4, e3, z2.relu()), (2, e2, h1), (0, e1, x)):
        torch.testing.assert_close(model[layer].weight, before[layer].weight + 0.5 * error.T @ seen / 7)
        torch.testing.assert_close(model[layer].bias, before[layer].bias + 0.5 * error.mean(0))


@pytest.mark.parametrize("method", ["dfa", "sdfa", "drtp", "last"])
@pytest.mark.parametrize("name", ["dense", "pictures"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_direct_feedback(method: Any, name: str, momentum: float) -> None:
    make, shape = MODELS[name]
    model, twin = make(), make()
    x, y = batch(*shape)
    optimizer = DirectFeedback(model, method=method, seed=3, lr=0.5, momentum=momentum)
    loss = optimizer.step(x, y)

    outputs, h = [], x
    for block in optimizer.chain:
        first = int(block.name)
        for layer in twin[first : first + 1 + len(block.tail)]:
            h = layer(h)
        outputs.append((block.name, h))
        h = h.detach()
    answer = outputs[-1][1]
    torch.testing.assert_close(loss, cross_entropy(answer, y))
    target = torch.eye(3, dtype=torch.float64)[y]
    error = (target - answer.softmax(-1)).detach()
    for (block, a), parameters in zip(outputs, (b.parameters for b in optimizer.chain), strict=True):
        own = [dict(twin.named_parameters())[n] for n, p in model.named_parameters() if any(p is q for q in parameters)]
        features = a[0].numel()
        rows = torch.tensor(Projection(3, classes=3).rows(block, features), dtype=torch.float64)
        fed = {"dfa": error, "sdfa": error.sign(), "drtp": target, "last": 0 * error}[method]
        at = error if block == outputs[-1][0] else fed @ rows * math.sqrt(2 / features)
        gradients = torch.autograd.grad(a, own, (at / 7).view_as(a))
        for parameter, wanted, gradient in zip(parameters, own, gradients, strict=True):
            torch.testing.assert_close(parameter.detach(), wanted.detach() + 0.5 * gradient)


@pytest.mark.parametrize("method", ["dfa", "drtp"])
def test_every_step_of_a_sequence_gets_its_part(method: Any) -> None:
    model, before = sequences(), sequences()
    x, y = batch(7, 6, 4)
    DirectFeedback(model, method=method, lr=0.5).step(x, y, lengths=torch.tensor([6, 1, 2, 3, 4, 5, 6]))
    changed = [not torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True)]
    assert all(changed)


@pytest.mark.parametrize("method", ["dfa", "drtp"])
def test_a_stack_is_a_loop_over_its_devices(method: Any) -> None:
    many, singles = stack(pictures(), 2), [pictures(), pictures()]
    x, y = batch(7, 2, 8, 8)
    DirectFeedback(many, method=method).step(torch.stack([x, x + 1]), torch.stack([y, y.flip(0)]))
    for d, single in enumerate(singles):
        DirectFeedback(single, method=method).step(x + d, y.flip(0) if d else y)
        for name, value in single.named_parameters():
            torch.testing.assert_close(dict(many.named_parameters())[name][d], value)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"])
@pytest.mark.parametrize("make", [FeedbackAlignment, lambda m: DirectFeedback(m, method="dfa")], ids=["fa", "dfa"])
def test_copies_go_their_own_way(copy_of: Any, make: Any) -> None:
    model = dense()
    optimizer = make(model)
    optimizer.step(*batch(7, 4))
    twin, other = copy_of((model, optimizer))
    other.step(*batch(7, 4))
    assert not torch.equal(model[0].weight, twin[0].weight)
    optimizer.step(*batch(7, 4))
    torch.testing.assert_close(dict(model.state_dict()), dict(twin.state_dict()))


@pytest.mark.parametrize("method", ["fa", "dfa", "sdfa", "drtp"])
def test_they_learn_digits(method: Any) -> None:
    train, test = load("digits").split(seed=0)
    model = mlp(64, [64], 10, seed=0)
    lr = {"fa": 0.1, "dfa": 0.1, "sdfa": 0.03, "drtp": 0.01}[method]
    optimizer = FeedbackAlignment(model, lr=lr) if method == "fa" else DirectFeedback(model, method=method, lr=lr)
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    for epoch in range(10):
        for rows in torch.randperm(len(y), generator=torch.Generator().manual_seed(epoch)).split(10):
            optimizer.step(x[rows], y[rows])
    answers = model(torch.from_numpy(test.x)).argmax(1)
    assert (answers == torch.from_numpy(test.y)).float().mean() > 0.9


def test_what_cannot_be() -> None:
    with pytest.raises(ModelError, match="no method 'dpa'"):
        DirectFeedback(dense(), method="dpa")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="Block '0' is a Bilinear; feedback alignment knows"):
        FeedbackAlignment(nn.Sequential(nn.Bilinear(2, 2, 2), nn.Linear(2, 3)))
    with pytest.raises(ModelError, match="not a stack of devices"):
        FeedbackAlignment(stack(dense(), 2))


@pytest.mark.parametrize("method", ["dfa", "sdfa", "drtp"])
@pytest.mark.parametrize("devices", [0, 2])
def test_padding_of_sequences_is_not_learnt_from(method: str, devices: int) -> None:
    x, y = batch(7, 6, 4)
    lengths = torch.tensor([3, 2, 4, 1, 4, 4, 2])
    learnt = []
    for steps, padding in ((4, 0.0), (6, 9.0)):
        model = stack(sequences(), devices) if devices else sequences()
        padded = x[:, :steps].clone()
        padded[torch.arange(steps) >= lengths[:, None]] = padding
        optimizer = DirectFeedback(model, method=method, lr=0.5)  # type: ignore[arg-type]
        given = [t.expand(devices, *t.shape) if devices else t for t in (padded, y, lengths)]
        optimizer.step(given[0], given[1], lengths=given[2])
        learnt.append(dict(model.state_dict()))
    torch.testing.assert_close(*learnt)
