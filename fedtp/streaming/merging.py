"""Averages of models that learnt apart, also of other features and classes: federated averaging for streams.

With one seed all models begin alike, wherever they are and in whatever order features and classes appear, so the
average of their weights is a network that knows something of what each has learnt (McMahan et al. 2017). But a weight
of a feature says nothing in a model that never saw the feature, and a class's row is only pushed down by a model that
never saw the class. So such weights are averaged in proportion to the samples with that feature, or of that class.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedtp.errors import ModelError
from fedtp.streaming.features import LEAST_VARIANCE, Features, Vector
from fedtp.streaming.learner import StreamLearner
from fedtp.streaming.policies import Managed
from fedtp.streaming.state import Part, State

M = TypeVar("M", bound=StreamLearner)

#: The arguments in which models that are merged may differ: the result has the first one's.
FREE = {"lr", "weight_decay", "policy", "detector"}


def merge(models: Sequence[M], weights: Sequence[float] | None = None) -> M:
    """Return the average of models that learnt apart with the same seed, as a new model; they stay as they are.

    They need not have met the same features and classes: the result knows all of them, in the order of the first
    model, then those that are new in the second, and so on.

    Parameters
    ----------
    models
        At least one. Of their arguments only ``lr``, ``weight_decay``, ``policy`` and ``detector`` may differ; the
        result has the first one's, and its detector and policy start anew.
    weights
        How much each one counts, from 0 up. None to let every sample count the same.

    Returns
    -------
    StreamLearner
        A model of their class. ``copy.deepcopy`` gives each device one to go on with; what all have in common from
        then on is counted once when they are merged again.

    Raises
    ------
    ModelError
        If there are none, or they cannot be averaged: of different classes, seeds or shapes, or ensembles.

    Notes
    -----
    All weights, readouts, momentum and the copies' mistakes are averaged; those of a feature or a class in proportion
    to how many of a model's samples had it. Means and variances of features, and of the values of a regressor, are
    those of all samples together, whatever `weights` says (Chan, Golub and LeVeque 1982).

    Every model counts what it has learnt since it was copied from a merged one, if all were copied from the same; or
    else all that it has learnt. Merging the results of merging models that began anew is the same as merging all at
    once; a model that is merged with itself keeps its weights, but counts its samples twice.

    References
    ----------
    McMahan, Moore, Ramage, Hampson, Agüera y Arcas, *Communication-Efficient Learning of Deep Networks from
    Decentralized Data*, AISTATS 2017.

    Examples
    --------
    Each of two devices sees two of four classes; after each round both go on with what they know together:

    >>> import copy
    >>> from river import datasets
    >>> from fedtp.streaming import TPClassifier
    >>> stream = [(x, y) for x, y in datasets.ImageSegments() if y in ("sky", "grass", "path", "window")]
    >>> here, there = TPClassifier(seed=1), TPClassifier(seed=1)
    >>> for begin in (0, 200, 400):
    ...     for x, y in stream[begin : begin + 200]:
    ...         device = here if y in ("sky", "grass") else there
    ...         device.learn_one(x, y)
    ...     right = [sum(model.predict_one(x) == y for x, y in stream[600:]) for model in (here, there)]
    ...     both = merge([here, there])
    ...     here, there = copy.deepcopy(both), copy.deepcopy(both)
    >>> sum(both.predict_one(x) == y for x, y in stream[600:]) > max(right)
    True
    >>> sorted(both.classes), sum(both.class_counts)
    (['grass', 'path', 'sky', 'window'], 600)
    """
    if not models:
        raise ModelError("there are no models to merge")
    first = models[0]
    for other in models[1:]:
        _check_alike(first, other)
    networks = [_network(model).state() for model in models]
    tallies, origin = [_tally(model) for model in models], _common_origin(models)
    own = [{name: _since(origin, name, counts) for name, counts in tally.items()} for tally in tallies]
    samples = np.array([counts["samples"][0] for counts in own])
    shares = _shares(weights, samples)

    merged: M = first.clone()  # type: ignore[attr-defined]
    names, columns = _union([model.features.names for model in models])
    labels, rows = _union([model._keys() for model in models])
    _grow(merged, names, labels)
    for name, part in merged._parts().items():
        if isinstance(part, Features):
            places = columns if part is merged.features else [[0]] * len(models)
            _pool(part, name, tallies, places, origin)
    features, classes = _Places(columns, len(names)), _Places(rows, len(labels))
    if first.standardize:
        features.learn([counts["features/counts"] for counts in own], samples)
    if "classes" in tallies[0]:
        classes.learn([counts["classes"] for counts in own], samples)
        counted = [tallies[0]["classes"], *(counts["classes"] for counts in own[1:])]
        merged.class_counts = np.rint(classes.spread(counted).sum(0)).astype(int).tolist()  # type: ignore[attr-defined]
    network = _network(merged)
    network.load_state(_averaged(network.state(), networks, shares, features, classes))
    merged._origin = _tally(merged)
    merged._forget()
    return merged


class _Places:
    """Where the features, or the classes, of each model are among those of all, and how much it has learnt of each.

    Parameters
    ----------
    places
        Of the names of each model.
    size
        How many names there are.

    Attributes
    ----------
    known, learnt
        Whether a model has the name, and how many of a sample it has learnt of it: ``[models, names]``.
    """

    def __init__(self, places: Sequence[Sequence[int]], size: int) -> None:
        self.places = [np.array(some, np.intp) for some in places]
        self.size = size
        self.known = self.spread([np.ones(len(some)) for some in places])
        self.learnt = self.known

    def learn(self, counts: Sequence[Vector], samples: Vector) -> None:
        """Take over how many samples with each of its names each model has learnt, of how many."""
        self.learnt = self.spread(counts) / np.maximum(samples, 1.0)[:, None]

    def spread(self, values: Sequence[Vector]) -> Vector:
        """Return what each model says of its own names, ``[models, names]``; 0 for those that it does not have."""
        spread = np.zeros((len(self.places), self.size))
        for row, places, some in zip(spread, self.places, values, strict=True):
            row[places] = some
        return spread


def _check_alike(first: StreamLearner, other: StreamLearner) -> None:
    if type(first) is not type(other):
        raise ModelError(f"a {type(first).__name__} and a {type(other).__name__} cannot be merged")
    for name in inspect.signature(type(first)).parameters.keys() - FREE:
        one, two = (tuple(v) if isinstance(v, list) else v for v in (getattr(first, name), getattr(other, name)))
        if one != two:
            raise ModelError(f"models with {name}={one!r} and {name}={two!r} cannot be merged")


def _network(model: StreamLearner) -> Part:
    """Return what learns, without the policy that has it in hand."""
    found: Any = model._network
    if isinstance(found, Managed):
        found = found.network
    if not isinstance(found, Part):
        raise ModelError(f"a model whose network is {type(found).__name__} cannot be merged: it has no state()")
    return found


def _tally(model: StreamLearner) -> dict[str, Vector]:
    """Return all that a model counts: what it is weighed by, and what is counted once if models have it in common."""
    tally = {"samples": np.array([float(model._samples)])}
    for name, part in model._parts().items():
        if isinstance(part, Features):
            tally |= {f"{name}/{kind}": getattr(part, kind).copy() for kind in ("counts", "means", "variances")}
    counts = getattr(model, "class_counts", None)
    if counts is not None:
        tally["classes"] = np.array(counts, np.float64)
    return tally


def _common_origin(models: Sequence[StreamLearner]) -> dict[str, Vector] | None:
    """Return the tally of the merged model of which all are copies that went on, or None."""
    origin = models[0]._origin
    if origin is None:
        return None
    for model in models:
        known = model._origin
        if known is None or known.keys() != origin.keys():
            return None
        if not all(np.array_equal(known[name], array) for name, array in origin.items()):
            return None
        tally = _tally(model)
        counted = [name for name in origin if name == "samples" or name == "classes" or name.endswith("/counts")]
        if any((tally[name][: len(origin[name])] < origin[name]).any() for name in counted):
            return None
        sizes = len(origin["features/counts"]), len(origin.get("classes", ()))
        for names, others, size in zip(_named(model), _named(models[0]), sizes, strict=True):
            if list(names)[:size] != list(others)[:size]:
                return None
    return origin


def _named(model: StreamLearner) -> tuple[Sequence[Hashable], Sequence[Hashable]]:
    return model.features.names, model._keys()


def _since(origin: dict[str, Vector] | None, name: str, counts: Vector) -> Vector:
    """Return what was counted since a model was copied from the origin; of what is no count, nothing that is used."""
    if origin is None:
        return counts
    own = counts.copy()
    own[: len(origin[name])] -= origin[name]
    return own


def _shares(weights: Sequence[float] | None, samples: Vector) -> Vector:
    """Return how much each model counts, ``[models]``, together 1."""
    chosen = samples if weights is None else np.array(weights, np.float64)
    if chosen.shape != samples.shape:
        raise ModelError(f"there are {len(samples)} models, but {chosen.size} weights")
    if not np.isfinite(chosen).all() or (chosen < 0).any() or (weights is not None and not chosen.any()):
        raise ModelError(f"weights must be numbers from 0 up, not all 0, got {chosen.tolist()}")
    if not chosen.any():  # nobody has learnt anything
        chosen = np.ones(len(samples))
    shares: Vector = chosen / chosen.sum()
    return shares


def _union(lists: Sequence[Sequence[Hashable]]) -> tuple[list[Hashable], list[list[int]]]:
    """Return all names in lists, in the order of their appearance, and the places among them of those of each list."""
    places = {name: place for place, name in enumerate(dict.fromkeys(chain.from_iterable(lists)))}
    return [*places], [[places[name] for name in names] for names in lists]


def _grow(merged: StreamLearner, names: Sequence[Hashable], labels: Sequence[Any]) -> None:
    """Give a new model features and classes."""
    if names:
        merged.features._append(names, np.zeros(len(names)))
        merged._network.grow_inputs(names)
    if labels and not merged._keys():
        merged._add(labels)  # type: ignore[attr-defined]


def _pool(
    part: Features,
    name: str,
    tallies: Sequence[dict[str, Vector]],
    places: Sequence[Sequence[int]],
    origin: dict[str, Vector] | None,
) -> None:
    """Give features the counts, means and variances of all models' values together."""
    signed = [(1.0, tally, np.array(where, np.intp)) for tally, where in zip(tallies, places, strict=True)]
    if origin is not None:
        # Each of the models has it, but it may count only once.
        shared = np.array(places[0], np.intp)[: len(origin[f"{name}/counts"])]
        signed.append((1.0 - len(tallies), origin, shared))
    counts, sums, squares = np.zeros((3, len(part)))
    # Measured from a value among them, so that nothing is lost in rounding where the mean is far from 0.
    near = np.zeros(len(part))
    for _, tally, where in reversed(signed):
        near[where] = tally[f"{name}/means"]
    for sign, tally, where in signed:
        counts[where] += sign * tally[f"{name}/counts"]
        sums[where] += sign * tally[f"{name}/counts"] * (tally[f"{name}/means"] - near[where])
    means = near + sums / np.maximum(counts, 1.0)
    for sign, tally, where in signed:
        deviations = tally[f"{name}/means"] - means[where]
        squares[where] += sign * tally[f"{name}/counts"] * (tally[f"{name}/variances"] + deviations**2)
    part.counts, part.means = counts, means
    part.variances = np.maximum(squares / np.maximum(counts, 1.0), LEAST_VARIANCE)
    part._refresh()


