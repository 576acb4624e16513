"""Recurrent networks as layers of an ``nn.Sequential``."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from fedtp.errors import ModelError

Output = Literal["all", "last"]


class Recurrent(nn.Module):
    """A recurrent network that puts out what its last layer does, at every time step or at each sequence's last.

    For `fedtp.TPSGD` each layer of the network is a block. The state enters every time step as a constant: an error
    at one step changes the weights through that step alone, so memory does not grow with the length of the sequence.

    Parameters
    ----------
    network
        An ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` of any number of layers. Sequences are ``[batch, time, features]``,
        whatever its ``batch_first`` says.
    output
        ``"all"``: ``[batch, time, hidden]``. ``"last"``: ``[batch, hidden]``.

    Raises
    ------
    ModelError
        If the network is none of these, runs in both directions, or has a projection.

    Examples
    --------
    >>> model = nn.Sequential(Recurrent(nn.GRU(8, 16), output="last"), nn.Linear(16, 3))
    >>> model(torch.zeros(5, 20, 8)).shape
    torch.Size([5, 3])
    """

    def __init__(self, network: nn.RNNBase, output: Output = "last") -> None:
        super().__init__()
        if not isinstance(network, nn.RNN | nn.GRU | nn.LSTM):
            raise ModelError(f"Recurrent wraps an nn.RNN, nn.GRU or nn.LSTM, got {type(network).__name__}.")
        if network.bidirectional:
            raise ModelError(
                "A network that runs in both directions must see a sequence's end before it can learn from its start; "
                "use bidirectional=False."
            )
        if network.proj_size:
            raise ModelError("Recurrent has no rule for an LSTM's projection; use proj_size=0.")
        if output not in get_args(Output):
            raise ModelError(f"A recurrent network puts out all steps or the last, got output={output!r}.")
        network.batch_first = True
        self.network = network
        self.output = output

    def forward(self, x: Tensor | PackedSequence, lengths: Tensor | None = None) -> Tensor | PackedSequence:
        """Run the network over sequences.

        Parameters
        ----------
        x
            ``[batch, time, features]``, or a ``PackedSequence``.
        lengths
            How many time steps of padded sequences are real, ``[batch]``; all by default.

        Returns
        -------
        Tensor | PackedSequence
            All steps or the last, as `output` says; all steps of a ``PackedSequence`` are one again.
        """
        if isinstance(x, PackedSequence):
            packed: PackedSequence = self.network(x)[0]
            if self.output == "all":
                return packed
            return _at(*pad_packed_sequence(packed, batch_first=True))
        if x.dim() != 3:
            raise ModelError(f"A recurrent layer takes sequences [batch, time, features], got {tuple(x.shape)}.")
        steps: Tensor
        if lengths is None:
            steps, _ = self.network(x)
            return steps if self.output == "all" else steps[:, -1]
        packed, _ = self.network(pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False))
        steps, real = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return steps if self.output == "all" else _at(steps, real)


def _at(steps: Tensor, lengths: Tensor) -> Tensor:
    return steps[torch.arange(len(steps), device=steps.device), lengths.to(steps.device) - 1]
