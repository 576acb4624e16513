"""Copies of any network that learn from a stream by tpSGD at different paces, in PyTorch.

`fedtp.streaming.perceptrons` does the same for plain networks in a fraction of the time; where both can, they give the
same weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedtp.blocks import Block, Chain
from fedtp.errors import DataError, ModelError
from fedtp.losses import BinaryCrossEntropy, CrossEntropy, LossFunction, Space, as_loss
from fedtp.models import mlp
from fedtp.optimizer import TPSGD
from fedtp.projection import Label, Projection
from fedtp.readout import pooled, width
from fedtp.recurrent import Recurrent
from fedtp.streaming.features import Vector
from fedtp.streaming.judging import FORGETTING, seeds, shares, wrongs
from fedtp.streaming.perceptrons import FIRST_WEIGHTS, HIDDEN_RATE
from fedtp.streaming.state import State, plain
from fedtp.streaming.state import names as checked_names

#: From the numbers of inputs and outputs to a network.
Builder = Callable[[int, int], nn.Sequential]

#: What stands after a block's name in that of its readout, and after any name in that of its momentum.
_READOUT, _MOMENTUM = ".readout", ".momentum"


class TorchNetworks:
    """Copies of a network whose inputs and outputs can grow; see `fedtp.streaming.perceptrons.Perceptrons`.

    The network is built anew when it grows, and takes over what was learnt: all that has the same shape, and the part
    that was there of a first ``nn.Linear``, which can take more inputs, and of a last one, which can give more outputs.

    Parameters
    ----------
    hidden
        Units of each hidden layer, with tanh, in double precision; none for a linear model. Or a function
        ``(inputs, outputs) -> nn.Sequential``, which keeps the precision it has. It is called with random numbers from
        the seed.
    paces
        The learning rate of each copy's last block; hidden blocks and their readouts go `HIDDEN_RATE` times as far.
    loss, space, momentum, weight_decay
        As `fedtp.TPSGD` takes them. In label space the readouts of hidden blocks learn.
    seed
        Of the weights and the projections.

    Attributes
    ----------
    names, keys
        Of the inputs and of the outputs.
    optimizers
        One per copy; each has its copy as ``chain.model``. None while there are no inputs or no outputs: nothing is
        learnt then.
    mistakes
        Of each copy, discounted by `FORGETTING` a sample: wrong classes, or the squares of errors.
    uncounted
        How many samples have been learnt since mistakes were counted.

    Raises
    ------
    ModelError
        If there is no such loss, or it does not fit the space.

    Examples
    --------
    >>> def build(inputs: int, outputs: int) -> nn.Sequential:
    ...     return nn.Sequential(nn.Linear(inputs, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, outputs))
    >>> networks = TorchNetworks(build, [1.0, 0.1], "cross_entropy", seed=1)
    >>> networks.grow_inputs(["temperature", "pressure"])
    >>> networks.grow_outputs(["rain", "sun"])
    >>> for _ in range(10):
    ...     before = networks.forward(np.array([0.3, -2.0]))
    ...     networks.learn(np.array([0.0, 1.0]))
    >>> networks.grow_inputs(["wind"])
    >>> networks.forward(np.array([0.3, -2.0, 0.0])).round(1)
    array([0.2, 0.8])
    """

    def __init__(
        self,
        hidden: Sequence[int] | Builder,
        paces: Sequence[float],
        loss: str | LossFunction,
        seed: int,
        *,
        space: Space = "label",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.hidden = hidden
        self.paces = np.array(paces, np.float64)
        self.loss = as_loss(loss, space)
        self.seed = seed
        self.space = space
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.names: list[Hashable] = []
        self.keys: list[Label] = []
        self.optimizers: list[TPSGD] = []
        self.mistakes = np.zeros(len(self.paces))
        self.uncounted = 0
        self._share()

    @property
    def blocks(self) -> list[str]:
        """The names of the blocks, first to last; known from a small network as long as there is no other."""
        chain = self.optimizers[0].chain if self.optimizers else Chain(self._built(self.seed, ["input"], ["output"]))
        return [block.name for block in chain]

    @property
    def nbytes(self) -> int:
        """How many bytes weights, readouts, momentum and statistics take."""
        return sum(tensor.nbytes for tensors in _named(self.optimizers).values() for tensor in tensors)

    def grow_inputs(self, names: Sequence[Hashable]) -> None:
        """Add features: their weights are drawn from the seed and their names.

        Raises
        ------
        ModelError
            If the network cannot grow, or is none that can learn; it stays as it was.
        """
        self._grow([*self.names, *names], self.keys)

    def grow_outputs(self, keys: Sequence[Label]) -> None:
        """Add outputs: their weights are 0, and their readouts are drawn from the seed and their keys.

        Raises
        ------
        ModelError
            As of `grow_inputs`.
        """
        self._grow(self.names, [*self.keys, *keys])

    def _grow(self, names: list[Hashable], keys: list[Label]) -> None:
        optimizers = self._all_made(names, keys)
        for before, after, seed in zip(self.optimizers, optimizers, self._seeds, strict=False):
            self._hand_over(before, after, seed, names)
        self.names, self.keys, self.optimizers = names, keys, optimizers

    def forward(self, x: Vector) -> Vector:
        """Answer one sample, ``[inputs]``, by probabilities of the classes or values, ``[outputs]``."""
        return self.forward_many(x[None])[:, 0]

    def guesses(self) -> Vector:
        """Return what each copy answers to the sample that was passed forward, ``[copies, outputs]``."""
        guesses: Vector = self._answers[:, :, 0]
        return guesses

    def learn(self, target: Vector, guesses: Vector | None = None) -> None:
        """Learn what the sample that was passed forward should have been answered.

        Parameters
        ----------
        target
            ``[outputs]``: of classes 1 for the right one, and 0.
        guesses
            By what the copies are judged, if they were asked about the sample long before it is learnt: what they
            answered then.
        """
        self._learn(target[:, None], self._answers if guesses is None else guesses[:, :, None])

    def forward_many(self, x: Vector) -> Vector:
        """Answer many samples, ``[samples, inputs]``: what `forward` returns, ``[outputs, samples]``."""
        self._answers = np.zeros((len(self.paces), len(self.keys), len(x)))
        if self.optimizers and len(x):
            self._x = torch.tensor(x).to(self._like)
            for number, optimizer in enumerate(self.optimizers):
                self._answers[number] = self._meant(self._outputs(number, optimizer.chain)).T
        elif "numbers" not in self.loss.tasks:
            self._answers += 1.0 / len(self.keys)
        return np.tensordot(self._shares, self._answers, 1)

    def learn_many(self, target: Vector) -> None:
        """Learn what the samples that were passed forward should have been answered, ``[outputs, samples]``."""
        self._learn(target, self._answers)

    @torch.no_grad()
    def readings(self, x: Vector) -> Vector:
        """Return what each block of the slowest copy makes of a sample, ``[blocks, outputs]``; nothing else changes.

        It is what is read through the readout of a hidden block, in target space through its projection, and what the
        last one puts out.

        Parameters
        ----------
        x
            ``[inputs]``.
        """
        if not self.optimizers:
            return np.zeros((len(self.blocks), len(self.keys)))
        slowest = int(self.paces.argmin())
        optimizer = self.optimizers[slowest]
        readings = []

        def read(block: Block, x: Tensor) -> Tensor:
            a, saved = block.forward(x)
            if block is optimizer.chain.blocks[-1]:
                readings.append(a.flatten())
            else:
                features = pooled(block.maps(a, saved), 1, optimizer.grid)[0]
                readings.append(_readout(optimizer, block, len(features)) @ features)
            return a

        self._pass(slowest, optimizer.chain, torch.tensor(x[None]).to(self._like), read)
        found: Vector = torch.stack(readings).double().cpu().numpy()
        return found

    def set_paces(self, paces: Vector) -> None:
        """Have each copy learn at another pace from now on, ``[copies]``."""
        self.paces[:] = paces
        for optimizer, pace in zip(self.optimizers, self.paces.tolist(), strict=False):
            _set_pace(optimizer, pace)

    def weights(self) -> list[Vector]:
        """Return copies of all that is learnt, readouts among it."""
        learnt = (tensor for optimizer in self.optimizers for tensor, _ in _learnt(optimizer))
        return [tensor.detach().double().cpu().numpy().copy() for tensor in learnt]

    @torch.no_grad()
    def take(self, other: TorchNetworks, blocks: Collection[str]) -> None:
        """Take over some blocks' weights and readouts from another network of this kind, of the same size."""
        for optimizer, fresh in zip(self.optimizers, other.optimizers, strict=True):
            for mine, theirs in zip(optimizer.chain, fresh.chain, strict=True):
                if mine.name not in blocks:
                    continue
                for parameter, source in zip(mine.parameters, theirs.parameters, strict=True):
                    parameter.copy_(source)
                    # Changed in place: what reads through a readout holds the same tensor.
                    for name, tensor in optimizer.state[parameter].items():
                        tensor.copy_(fresh.state[source][name])

    @torch.no_grad()
    def keep_scales(self, before: Sequence[Vector]) -> None:
        """Undo what has been learnt since some `weights`, but for what scales and shifts each unit.

        That is what of a step lies along the unit's own weights, and its bias. Readouts are as they were.
        """
        learnt = (part for optimizer in self.optimizers for part in _learnt(optimizer))
        for old, (tensor, is_readout) in zip(before, learnt, strict=True):
            own = torch.tensor(old).to(tensor)
            if is_readout:
                tensor.copy_(own)
            elif tensor.dim() > 1:
                rows = own.flatten(1)
                along = ((tensor.flatten(1) - rows) * rows).sum(1, keepdim=True)
                along /= rows.square().sum(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
                tensor.copy_((rows + along * rows).view_as(tensor))

    def _learn(self, target: Vector, guesses: Vector) -> None:
        if not self.optimizers:
            return
        wanted = torch.tensor(target.T).to(self._like)
        for number, optimizer in enumerate(self.optimizers):
            model = optimizer.chain.model.train()
            try:
                self._step(number, optimizer, wanted)
            finally:
                model.eval()
        self._judge(guesses, target)

    def _step(self, number: int, optimizer: TPSGD, target: Tensor) -> None:
        """Let a copy learn the samples that were passed forward."""
        optimizer.step(self._x, target)

    @torch.no_grad()
    def _outputs(self, number: int, chain: Chain) -> Tensor:
        """Return what a copy puts out for the samples, ``[samples, outputs]``."""
        return self._pass(number, chain, self._x, lambda block, x: block.apply(x))

    def _pass(self, number: int, chain: Chain, x: Tensor, visit: Callable[[Block, Tensor], Tensor]) -> Tensor:
        """Pass samples through a copy's blocks."""
        a = chain.enter(x)
        for block in chain:
            a = visit(block, a)
        return a.flatten(1)

    @property
    def _like(self) -> Tensor:
        """A tensor of the precision and the device of the network."""
        return self.optimizers[0].chain.blocks[0].parameters[0]

    def _meant(self, outputs: Tensor) -> Vector:
        """Return what outputs mean, in double precision: their probabilities where they are classes'."""
        outputs = outputs.double()
        if isinstance(self.loss, CrossEntropy):
            outputs = outputs.softmax(-1)
        elif "numbers" not in self.loss.tasks:  # each class was asked for by itself
            outputs = outputs.sigmoid() if isinstance(self.loss, BinaryCrossEntropy) else (2 * outputs).sigmoid()
            outputs = outputs / outputs.sum(-1, keepdim=True).clamp(min=1e-300)
        answers: Vector = outputs.cpu().numpy()
        return answers

    def _judge(self, guesses: Vector, target: Vector) -> None:
        """Count the copies' mistakes, and let them count in predictions accordingly."""
        wrong, counted = wrongs(guesses, target, classes="numbers" not in self.loss.tasks)
        if wrong is not None:
            self.mistakes = FORGETTING ** (self.uncounted + counted) * self.mistakes + np.array(wrong)
            self.uncounted = 0
            self._share()
        self.uncounted += target.shape[1] - counted

    def _share(self) -> None:
        self._shares = shares(self.mistakes.tolist(), classes="numbers" not in self.loss.tasks)

    @property
    def _seeds(self) -> list[int]:
        return seeds(self.seed, len(self.paces))

    def _all_made(self, names: Sequence[Hashable], keys: Sequence[Label]) -> list[TPSGD]:
        """Return what trains new copies; nothing as long as there is nothing to learn from, or nothing to learn."""
        if not names or not keys:
            return []
        return [self._made(number, names, keys) for number in range(len(self.paces))]

    def _made(self, number: int, names: Sequence[Hashable], keys: Sequence[Label]) -> TPSGD:
        """Return what trains a new copy, with the readouts that hidden blocks start from."""
        seed = self._seeds[number]
        model = self._built(seed, names, keys)
        learnt = self.space == "label"
        optimizer = TPSGD(
            model,
            seed=seed,
            loss=self.loss,
            space=self.space,
            readout="learnt" if learnt else "fixed",
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            classes=list(keys),  # type: ignore[arg-type]  # labels of any kind, as `Projection` takes them
        )
        chain = optimizer.chain
        _set_pace(optimizer, float(self.paces[number]))
        sample = self._sample(chain, len(names))
        chain.try_out(chain.enter(sample), len(chain))
        widths = chain.widths(sample, lambda a: width(a, 1, optimizer.grid)) if learnt else {}
        for block in chain.blocks[:-1] if learnt else []:
            features = widths[block.name]
            gain = (1.0 if block.normalized else self.loss.gain) / math.sqrt(features)
            rows = torch.tensor(optimizer.projection.rows(block.name, features), dtype=torch.float64)
            optimizer.state[block.parameters[0]]["readout"] = (gain * rows).to(block.parameters[0])
        for block in chain if self.momentum else []:
            for parameter in block.parameters:
                state = optimizer.state[parameter]
                if "readout" in state:
                    state["readout_momentum"] = torch.zeros_like(state["readout"])
                state["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer

    def _sample(self, chain: Chain, inputs: int) -> Tensor:
        """Return a sample as the network takes it."""
        if chain.recurrent:
            raise ModelError("The network has fedtp.Recurrent layers: learn sequences by TPSequenceClassifier.")
        return chain.blocks[0].parameters[0].new_zeros(1, inputs)

    def _built(self, seed: int, names: Sequence[Hashable], keys: Sequence[Label]) -> nn.Sequential:
        if not callable(self.hidden):
            return self._own(seed, names, keys, self.hidden)
        with torch.random.fork_rng():
            torch.manual_seed(seed % 2**63)
            model = self.hidden(len(names), len(keys))
        found = Chain(model).blocks[-1].outputs  # also tells what is wrong with something else than a network
        if found != len(keys):
            raise ModelError(
                f"hidden({len(names)}, {len(keys)}) must give a network of {len(keys)} outputs, got {found}."
            )
        return copy.deepcopy(model).eval()  # it may have been the same one as the last time

    def _own(self, seed: int, names: Sequence[Hashable], keys: Sequence[Label], hidden: Sequence[int]) -> nn.Sequential:
        """Return a network with the weights of `Perceptrons`."""
        model = mlp(len(names), hidden, len(keys)).double().eval()
        *layers, last = (layer for layer in model if isinstance(layer, nn.Linear))
        with torch.no_grad():
            for number, layer in enumerate(layers):
                rows, inputs = layer.weight.shape
                if number == 0:
                    layer.weight.copy_(columns(seed, "0.weight", names, rows))
                    layer.bias.copy_(FIRST_WEIGHTS * drawn(seed, "0.bias", ["bias"], rows)[0])
                else:
                    weights = drawn(seed, f"{2 * number}.weight", range(rows), inputs)
                    layer.weight.copy_(weights / math.sqrt(inputs))
                    layer.bias.zero_()
            last.weight.zero_()
            last.bias.zero_()
        return model

    @torch.no_grad()
    def _hand_over(self, before: TPSGD, after: TPSGD, seed: int, names: Sequence[Hashable]) -> None:
        """Give a new network all that one with fewer inputs or outputs has learnt."""
        entry, ends = _growing(after.chain)
        known, model = before.chain.model.state_dict(), after.chain.model.state_dict()
        if known.keys() != model.keys():
            raise ModelError(f"hidden(...) gave the parameters {[*known]}, and for other sizes {[*model]}.")
        for name, tensor in model.items():
            old = known[name].shape
            grown = list(old)
            if name == entry and len(self.names) < len(names):
                grown[1] += len(names) - len(self.names)
            if name in ends and tensor.shape != old:
                grown[0] += after.chain.blocks[-1].outputs - len(self.keys)
            if list(tensor.shape) != grown and tensor.shape != old:
                raise ModelError(
                    f"The network cannot grow to {len(names)} inputs and {after.chain.blocks[-1].outputs} outputs and "
                    f"keep what it learnt: {name} is {tuple(old)} and would be {tuple(tensor.shape)}. Only an "
                    "nn.Linear can take more features, if it is the first layer, or give more outputs, as the last."
                )
            if tensor.shape != old and name in ends:
                tensor.zero_()
            elif tensor.shape != old:
                tensor[:, old[1] :] = columns(seed, name, names[old[1] :], len(tensor)).to(tensor)
            _corner(tensor, old).copy_(known[name])
        for old_group, group in zip(before.param_groups, after.param_groups, strict=True):
            group |= {name: value for name, value in old_group.items() if name != "params"}
            for old_parameter, parameter in zip(old_group["params"], group["params"], strict=True):
                self._hand_over_state(before.state[old_parameter], after.state[parameter], group["name"])

    def _hand_over_state(self, known: dict[str, Tensor], state: dict[str, Tensor], name: str) -> None:
        for part, tensor in known.items():
            if tensor.shape[1:] != state[part].shape[1:] and part.startswith("readout"):
                raise ModelError(
                    f"The network cannot grow and keep what it learnt: block {name!r} put out {tensor.shape[1]} "
                    f"features, and would put out {state[part].shape[1]}."
                )
            _corner(state[part], tensor.shape).copy_(tensor)

    def state(self) -> State:
        """Return what has been learnt, of all copies at once, ``[copies, ...]``; see `fedtp.streaming.state`."""
        named = _named(self.optimizers)
        arrays = {name: torch.stack(tensors).detach().double().cpu().numpy() for name, tensors in named.items()}
        features, classes = {}, {}
        if self.optimizers:
            entry, ends = _growing(self.optimizers[0].chain)
            if entry in arrays and arrays[entry].shape[2] == len(self.names):
                features = {name: 2 for name in (entry, entry + _MOMENTUM) if name in arrays}
            ends |= {name for name in arrays if name.endswith(_READOUT)}
            classes = {name: 1 for end in ends for name in (end, end + _MOMENTUM) if name in arrays}
        arrays |= {"mistakes": self.mistakes, "uncounted": np.array(float(self.uncounted))}
        record = {
            "features": [plain(name, "feature's name") for name in self.names],
            "classes": [plain(key, "label") for key in self.keys],
            "paces": self.paces.tolist(),
        }
        return State(arrays, record, features, classes)

    @torch.no_grad()
    def load_state(self, state: State) -> None:
        """Take over what others of the same shape have learnt."""
        features, classes = (checked_names(state.record.get(key), key) for key in ("features", "classes"))
        copies, paces = len(self.paces), state.record.get("paces")
        if not isinstance(paces, list) or [type(pace) for pace in paces] != [float] * copies or not min(paces) > 0:
            raise DataError(f"the paces are {paces!r}, not {copies} numbers above 0")
        mistakes, uncounted = state.array("mistakes", copies), state.array("uncounted")
        if (mistakes < 0).any() or uncounted < 0:
            raise DataError("mistakes and samples must be counted from 0 up")
        optimizers = self._all_made(features, classes)
        for name, tensors in _named(optimizers).items():
            array = state.array(name, copies, *tensors[0].shape)
            for tensor, values in zip(tensors, array, strict=True):
                tensor.copy_(torch.tensor(values))
        self.names, self.keys, self.optimizers = features, classes, optimizers
        self.mistakes, self.uncounted = mistakes, round(float(uncounted))
        self.set_paces(np.array(paces))
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share()


def _named(optimizers: Sequence[TPSGD]) -> dict[str, list[Tensor]]:
    """Return all that is learnt or counted of every copy, by name: what weights are, and what goes with them."""
    found: dict[str, list[Tensor]] = {}
    for optimizer in optimizers:
        model = optimizer.chain.model
        own = dict(model.state_dict())
        for name, parameter in model.named_parameters():
            if "momentum_buffer" in optimizer.state[parameter]:
                own[name + _MOMENTUM] = optimizer.state[parameter]["momentum_buffer"]
        for block in optimizer.chain:
            state = optimizer.state[block.parameters[0]]
            parts = {"readout": _READOUT, "readout_momentum": _READOUT + _MOMENTUM}
            own |= {block.name + name: state[part] for part, name in parts.items() if part in state}
        for name, tensor in own.items():
            found.setdefault(name, []).append(tensor)
    return found


def _set_pace(optimizer: TPSGD, pace: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = HIDDEN_RATE * pace
    group["lr"] = pace


def _readout(optimizer: TPSGD, block: Block, features: int) -> Tensor:
    """Return the matrix that a hidden block is read through, ``[outputs, features]``."""
    parameter = block.parameters[0]
    if optimizer.space == "label":
        readout: Tensor = optimizer.state[parameter]["readout"]
        return readout
    return torch.tensor(optimizer.projection.rows(block.name, features)).to(parameter) / features


def _learnt(optimizer: TPSGD) -> Iterator[tuple[Tensor, bool]]:
    """Yield all that learns, and whether it is a readout."""
    for block in optimizer.chain:
        yield from ((parameter, False) for parameter in block.parameters)
        if "readout" in optimizer.state[block.parameters[0]]:
            yield optimizer.state[block.parameters[0]]["readout"], True


def _growing(chain: Chain) -> tuple[str, set[str]]:
    """Return the name of the weight whose columns are inputs, and those of the parameters whose rows are outputs."""
    first, last = chain.blocks[0], chain.blocks[-1]
    names = {id(module): name for name, module in chain.model.named_modules()}
    entry = ""
    if isinstance(first.rule.layer, nn.Linear):
        entry = f"{names[id(first.rule.layer)]}.weight"
    elif isinstance(first.rule.layer, Recurrent):
        entry = f"{names[id(first.rule.layer)]}.network.weight_ih_l0"
    ends = set()
    if isinstance(last.rule.layer, nn.Linear):
        ends = {f"{names[id(last.rule.layer)]}.{part}" for part in ("weight", "bias")}
    return entry, ends


def columns(seed: int, name: str, features: Sequence[Hashable], rows: int) -> Tensor:
    """Return a first layer's weights of some features, ``[rows, features]``, drawn from their names."""
    keys = [feature if isinstance(feature, str | int | float) else repr(feature) for feature in features]
    return FIRST_WEIGHTS * drawn(seed, name, keys, rows).T


def drawn(seed: int, name: str, keys: Sequence[Label] | range, features: int) -> Tensor:
    """Return weights of unit variance, ``[keys, features]``, drawn from the seed, a name and the keys."""
    return torch.tensor(Projection(seed, classes=list(keys)).rows(name, features), dtype=torch.float64)


def _corner(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return the part of a tensor that was there when it was smaller."""
    return tensor[tuple(slice(size) for size in shape)]
