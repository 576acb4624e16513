"""Many devices' copies of one model, trained at once as ``[devices, ...]`` tensors."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtp.blocks import Chain
from fedtp.errors import ModelError
from fedtp.learner import Learner
from fedtp.optimizer import TPSGD
from fedtp.rules import Activation, tail_for


def stack(model: nn.Sequential, devices: int) -> nn.Sequential:
    """Return a model whose parameters hold one copy of the model's per device.

    The optimizers of fedtp train it as they train an ordinary model, with a leading device axis on every batch:
    the matrix products of all devices run as one.

    Parameters
    ----------
    model
        The model that every device starts from; left as it is.
    devices
        How many copies, at least one.

    Raises
    ------
    ModelError
        If a layer cannot work over a device axis, or the model is a stack already.

    Examples
    --------
    >>> [tuple(p.shape) for p in stack(nn.Sequential(nn.Linear(4, 2)), 3).parameters()]
    [(3, 2, 4), (3, 2)]
    """
    if devices < 1:
        raise ModelError(f"A stack holds at least one device, got {devices}.")
    model = copy.deepcopy(model)
    chain = Chain(model)
    if chain.devices:
        raise ModelError(f"The model is a stack of {chain.devices} devices already.")
    if not all(isinstance(layer, nn.Identity) or isinstance(tail_for(layer), Activation) for layer in chain.stem):
        raise ModelError("A stack of devices begins with a layer that learns, or an activation; the model does not.")
    if other := [block.name for block in chain if not block.batches_devices]:
        raise ModelError(f"Some layers of block {other[0]!r} have no rule that works for many devices at once.")
    for layer in model.modules():
        for name, parameter in list(layer._parameters.items()):
            if parameter is not None:
                copies = _copies(parameter.detach(), devices)
                setattr(layer, name, nn.Parameter(copies, requires_grad=parameter.requires_grad))
        for name, buffer in list(layer._buffers.items()):
            if buffer is not None and buffer.dim():  # a counter counts for all
                setattr(layer, name, _copies(buffer, devices))
    return model


def _copies(tensor: Tensor, devices: int) -> Tensor:
    return tensor.expand(devices, *tensor.shape).clone()


class Cohort:
    """Devices that learn at the same time, from the same kind of order.

    Parameters
    ----------
    learner
        What each of them trains.
    devices
        How many there are; one, where no more can be trained at once (`fedtp.learner.Learner.stacks`).

    Notes
    -----
    The vectors of a block hold its weights and then its readout, if that learns (`fedtp.learner.Learner.held`).
    """

    def __init__(self, learner: Learner, devices: int) -> None:
        self.learner = learner
        self.devices = devices
        alone = devices == 1 and not learner.stacks
        self.model = copy.deepcopy(learner.model) if alone else stack(learner.model, devices)
        self.optimizer = learner.optimizer(self.model)
        self.chain = self.optimizer.chain
        self._readouts = learner.readouts(self.optimizer)

    def load(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Set what learns of every block: one vector for all devices, or ``[devices, held]``."""
        for name in self.learner.held:
            block, packed = self.chain[name], self._tensor(weights[name])
            block.unpack(packed[..., : block.size])
            for matrix in self._readouts[name]:
                matrix.copy_(packed[..., block.size :].unflatten(-1, matrix.shape[-2:]))

    def load_momentum(self, momentum: Mapping[str, NDArray[np.float32]]) -> None:
        """Set every block's momentum, ``[devices, held]``."""
        state = self.optimizer.state
        for name in self.learner.held:
            block, packed = self.chain[name], self._tensor(momentum[name])
            for parameter, part in zip(block.parameters, block.split(packed[..., : block.size]), strict=True):
                state[parameter]["momentum_buffer"] = part.clone()
            for matrix in self._readouts[name]:
                part = packed[..., block.size :].unflatten(-1, matrix.shape[-2:])
                state[block.parameters[0]]["readout_momentum"] = part.clone()

    def weights(self, block: str) -> NDArray[np.float32]:
        """Return what learns of a block as it is now, ``[devices, held]``, as a copy."""
        found = self.chain[block]
        return self._rows(found.join([*found.parameters, *self._readouts[block]]))

    def momentum(self, block: str) -> NDArray[np.float32]:
        """Return a block's momentum now, ``[devices, held]``, as a copy."""
        found, state = self.chain[block], self.optimizer.state
        parts = [state[p]["momentum_buffer"] for p in found.parameters]
        parts += [state[found.parameters[0]]["readout_momentum"] for _ in self._readouts[block]]
        return self._rows(found.join(parts))

    def pace(self, factors: Mapping[str, float]) -> None:
        """Multiply the learning rate of blocks; those that are not named learn as usual."""
        for block, group in zip(self.chain, self.optimizer.param_groups, strict=True):
            group["lr"] = self.learner.spec.lr * factors.get(block.name, 1.0)

    def answers(self, x: Tensor) -> Tensor:
        """Return the class that each block names, hidden blocks by way of their readouts.

        Parameters
        ----------
        x
            Samples, ``[devices, samples, features]``.

        Returns
        -------
        Tensor
            Class indices, ``[devices, samples, blocks]``.

        Raises
        ------
        ModelError
            If blocks do not answer by themselves (`fedtp.learner.Learner.reads_blocks`).
        """
        if not isinstance(self.optimizer, TPSGD):
            raise ModelError("Only blocks that learn by tpSGD answer by themselves.")
        x = x.unflatten(-1, self.learner.input_shape)
        return self.optimizer.answers(x) if self.chain.devices else self.optimizer.answers(x[0])[None]

    def learn(
        self,
        x: Tensor,
        y: Tensor,
        counts: Tensor,
        blocks: Collection[str],
        lengths: Tensor | None = None,
        *,
        epochs: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict every sample, then learn from it, batch by batch.

        Parameters
        ----------
        x
            Samples, ``[devices, samples, features]``, in the order of their arrival; rows past a device's own
            count are padding.
        y
            Class indices, ``[devices, samples]``.
        counts
            How many samples each device has: at least one, and for all the same number of batches.
        blocks
            Names of the blocks to train; none to predict only.
        lengths
            Of sequences: how many time steps of each are no padding, ``[devices, samples]``, at least one; all by
            default.
        epochs
            How often the samples are gone over; as often as the learner's settings say by default.

        Returns
        -------
        predicted
            Class indices, ``[devices, samples]``, each by the model that the device had before it learnt from
            the sample's batch.
        loss
            Mean loss of the last block over a device's samples, ``[devices]``; NaN where it was not trained.
        """
        batch_size = self.learner.spec.batch_size
        real = torch.arange(y.shape[1]) < counts[:, None]
        x = x.unflatten(-1, self.learner.input_shape)
        predicted = torch.zeros_like(y)
        loss = torch.zeros(len(y))
        for epoch in range(self.learner.spec.epochs if epochs is None else epochs):
            for start in range(0, y.shape[1], batch_size):
                batch = slice(start, start + batch_size)
                inputs, labels, mask = x[:, batch], y[:, batch], real[:, batch]
                steps = None if lengths is None else lengths[:, batch]
                value, output = self._step(inputs, labels, mask, steps, blocks, score=epoch == 0)
                if epoch == 0 and output is not None:
                    predicted[:, batch] = output.argmax(-1)
                    loss += mask.sum(-1) * (torch.nan if value is None else value)
            if not blocks:
                break
        return predicted, loss / counts

    def _step(
        self, x: Tensor, y: Tensor, mask: Tensor, lengths: Tensor | None, blocks: Collection[str], *, score: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Learn from one batch; return its loss and what the model answered before."""
        output = None
        if lengths is not None:
            x = x[:, :, : int(lengths.max())]  # past the longest there is nothing to see
        if not self.chain.devices:
            x, y, mask, lengths = x[0], y[0], mask[0], None if lengths is None else lengths[0]
        if score and self.chain.blocks[-1].name not in blocks:
            with torch.no_grad():
                output = self.chain.forward(x, lengths)
        if not blocks:
            return None, output
        weights = None if bool(mask.all()) else mask.to(x.dtype)
        if weights is not None and lengths is not None and isinstance(self.optimizer, TPSGD):
            # Without weights all time steps of a batch count alike; so they must without the padding.
            weights = weights.unsqueeze(-1).expand(*mask.shape, x.shape[mask.dim()])
        value = self.optimizer.step(x, y, blocks=blocks, weights=weights, lengths=lengths)
        # The sweep that trains the last block has just computed the answer: it need not be computed twice.
        return value, self.optimizer.output if output is None else output

    def _tensor(self, packed: NDArray[np.float32]) -> Tensor:
        # PyTorch warns of read-only arrays, as those off the wire are.
        tensor = torch.from_numpy(packed if packed.flags.writeable else packed.copy())
        return tensor if self.chain.devices else tensor.view(-1)

    def _rows(self, joined: Tensor) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = joined.view(self.devices, -1).numpy()
        return rows
