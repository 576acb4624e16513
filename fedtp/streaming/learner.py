"""What the classifier and the regressor of a stream have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from fedtp.errors import DataError, ModelError
from fedtp.losses import LossFunction, Space
from fedtp.projection import Label
from fedtp.streaming.drift import DriftReport, DriftWatch
from fedtp.streaming.features import Features, Vector
from fedtp.streaming.perceptrons import LOSSES, build
from fedtp.streaming.policies import Managed, as_policy
from fedtp.streaming.state import Part

if TYPE_CHECKING:
    from torch import nn

Sample = dict[Hashable, Any]

#: Of how many predicted samples it is remembered what was guessed, until their labels come.
LATE = 1000


class Network(Protocol):
    """What learns; `fedtp.streaming.perceptrons.Perceptrons` says what each of these does."""

    @property
    def blocks(self) -> list[str]: ...  # noqa: D102
    def grow_inputs(self, names: Sequence[Hashable]) -> None: ...  # noqa: D102
    def grow_outputs(self, keys: Sequence[Label]) -> None: ...  # noqa: D102
    def forward(self, x: Vector) -> Vector: ...  # noqa: D102
    def guesses(self) -> Vector: ...  # noqa: D102
    def learn(self, target: Vector, guesses: Vector | None = None) -> None: ...  # noqa: D102
    def forward_many(self, x: Vector) -> Vector: ...  # noqa: D102
    def learn_many(self, target: Vector) -> None: ...  # noqa: D102
    def readings(self, x: Vector) -> Vector: ...  # noqa: D102


class Adaptable(Network, Protocol):
    """A network that a policy can change; again `Perceptrons` says how."""

    paces: Vector

    def set_paces(self, paces: Vector) -> None: ...  # noqa: D102
    def weights(self) -> list[Vector]: ...  # noqa: D102
    def take(self, other: Self, blocks: Collection[str]) -> None: ...  # noqa: D102
    def keep_scales(self, before: Sequence[Vector]) -> None: ...  # noqa: D102


class StreamLearner(ABC):
    """Features, their standardisation and a network, fed one sample or one frame at a time.

    Attributes
    ----------
    features : Features
        The names met so far, with their means and variances.
    drift : DriftReport or None
        The latest drift that was flagged, if there is a detector.
    """

    #: Whether the outputs are classes.
    _of_classes: ClassVar[bool]

    hidden: Sequence[int] | Callable[[int, int], nn.Sequential]
    lr: float
    paces: tuple[float, ...]
    loss: str | LossFunction
    space: Space
    momentum: float
    weight_decay: float
    standardize: bool
    policy: Any
    detector: Any
    seed: int

    def _begin(self) -> None:
        """Make what learns, once the constructor's arguments are kept."""
        for name, numbers in (("lr", [self.lr]), ("paces", self.paces)):
            if not numbers or not all(0 < number < np.inf for number in numbers):
                raise ModelError(f"{name} must be greater than 0, got {getattr(self, name)!r}")
        self.features = Features(standardize=self.standardize)
        self.drift: DriftReport | None = None
        self._origin: dict[str, Vector] | None = None
        network = self._make_network()
        policy = as_policy(self.policy)
        self._network: Network = network if policy is None else policy.manage(network)
        self._watch: DriftWatch | None = None
        if policy is not None or self.detector is not None:
            from river.drift import ADWIN  # takes a second to import

            detector = ADWIN() if self.detector is None else self.detector
            self._watch = DriftWatch(detector, self._network.blocks, classes=self._of_classes)
        self._forget()

    def _forget(self) -> None:
        """Forget what was predicted. It is no part of the state: predicting changes nothing."""
        self._passed: bytes | None = None
        self._answer = np.zeros(0)
        self._late: dict[bytes, tuple[Vector, Vector]] = {}

    def _make_network(self) -> Adaptable:
        rates = [self.lr * pace for pace in self.paces]
        plain = self.space == "label" and not self.momentum and not self.weight_decay
        if not callable(self.hidden) and len(self.hidden) and self.loss in LOSSES and plain:
            return build(self.hidden, rates, self.loss, self.seed)  # type: ignore[arg-type]
        from fedtp.streaming.torch_networks import TorchNetworks  # PyTorch takes seconds to import

        return TorchNetworks(
            self.hidden,
            rates,
            self.loss,
            self.seed,
            space=self.space,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def _appear(self, x: Sample) -> Vector:
        """Give a sample's new features their weights, and return its values, ``[features]``."""
        new = self.features.appear(x)
        if new:
            self._grow(new)
        return self.features.vector(x)

    def _appear_many(self, columns: Sequence[Hashable], values: Vector) -> Vector:
        """Give a frame's new columns their weights, and return the values as features, ``[samples, features]``."""
        new = self.features.appear_many(columns, values)
        if new:
            self._grow(new)
        return self.features.matrix(columns, values)

    def _grow(self, new: Sequence[Hashable]) -> None:
        try:
            self._network.grow_inputs(new)
        except ModelError:  # there are networks that cannot grow, but go on with what they know
            self.features.withdraw(len(new))
            raise
        self._forget()

    def _answered(self, values: Vector) -> Vector:
        """Return what the network answers a sample's values, ``[outputs]``."""
        key = self._identity(values)
        # Who learns a sample has mostly just predicted it.
        if key != self._passed:
            if self._passed is not None:
                self._remember()
            self._answer = self._network.forward(self.features.standardized(values))
            self._passed = key
        return self._answer

    def _identity(self, values: Vector) -> bytes:
        """Return what tells a sample from others."""
        return values.tobytes()

    def _remember(self) -> None:
        """Keep the guesses about a sample whose label comes late: later ones would have seen its neighbours' labels."""
        assert self._passed is not None
        self._late[self._passed] = self._answer, self._network.guesses()
        if len(self._late) > LATE:
            del self._late[next(iter(self._late))]

    def _answered_many(self, values: Vector) -> Vector:
        """Return what the network answers to many samples, ``[outputs, samples]``."""
        self._passed = None
        return self._network.forward_many(self.features.standardized(values))

    def _learn_one(self, values: Vector, target: Vector) -> None:
        self._answered(values)
        answer, guesses = self._answer, None
        if self._late and self._passed in self._late:
            answer, guesses = self._late.pop(self._passed)
        self._passed = None
        found = None if self._watch is None else self._observed(values, answer, target)
        self._network.learn(target, guesses)
        self.features.learn(values)
        if found is not None:
            self._react(found)

    def _learn_many(self, values: Vector, target: Vector) -> None:
        self.features.learn_many(values)
        answers = self._answered_many(values)
        found = None
        if self._watch is not None:
            for sample in range(len(values)):
                # What is done about a drift is done after the batch, once.
                found = self._observed(values[sample], answers[:, sample], target[:, sample]) or found
        self._network.learn_many(target)
        if found is not None:
            self._react(found)

    def _observed(self, values: Vector, answer: Vector, target: Vector) -> DriftReport | None:
        """Watch a sample that is about to be learnt; return a report if a drift is flagged."""
        assert self._watch is not None
        error = answer.argmax() != target.argmax() if self._of_classes else abs(target[0] - answer[0])
        return self._watch.observe(float(error), self._network.readings(self.features.standardized(values)), target)

    def _react(self, found: DriftReport) -> None:
        """Report a drift, and do about it what the policy says."""
        self.drift = found
        if isinstance(self._network, Managed):
            self._network.drifted(found, self._fresh)
            self._forget()

    def _fresh(self) -> Adaptable:
        """Return the network as it would be if it had learnt nothing yet."""
        network = self._make_network()
        network.grow_inputs(self.features.names)
        network.grow_outputs(self._keys())
        return network

    @abstractmethod
    def _keys(self) -> Sequence[Label]:
        """Return what the outputs are called."""

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to one file, from which `load` makes one that goes on exactly like it.

        The file is in the safetensors format, with all that is no array as JSON in its metadata; nothing in it is code.
        It appears as a whole or not at all, and replaces no file but an earlier save.

        Raises
        ------
        ModelError
            If something of the model cannot be saved: a feature's name that is no string, number or boolean, a drift
            detector that is unknown.
        DataError
            If the file cannot be written there.
        """
        from fedtp.streaming.persistence import save

        save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str], *, restart_detectors: bool = False, **functions: Any) -> Self:
        """Return the model that `save` wrote.

        Parameters
        ----------
        path
            The file.
        restart_detectors
            Have drift detectors start anew; so models whose ADWIN was saved by another version of River can be loaded.
        functions
            The arguments of the constructor that were functions, which no file holds: ``hidden``, ``loss``.

        Raises
        ------
        DataError
            If the file does not hold such a model, as a whole and without errors.
        """
        from fedtp.streaming.persistence import load

        return load(path, cls, restart_detectors=restart_detectors, **functions)

    def merge(self, other: Self, weight: float | None = None) -> None:
        """Take in what another model has learnt apart, with the same seed; see `fedtp.streaming.merge`.

        Like all that changes a River model, it works in place and returns nothing.

        Parameters
        ----------
        other
            The other one; it stays as it is.
        weight
            How much it counts, where this one counts 1; None to let every sample count the same.

        Raises
        ------
        ModelError
            If the two cannot be averaged; nothing has changed then.
        """
        from fedtp.streaming.merging import merge

        merged = merge([self, other], None if weight is None else [1.0, weight])
        self.__setstate__(merged.__getstate__())

    def _parts(self) -> dict[str, Part]:
        """Return what has a state of its own, by name: it is saved, and the features and the network are merged."""
        parts: dict[str, Any] = {"features": self.features, "network": self._network}
        return parts if self._watch is None else parts | {"watch": self._watch}

    def _record(self) -> dict[str, Any]:
        """Return the rest of the state, as JSON holds it."""
        return {"drift": None if self.drift is None else asdict(self.drift)}

    def _restore(self, record: Mapping[str, Any]) -> None:
        """Take over what `_record` returned."""
        self.drift = _read_report(record.get("drift"))

    @property
    @abstractmethod
    def _samples(self) -> float:
        """How many samples have been learnt."""

    @property
    def _raw_memory_usage(self) -> int:
        held = vars(self._network).values() if isinstance(self._network, Managed) else [self._network]
        # River does not see what PyTorch's tensors hold.
        tensors = sum(getattr(part, "nbytes", 0) for part in held if isinstance(part, Part))
        return super()._raw_memory_usage + tensors  # type: ignore[misc, no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_passed", "_answer", "_late")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def _read_report(found: Any) -> DriftReport | None:
    """Return a report of which `dataclasses.asdict` was saved."""
    if found is None:
        return None
    try:
        report = DriftReport(**found)
        whole = all(type(n) is int and n >= 0 for n in (report.sample, report.since))
        if not whole or not all(isinstance(report.moved(block), bool) for block in [*report.blocks, report.from_block]):
            raise ValueError
    except (TypeError, ValueError, KeyError, AttributeError, IndexError):
        raise DataError(f"the latest drift is {found!r}, which is no report") from None
    return report
