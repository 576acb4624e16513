"""The rules of ``nn.RNN``, ``nn.GRU`` and ``nn.LSTM``, one layer at a time.

The state that enters a time step is a constant: the error at a step's output changes the weights through that step
alone. So the gate errors of a chunk of steps do not depend on each other, and only the forward pass is a loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedtp.errors import ModelError
from fedtp.recurrent import Recurrent
from fedtp.rules.base import Rule

State = tuple[Tensor, ...]


class Cell(ABC):
    """One time step: how the gates' inputs make the next state, and how an error at the output returns to them.

    ``i = x W_ih + b_ih`` and ``h = state W_hh + b_hh`` are ``[..., gates * hidden]``, in PyTorch's order of gates.
    """

    #: How many gates the rows of a weight hold.
    gates: int
    #: How many tensors a state has: the output, and what else is carried along.
    states: int = 1
    #: How much of a change of the gates' inputs reaches the output, squared: gates half open let half of it through.
    through: float = 1.0

    @abstractmethod
    def forward(self, i: Tensor, h: Tensor, state: State) -> tuple[State, State]:
        """Return the next state, the output first, and what `error` will need beside the states."""

    @abstractmethod
    def error(self, error: Tensor, output: Tensor, before: State, kept: State) -> tuple[Tensor, Tensor]:
        """Return the errors at `i` and at `h`, given the one at the output, for any number of steps at once."""


class Elman(Cell):
    """``tanh(i + h)``, or ``relu(i + h)``."""

    gates = 1

    def __init__(self, nonlinearity: str) -> None:
        self.relu = nonlinearity == "relu"

    def forward(self, i: Tensor, h: Tensor, state: State) -> tuple[State, State]:  # noqa: D102
        z = i + h
        return (z.relu_() if self.relu else z.tanh_(),), ()

    def error(self, error: Tensor, output: Tensor, before: State, kept: State) -> tuple[Tensor, Tensor]:  # noqa: D102
        backward: Any = torch.ops.aten.threshold_backward if self.relu else torch.ops.aten.tanh_backward
        at = backward(error, output, 0) if self.relu else backward(error, output)
        return at, at


class GRU(Cell):
    """``r, z = σ(i + h)``, ``n = tanh(i_n + r h_n)``, output ``n + z (before - n)``; Cho et al., arXiv 1406.1078."""

    gates = 3
    through = 0.25

    def forward(self, i: Tensor, h: Tensor, state: State) -> tuple[State, State]:  # noqa: D102
        size = state[0].shape[-1]
        rz = (i[..., : 2 * size] + h[..., : 2 * size]).sigmoid_()
        r, z = rz.split(size, -1)
        h_n = h[..., 2 * size :]
        n = torch.addcmul(i[..., 2 * size :], r, h_n).tanh_()
        return (torch.lerp(n, state[0], z),), (rz, n, h_n)

    def error(self, error: Tensor, output: Tensor, before: State, kept: State) -> tuple[Tensor, Tensor]:  # noqa: D102
        rz, n, h_n = kept
        r, z = rz.chunk(2, -1)
        at_n = torch.ops.aten.tanh_backward(error * (1 - z), n)
        at_z = error * (before[0] - n)
        at_rz = torch.ops.aten.sigmoid_backward(torch.cat((at_n * h_n, at_z), -1), rz)
        return torch.cat((at_rz, at_n), -1), torch.cat((at_rz, at_n * r), -1)


class LSTM(Cell):
    """``c = f before + i g``, output ``o tanh c``; Hochreiter and Schmidhuber, 1997, with the forget gate of Gers."""

    gates = 4
    states = 2
    through = 0.1

    def forward(self, i: Tensor, h: Tensor, state: State) -> tuple[State, State]:  # noqa: D102
        size = state[0].shape[-1]
        z = i + h
        doors = z[..., : 2 * size].sigmoid()
        enter, forget = doors.split(size, -1)
        candidate, out = z[..., 2 * size : 3 * size].tanh(), z[..., 3 * size :].sigmoid()
        c = torch.addcmul(enter * candidate, forget, state[1])
        tanh_c = c.tanh()
        return (out * tanh_c, c), (doors, candidate, out, tanh_c)

    def error(self, error: Tensor, output: Tensor, before: State, kept: State) -> tuple[Tensor, Tensor]:  # noqa: D102
        doors, candidate, out, tanh_c = kept
        enter, _ = doors.chunk(2, -1)
        tanh_backward, sigmoid_backward = torch.ops.aten.tanh_backward, torch.ops.aten.sigmoid_backward
        at_c = tanh_backward(error * out, tanh_c)
        at_doors = sigmoid_backward(torch.cat((at_c * candidate, at_c * before[1]), -1), doors)
        at_candidate, at_out = tanh_backward(at_c * enter, candidate), sigmoid_backward(error * tanh_c, out)
        at = torch.cat((at_doors, at_candidate, at_out), -1)
        return at, at


@dataclass
class Steps:
    """What a chunk leaves for the update, every tensor ``[..., batch, time, features]``."""

    x: Tensor
    before: State
    output: Tensor
    kept: State
    mask: Tensor | None


class RecurrentRule(Rule):
    """One layer of a recurrent network, a chunk of time steps at a time.

    Parameters
    ----------
    layer
        The network.
    index
        Which of its layers.

    Attributes
    ----------
    state
        After the chunks so far, each ``[..., batch, hidden]``; None before the first, where it is zero.
    """

    batches_devices = True
    keeps_output = True

    def __init__(self, layer: Recurrent, index: int) -> None:
        super().__init__(layer)
        self.network = network = layer.network
        self.recurrent = layer
        self.index = index
        self.last = index == network.num_layers - 1
        self._names = [f"{part}_l{index}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        self._names = self._names if network.bias else self._names[:2]
        self.parameters = [getattr(network, name) for name in self._names]
        self.devices = len(self.parameters[0]) if self.parameters[0].dim() == 3 else 0
        self.cell = _cell(network)
        self.hidden: int = network.hidden_size
        self.state: State | None = None

    def begin(self) -> None:
        """Forget the state: the next chunk starts a sequence."""
        self.state = None

    def apply(self, x: Tensor) -> Tensor:
        """Run over a chunk as `forward` does, from the state and on to the next."""
        return self._run(x)[0].flatten(-3, -2)

    def forward(self, x: Tensor) -> tuple[Tensor, Steps]:
        """Run over a chunk, from the state and on to the next.

        Parameters
        ----------
        x
            ``[batch, time, features]``, or ``[devices, batch, time, features]``.

        Returns
        -------
        tuple
            The outputs ``[..., batch * time, hidden]``, and what `accumulate` will need.
        """
        a, steps = self._run(x)
        return a.flatten(-3, -2), steps

    def _run(self, x: Tensor) -> tuple[Tensor, Steps]:
        w_ih, w_hh, *biases = self.parameters
        axes = 3 if self.devices else 2
        if x.dim() != axes + 1 or x.shape[-1] != w_ih.shape[-1] or x.dtype != w_ih.dtype:
            raise ModelError(
                f"A recurrent layer of {w_ih.dtype} with {w_ih.shape[-1]} inputs got an input of {x.dtype} and shape "
                f"{tuple(x.shape)}; give it [batch, time, {w_ih.shape[-1]}]."
            )
        state = self._start(x)
        inputs = self.affine(x.flatten(-3, -2), w_ih, biases[:1]).view(*x.shape[:-1], -1).unbind(-2)
        before, outputs, kept = [], [], []
        for i in inputs:
            before.append(state)
            state, step = self.cell.forward(i, self.affine(state[0], w_hh, biases[1:]), state)
            outputs.append(state[0])
            kept.append(step)
        self.state = tuple(part.detach() for part in state)
        output = torch.stack(outputs, -2)
        mask = None
        if not self.last and self.network.training and self.network.dropout:
            mask = nn.functional.dropout(torch.ones_like(output), self.network.dropout)
        steps = Steps(x, _stack(before), output, _stack(kept), mask)
        return (output if mask is None else output * mask), steps

    def affine(self, x: Tensor, weight: Tensor, bias: Sequence[Tensor]) -> Tensor:
        """Return ``x Wᵀ + b``, ``[..., samples, features]``; there may be no bias."""
        if weight.dim() == 2:
            return nn.functional.linear(x, weight, *bias)
        return torch.baddbmm(bias[0].unsqueeze(-2), x, weight.mT) if bias else torch.bmm(x, weight.mT)

    def _start(self, x: Tensor) -> State:
        shape = (*x.shape[:-2], self.hidden)
        if self.state is None:
            return (x.new_zeros(shape),) * self.cell.states
        if self.state[0].shape != shape or self.state[0].dtype != x.dtype:
            raise ModelError(
                f"The state is of {tuple(self.state[0].shape[:-1])} sequences, the next time steps are of "
                f"{tuple(shape[:-1])}: begin anew (carry=False)."
            )
        return self.state

    def accumulate(self, into: Sequence[Tensor], saved: Steps, error: Tensor, keep: float) -> None:
        """Add each step's part: errors of the gates times the input, and times the state before."""
        error = error.view(saved.output.shape)
        if saved.mask is not None:
            error = error * saved.mask
        at_i, at_h = self.cell.error(error, saved.output, saved.before, saved.kept)
        add = torch.Tensor.baddbmm_ if self.devices else torch.Tensor.addmm_
        at_i, at_h, x, h = (part.flatten(-3, -2) for part in (at_i, at_h, saved.x, saved.before[0]))
        w_ih, w_hh, *biases = into
        add(w_ih, at_i.mT, x, beta=keep)
        add(w_hh, at_h.mT, h, beta=keep)
        for bias, at in zip(biases, (at_i, at_h), strict=False):
            bias.mul_(keep).add_(at.sum(-2))

    def inputs(self, saved: Steps) -> tuple[Tensor, float]:
        """Return the input and the state before every step, ``[..., batch * time, inputs]``, as the gates see it."""
        return torch.cat((saved.x, saved.before[0]), -1).flatten(-3, -2), self.cell.through

    @property
    def outputs(self) -> int:
        """Units of the layer."""
        return self.hidden

    def forward_flops(self, x: Tensor) -> int:
        """Two operations, a product and a sum, per weight and time step."""
        axes = 2 if self.devices else 1
        return 2 * sum(w.shape[-2:].numel() for w in self.parameters[:2]) * x.shape[axes]


def recurrent_rules(layer: Recurrent) -> list[RecurrentRule]:
    """Return the rules of a network's layers, first to last."""
    return [RecurrentRule(layer, index) for index in range(layer.network.num_layers)]


def _cell(network: nn.RNNBase) -> Cell:
    if isinstance(network, nn.RNN):
        return Elman(str(network.nonlinearity))
    return GRU() if isinstance(network, nn.GRU) else LSTM()


def _stack(parts: list[State]) -> State:
    """Return tensors of time steps as one, ``[..., batch, time, features]``."""
    return tuple(torch.stack(part, -2) for part in zip(*parts, strict=True))
