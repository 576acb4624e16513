"""What the classifier and the regressor of a stream have in common."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fedtp.errors import ModelError
from fedtp.losses import LossFunction, Space
from fedtp.projection import Label
from fedtp.streaming.features import Features, Vector
from fedtp.streaming.perceptrons import LOSSES, build

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
    def losses(self, target: Vector) -> Vector: ...  # noqa: D102


class StreamLearner:
    """Features, their standardisation and a network, fed one sample or one frame at a time.

    Attributes
    ----------
    features : Features
        The names met so far, with their means and variances.
    """

    hidden: Sequence[int] | Callable[[int, int], nn.Sequential]
    lr: float
    paces: tuple[float, ...]
    loss: str | LossFunction
    space: Space
    momentum: float
    weight_decay: float
    standardize: bool
    seed: int

    def _begin(self) -> None:
        """Make what learns, once the constructor's arguments are kept."""
        for name, numbers in (("lr", [self.lr]), ("paces", self.paces)):
            if not numbers or not all(0 < number < np.inf for number in numbers):
                raise ModelError(f"{name} must be greater than 0, got {getattr(self, name)!r}")
        self.features = Features(standardize=self.standardize)
        self._network = self._make_network()
        self._forget()

    def _forget(self) -> None:
        """Forget what was predicted. It is no part of the state: predicting changes nothing."""
        self._passed: bytes | None = None
        self._answer = np.zeros(0)
        self._late: dict[bytes, Vector] = {}

    def _make_network(self) -> Network:
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

    def _appear(self, x: Sample) -> None:
        """Give a sample's new features their weights."""
        new = self.features.appear(x)
        if new:
            self._network.grow_inputs(new)
            self._forget()

    def _appear_many(self, columns: Sequence[Hashable], values: Vector) -> Vector:
        """Give a frame's new columns their weights, and return the values as features, ``[samples, features]``."""
        new = self.features.appear_many(columns, values)
        if new:
            self._network.grow_inputs(new)
            self._forget()
        return self.features.matrix(columns, values)

    def _answered(self, values: Vector) -> Vector:
        """Return what the network answers a sample's values, ``[outputs]``."""
        key = values.tobytes()
        # Who learns a sample has mostly just predicted it.
        if key != self._passed:
            if self._passed is not None:
                self._remember()
            self._answer = self._network.forward(self.features.standardized(values))
            self._passed = key
        return self._answer

    def _remember(self) -> None:
        """Keep the guesses about a sample whose label comes late: later ones would have seen its neighbours' labels."""
        assert self._passed is not None
        self._late[self._passed] = self._network.guesses()
        if len(self._late) > LATE:
            del self._late[next(iter(self._late))]

    def _answered_many(self, values: Vector) -> Vector:
        """Return what the network answers to many samples, ``[outputs, samples]``."""
        self._passed = None
        return self._network.forward_many(self.features.standardized(values))

    def _learn_one(self, x: Sample, target: Vector) -> None:
        values = self.features.vector(x)
        self._answered(values)
        guesses = self._late.pop(self._passed, None) if self._late else None
        self._passed = None
        self._network.learn(target, guesses)
        self.features.learn(values)

    def _learn_many(self, values: Vector, target: Vector) -> None:
        self.features.learn_many(values)
        self._answered_many(values)
        self._network.learn_many(target)

    @property
    def _raw_memory_usage(self) -> int:
        return super()._raw_memory_usage  # type: ignore[misc, no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_passed", "_answer", "_late")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
