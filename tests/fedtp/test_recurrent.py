"""Recurrent layers: the module against PyTorch's, the rules against autograd with a state that is a constant."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from fedtp import TPSGD
from fedtp.baselines import Backprop
from fedtp.blocks import Chain
from fedtp.cohort import stack
from fedtp.errors import ModelError
from fedtp.recurrent import Recurrent
from fedtp.rules import recurrent_rules

CELLS: dict[str, Any] = {
    "elman": nn.RNN,
    "elman relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(cell: str, *sizes: int, **settings: Any) -> nn.RNNBase:
    torch.manual_seed(0)
    made: nn.RNNBase = CELLS[cell](*sizes, **settings).double()
    return made


def model(cell: str = "gru", output: Any = "last", layers: int = 1, classes: int = 3) -> nn.Sequential:
    recurrent = Recurrent(network(cell, 4, 5, num_layers=layers), output)
    return nn.Sequential(recurrent, nn.Linear(5, classes, dtype=torch.float64))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
def test_it_answers_as_the_network_does(cell: str, layers: int) -> None:
    plain = network(cell, 4, 5, num_layers=layers, batch_first=True)
    x, lengths = drawn(1, 3, 7, 4), torch.tensor([7, 2, 4])
    steps, _ = plain(x)
    every, last = Recurrent(copy.deepcopy(plain), "all"), Recurrent(copy.deepcopy(plain), "last")
    torch.testing.assert_close(every(x), steps)
    torch.testing.assert_close(last(x), steps[:, -1])
    ends = steps[torch.arange(3), lengths - 1]
    torch.testing.assert_close(last(x, lengths), ends)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    torch.testing.assert_close(last(packed), ends)
    assert isinstance(every(packed), PackedSequence)
    torch.testing.assert_close(Chain(nn.Sequential(last)).forward(x, lengths).detach(), ends.detach())


@settings(max_examples=40, deadline=None)
@given(
    cell=st.sampled_from(list(CELLS)),
    bias=st.booleans(),
    layers=st.integers(1, 3),
    devices=st.sampled_from([0, 1, 3]),
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    keep=st.sampled_from([1.0, 0.9]),
)
def test_each_layer_learns_through_one_step_at_a_time(
    cell: str, bias: bool, layers: int, devices: int, cuts: list[int], keep: float
) -> None:
    plain = network(cell, 4, 5, num_layers=layers, bias=bias)
    index = layers - 1
    many: Any = stack(nn.Sequential(Recurrent(plain)), devices)[0] if devices else Recurrent(copy.deepcopy(plain))
    rule = recurrent_rules(many)[index]
    assert rule.devices == devices
    width = 5 if index else 4
    x, error = drawn(1, max(devices, 1), 2, sum(cuts), width), drawn(2, max(devices, 1), 2, sum(cuts), 5)
    into = [torch.ones_like(p) for p in rule.parameters]
    outputs, start = [], 0
    with torch.no_grad():
        for number, cut in enumerate(cuts):
            part = x[:, :, start : start + cut]
            a, saved = rule.forward(part if devices else part[0])
            outputs.append(a.view(-1, 2, cut, 5))
            at = error[:, :, start : start + cut].flatten(1, 2)
            rule.accumulate(into, saved, at if devices else at[0], keep if number == 0 else 1.0)
            inputs, factor = rule.inputs(saved)
            assert inputs.shape[-2:] == (2 * cut, width + 5)
            assert 0 < factor <= 1
            start += cut

    names = [f"{name}_l{index}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if bias else 2]]
    single = network(cell, width, 5, bias=bias, batch_first=True)
    single.load_state_dict({name.replace(f"_l{index}", "_l0"): plain.state_dict()[name] for name in names})
    for d in range(max(devices, 1)):
        state, answers = None, []
        sums = [keep * torch.ones_like(p) for p in single.parameters()]
        for t in range(sum(cuts)):
            a, state = single(x[d, :, t : t + 1], state)
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
            answers.append(a.detach())
            for total, g in zip(
                sums, torch.autograd.grad(a[:, 0], list(single.parameters()), error[d, :, t]), strict=True
            ):
                total += g
        torch.testing.assert_close(torch.cat(outputs, 2)[d], torch.cat(answers, 1))
        for found, wanted in zip(into, sums, strict=True):
            torch.testing.assert_close(found[d] if devices else found, wanted)


class Reference:
    """One update of a two-block model: the squared loss at every step, through that step alone, not normalised."""

    def __init__(self, net: nn.Sequential, optimizer: TPSGD) -> None:
        self.net = copy.deepcopy(net)
        rows = torch.tensor(optimizer.projection.rows("0", 5), dtype=torch.float64)
        self.readout = rows / 5**0.5

    def step(self, x: Tensor, y: Tensor, shares: Tensor, lengths: Tensor) -> None:
        gru, head = self.net[0].network, self.net[1]
        state, hidden = None, []
        for t in range(x.shape[1]):
            a, state = gru(x[:, t : t + 1], state)
            state = state.detach()
            hidden.append(a[:, 0])
        target = torch.eye(3, dtype=torch.float64)[y]
        steps = torch.stack(hidden, 1)
        loss = (shares * ((steps @ self.readout.T - target[:, None]) ** 2).sum(-1) / 2).sum()
        last = steps.detach()[torch.arange(len(x)), lengths - 1]
        loss = loss + (shares.sum(1) * ((head(last) - target) ** 2).sum(-1) / 2).sum()
        parameters = list(self.net.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= 0.3 * gradient


@pytest.mark.parametrize("steps", [3, 16, 40])
@pytest.mark.parametrize("weighting", ["all", "sample", "step"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_sequence_is_learnt_from_at_every_step(steps: int, weighting: str, momentum: float) -> None:
    net = model()
    optimizer = TPSGD(net, seed=7, lr=0.3, loss="squared", normalize=False, momentum=momentum)
    reference = Reference(net, optimizer)
    x, y = drawn(1, 3, steps, 4), torch.tensor([0, 2, 1])
    lengths = torch.tensor([steps, 1, steps - 1])
    real = torch.arange(steps) < lengths[:, None]
    weights = {"all": None, "sample": torch.tensor([1.0, 0.0, 3.0]), "step": torch.rand(3, steps)}[weighting]
    if weights is None:
        shares = real / real.sum()
    else:
        shares = weights * real if weighting == "step" else weights[:, None] * real / real.sum(1, keepdim=True)
        shares = shares / shares.sum()
    with torch.no_grad():
        answer = net[1](net[0](x, lengths))
    optimizer.step(x, y, weights=weights, lengths=lengths)
    reference.step(x, y, shares.double(), lengths)
    torch.testing.assert_close(dict(net.state_dict()), dict(reference.net.state_dict()), rtol=1e-6, atol=1e-9)
    assert optimizer.output is not None
    torch.testing.assert_close(optimizer.output, answer)
    assert optimizer.losses.keys() == {"0", "1"}


def test_packed_sequences_are_learnt_from_as_padded_ones_are() -> None:
    x, y, lengths = drawn(1, 3, 20, 4), torch.tensor([0, 2, 1]), torch.tensor([20, 3, 11])
    net = model()
    twin = copy.deepcopy(net)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    TPSGD(net, seed=7).step(packed, y)
    TPSGD(twin, seed=7).step(x, y, lengths=lengths)
    torch.testing.assert_close(dict(net.state_dict()), dict(twin.state_dict()), rtol=0, atol=0)
    with pytest.raises(ModelError, match="has lengths of its own"):
        TPSGD(net, seed=7).step(packed, y, lengths=lengths)
    with pytest.raises(ModelError, match=r"no fedtp\.Recurrent layer"):
        TPSGD(nn.Sequential(nn.Linear(4, 3)), seed=7).step(packed, y)


def test_every_layer_is_a_block_and_every_step_may_have_a_label() -> None:
    net = model("lstm", "all", layers=2)
    optimizer = TPSGD(net, seed=7, lr=0.1)  # labels at random are learnt by heart, with small steps
    assert [block.name for block in optimizer.chain] == ["0.l0", "0.l1", "1"]
    before = copy.deepcopy(net.state_dict())
    x, y = drawn(1, 3, 20, 4), torch.randint(3, (3, 20), generator=torch.Generator().manual_seed(0))
    first = optimizer.step(x, y)
    assert optimizer.output is not None
    assert optimizer.output.shape == (3, 20, 3)
    assert all(not torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for _ in range(30):
        loss = optimizer.step(x, y)
    assert first is not None
    assert loss is not None
    assert loss < first
    before = copy.deepcopy(net.state_dict())
    optimizer.step(x, y, blocks=["0.l0"])
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"0.network.{part}_l0" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}


def test_step_by_step_the_state_is_carried() -> None:
    net, twin = model(), model()
    x, y = drawn(1, 3, 9, 4), torch.tensor([0, 2, 1])
    online = TPSGD(net, seed=7, lr=0.0)
    whole = TPSGD(twin, seed=7, lr=0.0)
    whole.step(x, y)
    for t in range(9):
        online.step(x[:, t : t + 1], y, carry=t > 0)
    assert online.output is not None
    torch.testing.assert_close(online.output, whole.output)
    online = TPSGD(net, seed=7)
    losses = [float(online.step(x[:, t % 9 : t % 9 + 1], y, carry=t > 0) or 0) for t in range(90)]
    assert losses[-1] < losses[0]


def test_a_stack_learns_as_its_devices_do() -> None:
    many = stack(model("gru", layers=2), 2)
    singles = [model("gru", layers=2) for _ in range(2)]
    x, y = drawn(1, 2, 3, 20, 4), torch.tensor([[0, 1, 2], [2, 1, 0]])
    lengths = torch.tensor([[20, 3, 17], [5, 20, 1]])
    TPSGD(many, seed=7).step(x, y, lengths=lengths)
    for d, single in enumerate(singles):
        TPSGD(single, seed=7).step(x[d], y[d], lengths=lengths[d])
        for name, value in single.state_dict().items():
            torch.testing.assert_close(many.state_dict()[name][d], value)


def test_backpropagation_is_pytorchs() -> None:
    net, twin = model("lstm", layers=2), model("lstm", layers=2)
    x, y, lengths = drawn(1, 3, 9, 4), torch.tensor([0, 2, 1]), torch.tensor([9, 2, 5])
    Backprop(net, lr=0.5).step(x, y, lengths=lengths)
    nn.functional.cross_entropy(twin[1](twin[0](x, lengths)), y).backward()
    for parameter, wanted in zip(net.parameters(), twin.parameters(), strict=True):
        assert wanted.grad is not None
        torch.testing.assert_close(parameter.detach(), wanted.detach() - 0.5 * wanted.grad)


def test_dropout_between_layers() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(Recurrent(nn.GRU(4, 50, num_layers=2, dropout=0.5)), nn.Linear(50, 3))
    rule = recurrent_rules(net[0])[0]
    a, saved = rule.forward(torch.randn(2, 3, 4))
    share = (a == 0).float().mean().item()
    assert 0.3 < share < 0.7
    into = [torch.zeros_like(p) for p in rule.parameters]
    rule.accumulate(into, saved, (a == 0).float(), 1.0)
    assert not any(part.any() for part in into), "what was dropped teaches nothing"
    assert (recurrent_rules(net.eval()[0])[0].forward(torch.randn(2, 3, 4))[0] != 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recurrent(nn.GRU(4, 5, bidirectional=True)), "runs in both directions .* use bidirectional=False"),
        (lambda: Recurrent(nn.LSTM(4, 5, proj_size=2)), "proj_size=0"),
        (lambda: Recurrent(nn.Linear(4, 5)), "got Linear"),  # type: ignore[arg-type]
        (lambda: Recurrent(nn.GRU(4, 5), "first"), "got output='first'"),  # type: ignore[arg-type]
        (lambda: TPSGD(nn.Sequential(model()[0], model()[0]), seed=1), "puts out the last step only"),
        (lambda: TPSGD(model(), seed=1).step(drawn(1, 2, 3, 5), torch.tensor([0, 1])), "4 inputs got an input"),
        (lambda: TPSGD(model(), seed=1).step(drawn(1, 2), torch.tensor([0, 1])), r"\[batch, time, ...\]"),
        (
            lambda: TPSGD(model(), seed=1).step(drawn(1, 2, 3, 4), torch.tensor([0, 1]), lengths=torch.tensor([3, 4])),
            "from 1 to the 3 time steps",
        ),
        (
            lambda: TPSGD(model(), seed=1).step(drawn(1, 2, 3, 4), torch.tensor([0, 1]), weights=torch.ones(3)),
            "Weights of sequences",
        ),
        (
            lambda: TPSGD(nn.Sequential(nn.Linear(4, 3)), seed=1).step(
                torch.zeros(2, 4), torch.tensor([0, 1]), carry=True
            ),
            "no fedtp.Recurrent layer",
        ),
    ],
)
def test_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()


def test_states_can_be_swapped() -> None:
    """Of two interleaved sequences each is as by itself; nor does trying out the first step forget a state."""
    sequences, y = drawn(1, 2, 6, 4), torch.tensor([1])
    whole = Chain(model("lstm", "all", layers=2)).forward(sequences)
    for begun in (0, 3):
        first, then = (TPSGD(model("lstm", "all", layers=2), seed=1, lr=0.0) for _ in range(2))
        assert first.chain.state == (None, None)
        states = [first.chain.state, first.chain.state]
        for step in range(6):
            optimizer = first if step < begun else then
            for number, x in enumerate(sequences):
                optimizer.chain.state = states[number]
                optimizer.step(x[None, step : step + 1], y, carry=True)
                states[number] = optimizer.chain.state
                assert optimizer.output is not None
                torch.testing.assert_close(optimizer.output[0, 0], whole[number, step].detach())