def _averaged(fresh: State, states: Sequence[State], shares: Vector, features: _Places, classes: _Places) -> State:
    """Return the average of networks.

    Parameters
    ----------
    fresh
        A new network with all features and classes: what nobody has learnt stays as there.
    states
        Of the networks.
    shares
        How much each counts.
    features, classes
        What each has, and has learnt something of.
    """
    if any(state.arrays.keys() != fresh.arrays.keys() for state in states):
        names = sorted({name for state in states for name in state.arrays} ^ fresh.arrays.keys())
        raise ModelError(f"networks that differ in {names} cannot be merged")
    arrays = {}
    for name, base in fresh.arrays.items():
        axes = {fresh.features.get(name): features, fresh.classes.get(name): classes}
        values = np.zeros((len(states), *base.shape))
        known = learnt = shares.reshape(-1, *[1] * base.ndim)
        for axis, places in axes.items():
            if axis is not None:
                along = [len(states), *(size if axis == other else 1 for other, size in enumerate(base.shape))]
                known, learnt = known * places.known.reshape(along), learnt * places.learnt.reshape(along)
        for number, state in enumerate(states):
            where: list[Any] = [
                axes[axis].places[number] if axis in axes else np.arange(size) for axis, size in enumerate(base.shape)
            ]
            array = state.arrays[name]
            if array.shape != tuple(map(len, where)):
                raise ModelError(f"networks in which {name!r} has different shapes cannot be merged")
            values[(number, *np.ix_(*where))] = array
        arrays[name] = _mean(values, learnt, known, base)
    return State(arrays, fresh.record)


def _mean(values: Vector, learnt: Vector, known: Vector, base: NDArray[Any]) -> NDArray[Any]:
    """Return the mean over models by what each has learnt; where none has, by what each has; or else the base."""
    weights = np.where(learnt.sum(0) > 0.0, learnt, known)
    total = weights.sum(0)
    mean = np.where(total > 0.0, (weights * values).sum(0) / np.where(total > 0.0, total, 1.0), base)
    return (np.rint(mean) if np.issubdtype(base.dtype, np.integer) else mean).astype(base.dtype)
