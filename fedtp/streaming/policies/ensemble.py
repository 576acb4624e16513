"""An ensemble of two: a stable learner and a reactive one."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedtp.errors import ModelError
from fedtp.projection import Label
from fedtp.streaming.drift import DriftReport
from fedtp.streaming.features import Vector
from fedtp.streaming.policies.policy import Managed, Policy, packed, unpack
from fedtp.streaming.state import State

if TYPE_CHECKING:
    from fedtp.streaming.learner import Adaptable
    from fedtp.streaming.policies.policy import Fresh


@dataclass(frozen=True)
class Ensemble(Policy):
    """At each drift a reactive network starts anew beside the stable one; the one that errs less of late answers.

    If the reactive one has been clearly better, it becomes the stable one. If it has not within its trial, it is given
    up, and time and memory are one network's again.

    Parameters
    ----------
    fading
        What an error counts for one sample later; errors are the squares of what answers are wrong by.
    margin
        The reactive network is clearly better with less than this share of the stable one's errors.
    least, trial
        After how many samples it may take over at the earliest, and is given up.

    References
    ----------
    Bach and Maloof, *Paired Learners for Concept Drift*, ICDM 2008, from where the idea is.

    Examples
    --------
    >>> from fedtp.streaming import TPClassifier
    >>> TPClassifier(policy=Ensemble(trial=500)).policy
    Ensemble(fading=0.99, margin=0.9, least=100, trial=500)
    """

    fading: float = 0.99
    margin: float = 0.9
    least: int = 100
    trial: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.fading < 1 or not 0 < self.margin <= 1 or not 1 <= self.least <= self.trial:
            raise ModelError(
                f"fading lies between 0 and 1, so does margin, and least is from 1 to trial samples, got {self}."
            )

    def manage(self, network: Adaptable) -> Managed:  # noqa: D102
        return _Pair(network, self)


class _Pair(Managed):
    """The stable network, and the reactive one where there is one."""

    def __init__(self, network: Adaptable, policy: Ensemble) -> None:
        super().__init__(network)
        self.policy = policy
        self.reactive: Adaptable | None = None
        self.wrong = [0.0, 0.0]
        self.age = 0
        self.answers = [np.zeros(0), np.zeros(0)]

    def drifted(self, report: DriftReport, fresh: Fresh) -> None:
        self.reactive = fresh()
        self.wrong = [0.0, 0.0]
        self.age = 0

    def grow_inputs(self, names: Sequence[Hashable]) -> None:
        for network in self._both():
            network.grow_inputs(names)

    def grow_outputs(self, keys: Sequence[Label]) -> None:
        for network in self._both():
            network.grow_outputs(keys)

    def forward(self, x: Vector) -> Vector:
        return self._better([network.forward(x) for network in self._both()])

    def forward_many(self, x: Vector) -> Vector:
        return self._better([network.forward_many(x) for network in self._both()])

    def guesses(self) -> Vector:
        """Return what the copies of both answer, the stable network's first."""
        return np.concatenate([network.guesses() for network in self._both()])

    def learn(self, target: Vector, guesses: Vector | None = None) -> None:
        both = self._both()
        # A guess about a sample that waited for its label may be older than the reactive network, or than its end.
        parts: Sequence[Vector | None] = [None] * len(both)
        if guesses is not None:
            each = len(self.network.guesses())
            parts = [guesses[:each], guesses[each:] if len(guesses) == 2 * each else None]
        for network, part in zip(both, parts, strict=False):
            network.learn(target, part)
        self._compare(target[:, None])

    def learn_many(self, target: Vector) -> None:
        for network in self._both():
            network.learn_many(target)
        self._compare(target)

    def _memory(self) -> State:
        arrays, record = ({}, {}) if self.reactive is None else packed("reactive", self.reactive)
        return State(arrays | {"wrong": np.array(self.wrong)}, record | {"age": self.age})

    def _remember(self, state: State) -> None:
        wrong, age = state.array("wrong", 2).tolist(), state.whole("age")
        reactive = None
        if "reactive" in state.record:
            reactive = copy.deepcopy(self.network)
            unpack("reactive", state, reactive)
        self.reactive, self.wrong, self.age = reactive, wrong, age

    def _both(self) -> list[Adaptable]:
        return [self.network] if self.reactive is None else [self.network, self.reactive]

    def _better(self, answers: list[Vector]) -> Vector:
        self.answers = answers
        return answers[-1] if self.wrong[1] < self.wrong[0] else answers[0]

    def _compare(self, target: Vector) -> None:
        """Count both networks' errors, and decide what becomes of the reactive one."""
        if self.reactive is None:
            return
        samples = target.shape[1]
        fades = self.policy.fading ** np.arange(samples)[::-1]
        for number, answer in enumerate(self.answers):
            errors = np.square(target - answer.reshape(target.shape)).sum(0)
            self.wrong[number] = self.policy.fading**samples * self.wrong[number] + float(errors @ fades)
        self.age += samples
        if self.age >= self.policy.least and self.wrong[1] < self.policy.margin * self.wrong[0]:
            self.network, self.reactive = self.reactive, None
        elif self.age >= self.policy.trial:
            self.reactive = None
        if self.reactive is None:
            self.wrong = [0.0, 0.0]
