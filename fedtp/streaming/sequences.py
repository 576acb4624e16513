"""Recurrent networks on streams: one time step at a time, with a state for each device or sensor that is interleaved.

What a sample means may depend on those before it. A recurrent network keeps what it needs of them in a state. Every
block learns at every step from a loss of its own, and the state that enters a step is a constant (`fedtp.Recurrent`):
nothing else of the past is kept.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

import narwhals.stable.v2 as nw
import torch
from river.base.typing import ClfTarget
from torch import Tensor, nn

from fedtp.blocks import Block, Chain
from fedtp.errors import DataError, ModelError
from fedtp.losses import LossFunction, Space
from fedtp.models import CELLS
from fedtp.optimizer import TPSGD
from fedtp.projection import Label
from fedtp.recurrent import Recurrent
from fedtp.rules import RecurrentRule
from fedtp.streaming.classifier import TPClassifier
from fedtp.streaming.features import Vector
from fedtp.streaming.frames import column
from fedtp.streaming.learner import Sample, StreamLearner
from fedtp.streaming.perceptrons import FIRST_WEIGHTS
from fedtp.streaming.policies import Managed, WindowRetrain, as_policy
from fedtp.streaming.regressor import TPRegressor
from fedtp.streaming.state import Part, State, counts, names, plain
from fedtp.streaming.torch_networks import Builder, TorchNetworks, columns, drawn

Cell = Literal["rnn", "gru", "lstm"]
#: Which stream a sample belongs to: the name of a feature that says it, or a function of the sample.
Key: TypeAlias = Hashable | Callable[[Sample], Hashable]

#: What one copy's recurrent blocks keep of one stream: a tuple per block, of tensors ``[1, units]``.
_State: TypeAlias = tuple[tuple[Tensor, ...], ...]


class Streams:
    """The streams that are known, and those that the samples at hand belong to.

    Parameters
    ----------
    most
        How many are known at most; the one that was learnt from longest ago is forgotten.

    Attributes
    ----------
    numbers
        Of each stream that is known, by its key, in the order in which they were learnt from. A stream that begins
        anew gets a new one.
    at_hand
        The number of each sample's stream; None if it is not known.
    network
        That of the learner, or the policy that has it in hand.

    Examples
    --------
    >>> streams = Streams(2)
    >>> for key in ("a", "b", "a", "c"):
    ...     streams.turn_to([key], learning=True)
    >>> streams.turn_to(["a", "b", "c"], learning=False)
    >>> streams.at_hand
    [0, None, 2]
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.numbers: OrderedDict[Hashable, int] = OrderedDict()
        self.at_hand: list[int | None] = []
        self.network: Any = None
        self._next = 0

    def turn_to(self, keys: Sequence[Hashable], *, learning: bool) -> None:
        """Say what streams the next samples belong to, and whether they are learnt from.

        Raises
        ------
        DataError
            If something cannot be a key.
        """
        try:
            if learning:
                for key in keys:
                    self._remember(key)
            self.at_hand = [self.numbers.get(key) for key in keys]
        except TypeError:
            raise DataError(f"a stream's key must be hashable, as strings and numbers are, got {keys!r}") from None

    def _remember(self, key: Hashable) -> None:
        if key not in self.numbers:
            self.numbers[key] = self._next
            self._next += 1
        self.numbers.move_to_end(key)
        if len(self.numbers) > self.most:
            self.numbers.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """Let a stream begin anew."""
        self.numbers.pop(key, None)

    def state(self) -> State:
        """Return the keys, and what the networks keep of their streams, ``[copies, streams, units]``."""
        arrays = {}
        known = []
        for number, network in enumerate(self._networks()):
            streams = sorted(network.states[0])
            known.append(streams)
            for block, parts in enumerate(network.states[0][streams[0]] if streams else ()):
                for part in range(len(parts)):
                    rows = [[copy[stream][block][part][0] for stream in streams] for copy in network.states]
                    array = torch.stack([torch.stack(row) for row in rows]).double().cpu().numpy()
                    arrays[f"{number}.{block}.{part}"] = array
        keys = [None if key is None else plain(key, "stream's key") for key in self.numbers]
        return State(arrays, {"keys": keys, "numbers": [*self.numbers.values()], "next": self._next, "known": known})

    def load_state(self, state: State) -> None:
        """Take over streams, once the networks are loaded."""
        keys, following, networks = state.record.get("keys"), state.whole("next"), self._networks()
        if not isinstance(keys, list) or len(keys) > self.most:
            raise DataError(f"the streams are not a list of at most {self.most}")
        names([key for key in keys if key is not None], "stream's key")
        numbers = counts(state.record.get("numbers"), len(keys), "the streams' numbers")
        known = state.record.get("known")
        if not isinstance(known, list) or len(known) != len(networks) or max(numbers, default=-1) >= following:
            raise DataError("the streams do not belong to the networks")
        taken = []
        for number, (network, found) in enumerate(zip(networks, known, strict=True)):
            streams = counts(found, len(found), "the numbers of known streams") if isinstance(found, list) else []
            taken.append(network.states_of(state, number, streams))
        for network, states in zip(networks, taken, strict=True):
            network.states = states
        self.numbers, self._next = OrderedDict(zip(keys, numbers, strict=True)), following

    def _networks(self) -> list[RecurrentNetworks]:
        held = vars(self.network).values() if isinstance(self.network, Managed) else [self.network]
        return [network for network in held if isinstance(network, RecurrentNetworks)]


