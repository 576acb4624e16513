"""A neural network as one of River's regressors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from river.base import MiniBatchRegressor

from fedtp.errors import DataError
from fedtp.losses import LossFunction, Space
from fedtp.projection import Label
from fedtp.streaming.features import Features, Vector
from fedtp.streaming.frames import column, series_like, table
from fedtp.streaming.learner import Sample, StreamLearner
from fedtp.streaming.state import Part

if TYPE_CHECKING:
    from torch import nn

#: The name under which the values that are learnt are standardised.
_VALUE = "value"


class TPRegressor(StreamLearner, MiniBatchRegressor):
    """A neural network that learns numbers from a stream by target projection, without backpropagation.

    It is to numbers what `TPClassifier` is to classes: see there for the parameters and what happens as features come
    and go. The values are standardised as they come, so that their scale does not matter; the hidden layers see them
    through random projections of one row.

    Parameters
    ----------
    hidden, lr, paces, loss, space, momentum, weight_decay, standardize, policy, detector, seed
        As `TPClassifier`'s; the loss is ``"squared"`` by default.

    Examples
    --------
    >>> from river import datasets, evaluate, metrics
    >>> evaluate.progressive_val_score(datasets.TrumpApproval(), TPRegressor(seed=1), metrics.MAE())
    MAE: 0.263971
    """

    _of_classes = False

    def __init__(
        self,
        hidden: Sequence[int] | Callable[[int, int], nn.Sequential] = (64,),
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
        self._begin()
        self._network.grow_outputs([_VALUE])
        self._values = Features()
        self._values.appear({_VALUE: 0.0})

    def _unit_test_skips(self) -> set[str]:
        # As of River's own models that learn by gradients: one step for a batch is not a step for each sample.
        return {"check_learn_many_matches_learn_one"}

    def learn_one(self, x: Sample, y: float) -> None:
        """Learn that `x` has the value `y`.

        Raises
        ------
        DataError
            If a feature or the value is not a finite number; nothing has been learnt then.
        """
        value = self._checked(np.array([y]))
        self._learn_one(self._appear(x), self._values.standardized(value))
        self._values.learn(value)

    def predict_one(self, x: Sample, **kwargs: Any) -> float:
        """Return the value expected of `x`; 0 before anything has been learnt."""
        return float(self._restored(self._answered(self.features.vector(x)))[0])

    def learn_many(self, X: Any, y: Any) -> None:
        """Learn from a frame of samples and a series of their values in one step."""
        columns, values = table(X)
        targets = self._checked(np.array(column(y)))[:, None]
        if len(targets) != len(values):
            raise DataError(f"there are {len(values)} samples, but {len(targets)} values")
        if not len(targets):
            return
        values = self._appear_many(columns, values)
        self._values.learn_many(targets)
        self._learn_many(values, self._values.standardized(targets).T)

    def predict_many(self, X: Any) -> Any:
        """Return the values expected of a frame of samples, as a series of the frame's kind."""
        columns, values = table(X)
        answers = self._answered_many(self.features.matrix(columns, values))[0]
        return series_like(X, self._restored(answers))

    def _keys(self) -> Sequence[Label]:
        return [_VALUE]

    def _parts(self) -> dict[str, Part]:
        return super()._parts() | {"values": self._values}

    @property
    def _samples(self) -> float:
        return float(self._values.counts[0])

    def _restored(self, standardized: Vector) -> Vector:
        return standardized * np.sqrt(self._values.variances) + self._values.means

    def _checked(self, values: Vector) -> Vector:
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            raise DataError(f"a value to learn must be a number, got {values.tolist()}") from None
        if not np.isfinite(values).all():
            raise DataError(f"a value to learn must be a finite number, got {values.tolist()}")
        return self._values.matrix([_VALUE], values[:, None])[:, 0]
