"""A neural network as one of River's classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from river.base import MiniBatchClassifier
from river.base.typing import ClfTarget

from fedtp.errors import DataError, ModelError
from fedtp.losses import LossFunction, Space
from fedtp.projection import class_key
from fedtp.streaming.features import Vector
from fedtp.streaming.frames import column, like, series_like, table
from fedtp.streaming.learner import Sample, StreamLearner
from fedtp.streaming.state import counts, names, plain

if TYPE_CHECKING:
    from torch import nn


class TPClassifier(StreamLearner, MiniBatchClassifier):
    """A neural network that learns classes from a stream by target projection, without backpropagation.

    Every layer has a loss of its own: it is read through a matrix that starts as a fixed random projection of the
    label, and updates itself as soon as its output is known (tpSGD). A few copies of the network learn at paces of
    their own, and each counts in a prediction by how seldom it was wrong of late; so one setting serves streams that
    change all the time and streams that never change.

    Features and classes may appear and disappear. A new feature or class takes the next place and moves no other; its
    weights and projections come from the seed and its name alone, so they are the same on every device. A feature that
    a sample lacks counts as its mean.

    Parameters
    ----------
    hidden
        Units of each hidden layer, with tanh; or a function ``(inputs, outputs) -> nn.Sequential`` that builds any
        network, which then learns through PyTorch.
    lr
        Learning rate of the last block; hidden blocks learn twice as fast. Steps are divided by their input's squared
        norm, so 1 suits mostly, and ten times as much still works.
    paces
        By how much each copy of the network learns faster or slower than that.
    loss
        ``"cross_entropy"``, another loss of `fedtp.losses.LOSSES`, or any function; see `fedtp.TPSGD`.
    space
        ``"label"`` or ``"target"``; see `fedtp.TPSGD`.
    momentum, weight_decay
        As in ``torch.optim.SGD``.
    standardize
        Whether inputs are centred and scaled as they come.
    policy
        What is done where a drift is detected; see `fedtp.streaming.policies`. None for nothing.
    detector
        One of River's drift detectors, for the policy; None for ADWIN.
    seed
        Of all weights and projections. Models that shall be merged share it.

    Attributes
    ----------
    classes : list
        The labels met so far, in the order of their appearance.
    class_counts : list of int
        How many samples of each class have been learnt.

    References
    ----------
    Lomnitz, Daniels, Zhang, Piacentino, *Learning with Local Gradients at the Edge*, arXiv 2208.08503.

    Examples
    --------
    >>> from river import datasets, evaluate, metrics
    >>> evaluate.progressive_val_score(datasets.Phishing(), TPClassifier(seed=1), metrics.Accuracy())
    Accuracy: 89.35%
    """

    _of_classes = True

    def __init__(
        self,
        hidden: Sequence[int] | Callable[[int, int], nn.Sequential] = (64,),
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
        self.hidden = hidden
        self.lr = lr
        self.paces = paces
        self.loss = loss
        self.space = space
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.standardize = standardize
        self.policy = policy
        self.detector = detector
        self.seed = seed
        self.classes: list[ClfTarget] = []
        self.class_counts: list[int] = []
        self._indices: dict[ClfTarget, int] = {}
        self._targets = np.zeros((0, 0))
        self._begin()

    @property
    def _multiclass(self) -> bool:
        return True

    def _unit_test_skips(self) -> set[str]:
        # As of River's own models that learn by gradients: one step for a batch is not a step for each sample.
        return {"check_learn_many_matches_learn_one"}

    def learn_one(self, x: Sample, y: ClfTarget) -> None:
        """Learn that `x` is of the class `y`.

        Raises
        ------
        DataError
            If a feature is not a number, or the label is none; nothing has been learnt then.
        """
        new = self._unknown([y])
        values = self._appear(x)
        if new:
            self._add(new)
        index = self._indices[y]
        self._learn_one(values, self._targets[index])
        self.class_counts[index] += 1

    def predict_proba_one(self, x: Sample, **kwargs: Any) -> dict[ClfTarget, float]:
        """Return the probability of every class met so far; none before the first."""
        if not self.classes:
            return {}
        answers = _probabilities(self._answered(self.features.vector(x)))
        return dict(zip(self.classes, answers.tolist(), strict=True))

    def predict_one(self, x: Sample, **kwargs: Any) -> ClfTarget | None:
        """Return the likeliest class; None before the first was met."""
        if not self.classes:
            return None
        return self.classes[self._answered(self.features.vector(x)).argmax()]

    def learn_many(self, X: Any, y: Any) -> None:
        """Learn from a frame of samples and a series of their labels in one step."""
        columns, values = table(X)
        labels = column(y)
        if len(labels) != len(values):
            raise DataError(f"there are {len(values)} samples, but {len(labels)} labels")
        if not labels:
            return
        new = self._unknown(dict.fromkeys(labels))
        values = self._appear_many(columns, values)
        if new:
            self._add(new)
        indices = [self._indices[label] for label in labels]
        self._learn_many(values, self._targets[:, indices])
        for index in indices:
            self.class_counts[index] += 1

    def predict_proba_many(self, X: Any) -> Any:
        """Return the probabilities of the classes met so far, as a frame of the kind of `X`."""
        columns, values = table(X)
        if not self.classes:
            return like(X, {})
        answers = _probabilities(self._answered_many(self.features.matrix(columns, values)))
        return like(X, dict(zip(self.classes, answers, strict=True)))

    def predict_many(self, X: Any) -> Any:
        """Return the likeliest classes, as a series of the frame's kind."""
        columns, values = table(X)
        if not self.classes:
            return series_like(X, [None] * len(values))
        best = self._answered_many(self.features.matrix(columns, values)).argmax(0)
        return series_like(X, [self.classes[index] for index in best.tolist()])

    def _unknown(self, labels: Iterable[ClfTarget]) -> list[ClfTarget]:
        """Return those of some labels that are new."""
        try:
            new = [label for label in labels if label not in self._indices]
        except TypeError:
            raise DataError(f"a label must be a string, a number or a boolean, got {labels!r}") from None
        for label in new:
            try:
                class_key(label)
            except ModelError as error:
                raise DataError(str(error)) from None
        return new

    def _keys(self) -> Sequence[ClfTarget]:
        return self.classes

    @property
    def _samples(self) -> float:
        return sum(self.class_counts)

    def _record(self) -> dict[str, Any]:
        labels = [plain(label, "label") for label in self.classes]
        return super()._record() | {"classes": labels, "class_counts": self.class_counts}

    def _restore(self, record: Mapping[str, Any]) -> None:
        super()._restore(record)
        labels = names(record.get("classes"), "label")
        self.class_counts = counts(record.get("class_counts"), len(labels), "the samples of classes")
        self._name(labels)

    def _add(self, labels: Sequence[ClfTarget]) -> None:
        self._network.grow_outputs(labels)
        self._name([*self.classes, *labels])
        self.class_counts += [0] * len(labels)
        self._forget()

    def _name(self, labels: list[ClfTarget]) -> None:
        self.classes = labels
        self._indices = {label: index for index, label in enumerate(labels)}
        self._targets = np.eye(len(labels))


def _probabilities(answers: Vector) -> Vector:
    """Return answers, ``[classes, ...]``, so that they sum to 1: those of a loss that compares numbers need not."""
    positive = answers - np.minimum(answers.min(0), 0.0)
    total = positive.sum(0)
    shares: Vector = np.where(total > 0.0, positive / np.where(total > 0.0, total, 1.0), 1.0 / len(answers))
    return shares