class RecurrentNetworks(TorchNetworks):
    """Copies of a recurrent network, fed one time step at a time.

    Parameters
    ----------
    hidden
        Units of each recurrent layer; or a function as of `TorchNetworks` that builds a network with `fedtp.Recurrent`
        layers.
    cell
        Of these layers: ``"rnn"``, ``"gru"`` or ``"lstm"``.
    streams
        Says whose states the samples go on from: several samples at once are of different streams.
    paces, loss, seed, space, momentum, weight_decay
        As of `TorchNetworks`.

    Attributes
    ----------
    states
        Of every copy, by the stream's number.
    """

    def __init__(
        self,
        hidden: Sequence[int] | Builder,
        paces: Sequence[float],
        loss: str | LossFunction,
        seed: int,
        *,
        cell: Cell,
        streams: Streams,
        space: Space = "label",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        if cell not in get_args(Cell):
            raise ModelError(f"There is no cell {cell!r}; choose one of {', '.join(get_args(Cell))}.")
        if not callable(hidden) and not (hidden and min(hidden) > 0):
            raise ModelError(f"hidden must be the units of at least one recurrent layer, got {hidden!r}.")
        self.cell = cell
        self.streams = streams
        self.states: list[dict[int, _State]] = [{} for _ in paces]
        super().__init__(hidden, paces, loss, seed, space=space, momentum=momentum, weight_decay=weight_decay)

    @property
    def nbytes(self) -> int:
        """How many bytes weights, readouts, momentum, statistics and states take."""
        states = (tensor for known in self.states for state in known.values() for part in state for tensor in part)
        return super().nbytes + sum(tensor.nbytes for tensor in states)

    def states_of(self, state: State, number: int, streams: Sequence[int]) -> list[dict[int, _State]]:
        """Return the states of some streams that `Streams.state` wrote of the network of that number."""
        if not streams:
            return [{} for _ in self.states]
        if not self.optimizers:
            raise DataError("there are states of streams, but nothing has been learnt")
        arrays = [
            [
                torch.tensor(
                    state.array(f"{number}.{place}.{part}", len(self.states), len(streams), parts[part].shape[1])
                ).to(self._like)
                for part in range(len(parts))
            ]
            for place, parts in enumerate(self._blank(self.optimizers[0].chain))
        ]
        return [
            {
                stream: tuple(tuple(array[copy, row : row + 1].clone() for array in parts) for parts in arrays)
                for row, stream in enumerate(streams)
            }
            for copy in range(len(self.states))
        ]

    def _pass(self, number: int, chain: Chain, x: Tensor, visit: Callable[[Block, Tensor], Tensor]) -> Tensor:
        self._go_on(number, chain)
        a = chain.enter(x.unsqueeze(1))
        if not chain.blocks[0].recurrent:
            a = a.squeeze(1)
        for block in chain:
            a = visit(block, a.unsqueeze(1) if block.recurrent and a.dim() == 2 else a)
        chain.begin()  # where this has led to is forgotten
        return a

    def _step(self, number: int, optimizer: TPSGD, target: Tensor) -> None:
        self._go_on(number, optimizer.chain)
        optimizer.step(self._x.unsqueeze(1), target, carry=True)
        states = self.states[number]
        for row, stream in enumerate(self.streams.at_hand):
            assert stream is not None
            # Copies, because a view would keep all rows alive.
            states[stream] = tuple(
                tuple(part[row : row + 1].clone() for part in parts) for parts in _state(optimizer.chain)
            )
        optimizer.chain.begin()
        if len(states) > len(self.streams.numbers):
            known = set(self.streams.numbers.values())
            self.states[number] = {stream: state for stream, state in states.items() if stream in known}

    def _go_on(self, number: int, chain: Chain) -> None:
        """Set a copy's state to that of the streams at hand."""
        states = self.states[number]
        blank = self._blank(chain)
        rows = [blank if stream is None else states.get(stream, blank) for stream in self.streams.at_hand]
        chain.state = [
            tuple(torch.cat(parts) for parts in zip(*block, strict=True)) for block in zip(*rows, strict=True)
        ]

    def _blank(self, chain: Chain) -> _State:
        """Return the state of a stream that begins."""
        rules = [block.rule for block in chain if isinstance(block.rule, RecurrentRule)]
        return tuple((self._like.new_zeros(1, rule.hidden),) * rule.cell.states for rule in rules)

    def _sample(self, chain: Chain, inputs: int) -> Tensor:
        if not chain.recurrent:
            raise ModelError("hidden(...) must give a network with fedtp.Recurrent layers.")
        return chain.blocks[0].parameters[0].new_zeros(1, 1, inputs)

    def _own(self, seed: int, names: Sequence[Hashable], keys: Sequence[Label], hidden: Sequence[int]) -> nn.Sequential:
        """Return recurrent layers and a last layer, whose weights come from the seed and the names alone."""
        layers: list[nn.Module] = []
        for number, (inputs, units) in enumerate(zip((len(names), *hidden), hidden, strict=False)):
            network = CELLS[self.cell](inputs, units, dtype=torch.float64)
            weights = dict(network.named_parameters())
            block, rows = f"{number}.network", len(weights["weight_ih_l0"])
            entry = (
                drawn(seed, f"{block}.weight_ih_l0", range(rows), inputs) / math.sqrt(inputs)
                if number
                else columns(seed, f"{block}.weight_ih_l0", names, rows)
            )
            with torch.no_grad():
                weights["weight_ih_l0"].copy_(entry)
                weights["weight_hh_l0"].copy_(
                    drawn(seed, f"{block}.weight_hh_l0", range(rows), units) / math.sqrt(units)
                )
                weights["bias_ih_l0"].copy_(FIRST_WEIGHTS * drawn(seed, f"{block}.bias_ih_l0", ["bias"], rows)[0])
                weights["bias_hh_l0"].zero_()
            layers.append(Recurrent(network, "all"))
        last = nn.Linear(hidden[-1], len(keys), dtype=torch.float64)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(*layers, last).eval()


def _state(chain: Chain) -> _State:
    return tuple(part for part in chain.state if part is not None)


class SequenceLearner(StreamLearner):
    """What the classifier and the regressor of sequences have in common."""

    cell: Cell
    key: Key
    max_keys: int

    def _begin(self) -> None:
        if isinstance(as_policy(self.policy), WindowRetrain):
            raise ModelError("window-retrain would learn the samples of all streams as one sequence; choose another.")
        if self.max_keys < 1:
            raise ModelError(f"max_keys must be at least 1, got {self.max_keys!r}")
        self._streams = Streams(self.max_keys)
        super()._begin()
        self._streams.network = self._network

    def reset(self, key: Hashable = None) -> None:
        """Forget the state of a stream: its next sample begins a new sequence."""
        self._streams.forget(key)
        self._forget()

    def learn_one(self, x: Sample, y: Any) -> None:
        """Learn the next time step of the stream that `x` belongs to, and move that stream's state on.

        Raises
        ------
        DataError
            If a feature is not a number, or `y` cannot be learnt; nothing has been learnt then.
        """
        super().learn_one(self._turn_to(x, learning=True), y)  # type: ignore[misc]

    def predict_one(self, x: Sample, **kwargs: Any) -> Any:
        """Return what is expected of `x` as the next time step of its stream, whose state stays as it is."""
        return super().predict_one(self._turn_to(x), **kwargs)  # type: ignore[misc]

    def learn_many(self, X: Any, y: Any) -> None:
        """Learn the rows of a frame as time steps, in their order; those of different streams at once.

        Each stream's first rows are one mini-batch, its second rows the next, and so on.
        """
        frame, keys = self._divided(X)
        targets = column(y)
        if len(targets) != len(keys):
            raise DataError(f"there are {len(keys)} samples, but {len(targets)} labels or values")
        series = nw.from_native(y, series_only=True)
        # Who watches for drifts looks at one sample after the other.
        for rows in _steps(keys, self.max_keys if self._watch is None else 1):
            self._streams.turn_to([keys[row] for row in rows], learning=True)
            super().learn_many(frame[rows].to_native(), series[rows].to_native())  # type: ignore[misc]

    def predict_many(self, X: Any) -> Any:
        """Return what is expected of each row as the *next* time step of its stream, whatever the other rows are."""
        return super().predict_many(self._turn_to_many(X))  # type: ignore[misc]

    def _identity(self, values: Vector) -> bytes:
        # What was answered to a sample holds for its stream alone.
        return super()._identity(values) + repr(self._streams.at_hand[0]).encode()

    def _turn_to(self, x: Sample, *, learning: bool = False) -> Sample:
        """Turn to the stream of a sample, and return what is learnt of it: all but the name of the stream."""
        key: Hashable = None
        if callable(self.key):
            key = self.key(x)
        elif self.key is not None:
            key = x.get(self.key)
            x = {name: value for name, value in x.items() if name != self.key}
        self._streams.turn_to([key], learning=learning)
        return x

    def _turn_to_many(self, X: Any) -> Any:
        frame, keys = self._divided(X)
        self._streams.turn_to(keys, learning=False)
        return frame.to_native()

    def _divided(self, X: Any) -> tuple[nw.DataFrame[Any], list[Hashable]]:
        """Return the features of a frame, and the keys of its rows."""
        frame = nw.from_native(X, eager_only=True)
        if callable(self.key):
            return frame, [self.key(dict(row)) for row in frame.iter_rows(named=True)]
        if self.key is None or self.key not in frame.columns:
            return frame, [None] * len(frame)
        return frame.drop(str(self.key)), frame[str(self.key)].to_list()

    def _parts(self) -> dict[str, Part]:
        return super()._parts() | {"streams": self._streams}

    def _make_network(self) -> RecurrentNetworks:
        return RecurrentNetworks(
            self.hidden,
            [self.lr * pace for pace in self.paces],
            self.loss,
            self.seed,
            cell=self.cell,
            streams=self._streams,
            space=self.space,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )


def _steps(keys: Sequence[Hashable], most: int) -> Iterator[list[int]]:
    """Yield rows that can be learnt at once: the first of each stream, then the second; at most so many."""
    steps: dict[int, list[int]] = {}
    seen: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        seen[key] = seen.get(key, -1) + 1
        steps.setdefault(seen[key], []).append(row)
    for rows in steps.values():
        for first in range(0, len(rows), most):
            yield rows[first : first + most]


class TPSequenceClassifier(SequenceLearner, TPClassifier):
    """A recurrent network that learns the classes of the time steps of a stream, or of many interleaved ones.

    It is a `TPClassifier` with a memory: `learn_one` feeds it one time step, and moves on the state of the stream that
    the sample belongs to; `predict_one` looks at that state and leaves it. Every layer learns at every step from a loss
    of its own, without backpropagation through time: however long a stream is, its next step costs the same.

    Parameters
    ----------
    hidden
        Units of each recurrent layer; or a function ``(inputs, outputs) -> nn.Sequential`` that builds a network with
        `fedtp.Recurrent` layers.
    cell
        ``"gru"``, ``"lstm"`` or ``"rnn"``.
    key
        Which stream a sample belongs to: the name of the feature that says it (a device, a sensor; it may be text, and
        is not learnt from), or a function of the sample. None if all samples are one stream.
    max_keys
        How many streams have a state at most. The one that was learnt from longest ago is forgotten, and begins anew if
        it comes back.
    lr, paces, loss, space, momentum, weight_decay, standardize, policy, detector, seed
        As `TPClassifier`'s. The policy ``"window-retrain"`` is refused: its window is no sequence.

    Examples
    --------
    The label is what the sensor's reading was before:

    >>> import random
    >>> from river import metrics
    >>> model, accuracy = TPSequenceClassifier(hidden=(16,), key="sensor", seed=1), metrics.Accuracy()
    >>> drawn = random.Random(1)
    >>> before = {"north": 0, "south": 0}
    >>> for step in range(600):
    ...     sensor, reading = drawn.choice(["north", "south"]), drawn.randrange(2)
    ...     x, y = {"sensor": sensor, "reading": reading}, before[sensor]
    ...     if step >= 300:
    ...         accuracy.update(y, model.predict_one(x))
    ...     model.learn_one(x, y)
    ...     before[sensor] = reading
    >>> accuracy.get() > 0.9
    True
    """

    def __init__(
        self,
        hidden: Sequence[int] | Builder = (64,),
        cell: Cell = "gru",
        key: Key = None,
        max_keys: int = 1000,
        lr: float = 1.0,
        paces: tuple[float, ...] = (1.0, 0.3, 0.05),
        loss: str | LossFunction = "cross_entropy",
        space: Space = "label",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        standardize: bool = True,
        policy: Any = None,
        detector: Any = None,
        seed: int = 0,
    ) -> None:
        self.cell = cell
        self.key = key
        self.max_keys = max_keys
        super().__init__(
            hidden=hidden,
            lr=lr,
            paces=paces,
            loss=loss,
            space=space,
            momentum=momentum,
            weight_decay=weight_decay,
            standardize=standardize,
            policy=policy,
            detector=detector,
            seed=seed,
        )

    def predict_proba_one(self, x: Sample, **kwargs: Any) -> dict[ClfTarget, float]:
        """Return the probability of every class met so far; the state of the stream stays as it is."""
        return super().predict_proba_one(self._turn_to(x), **kwargs)

    def predict_proba_many(self, X: Any) -> Any:
        """Return the probabilities of the classes, of each row as the *next* time step of its stream."""
        return super().predict_proba_many(self._turn_to_many(X))


class TPSequenceRegressor(SequenceLearner, TPRegressor):
    """A recurrent network that learns a number for each time step of a stream, or of many interleaved ones.

    Parameters
    ----------
    hidden, cell, key, max_keys
        As `TPSequenceClassifier`'s.
    lr, paces, loss, space, momentum, weight_decay, standardize, policy, detector, seed
        As `TPRegressor`'s. The policy ``"window-retrain"`` is refused: its window is no sequence.

    Examples
    --------
    >>> import math
    >>> from river import metrics
    >>> model, error = TPSequenceRegressor(hidden=(16,), seed=1), metrics.MAE()
    >>> for step in range(600):
    ...     x, y = {"wave": math.sin(0.3 * step)}, math.sin(0.3 * (step + 1))  # rising or falling, x alone cannot tell
    ...     if step >= 500:
    ...         error.update(y, model.predict_one(x))
    ...     model.learn_one(x, y)
    >>> error.get() < 0.1
    True
    """

    def __init__(
        self,
        hidden: Sequence[int] | Builder = (64,),
        cell: Cell = "gru",
        key: Key = None,
        max_keys: int = 1000,
        lr: float = 1.0,
        paces: tuple[float, ...] = (1.0, 0.3, 0.05),
        loss: str | LossFunction = "squared",
        space: Space = "label",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        standardize: bool = True,
        policy: Any = None,
        detector: Any = None,
        seed: int = 0,
    ) -> None:
        self.cell = cell
        self.key = key
        self.max_keys = max_keys
        super().__init__(
            hidden=hidden,
            lr=lr,
            paces=paces,
            loss=loss,
            space=space,
            momentum=momentum,
            weight_decay=weight_decay,
            standardize=standardize,
            policy=policy,
            detector=detector,
            seed=seed,
        )
