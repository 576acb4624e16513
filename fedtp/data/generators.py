"""River's synthetic streams of classification samples, drawn as data sets."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import random
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtp.data.circle import Circle
from fedtp.data.dataset import DataSet, Features, Labels
from fedtp.data.standardize import CALIBRATION_ROWS, standardize
from fedtp.errors import DataError

SAMPLES = 20_000


@dataclass(frozen=True)
class Stream:
    """How one of River's generators is used.

    Parameters
    ----------
    river
        The class in `river.datasets.synth`; or one of our own that is like them.
    defaults
        What differs from River's own defaults. Seeds of the concept are fixed here, so that a named data
        set is the same problem whatever seed its samples are drawn with.
    sample_seed
        The parameter that seeds the samples; None where River has only one seed for the concept and
        the samples.
    length
        The parameter that says how many samples there are, of a stream that ends.
    ordered
        Whether the stream changes of itself, so that the order of its samples means something.
    """

    river: str | type
    defaults: Mapping[str, object] = field(default_factory=dict)
    sample_seed: str | None = "seed"
    length: str | None = None
    ordered: bool = False

    @property
    def title(self) -> str:
        """What it is, for people."""
        return (
            f"River's generator {self.river}" if isinstance(self.river, str) else f"the generator {self.river.__name__}"
        )


RBF = {"seed_model": 1, "n_classes": 4, "n_features": 10, "n_centroids": 20}

STREAMS: dict[str, Stream] = {
    "agrawal": Stream("Agrawal"),
    "anomaly-sine": Stream("AnomalySine", length="n_samples", ordered=True),
    "circle": Stream(Circle),
    "hyperplane": Stream("Hyperplane", {"seed": 1}, sample_seed=None),
    "led": Stream("LED", {"noise_percentage": 0.1}),
    "led-drift": Stream(
        "LEDDrift", {"seed": 1, "noise_percentage": 0.1, "irrelevant_features": True}, sample_seed=None
    ),
    "mixed": Stream("Mixed"),
    "random-rbf": Stream("RandomRBF", RBF, sample_seed="seed_sample"),
    "random-rbf-drift": Stream(
        "RandomRBFDrift",
        {**RBF, "change_speed": 0.001, "n_drift_centroids": 10},
        sample_seed="seed_sample",
        ordered=True,
    ),
    "random-tree": Stream("RandomTree", {"seed_tree": 1}, sample_seed="seed_sample"),
    "sea": Stream("SEA"),
    "sine": Stream("Sine"),
    "stagger": Stream("STAGGER"),
    "waveform": Stream("Waveform"),
}


def load_generator(
    name: str, samples: int = SAMPLES, seed: int = 0, parameters: Mapping[str, object] | None = None
) -> DataSet:
    """Draw a data set from one of River's generators.

    Features are standardised by the mean and spread of the first 1,000 samples and clipped to [-10, 10];
    truth values and the codes of categories are taken as numbers.

    Parameters
    ----------
    name
        One of `STREAMS`: the name of River's class in kebab case, or ``circle`` (`fedtp.data.circle`).
    samples
        How many samples to draw, at least 2.
    seed
        Seed of the samples. What defines the concept (centroids, tree, weights) does not depend on it.
    parameters
        Of River's class, for this concept and, unless they say otherwise, for those that `generate` draws.

    Returns
    -------
    DataSet
        Its `generate` draws the same number of samples under other parameters, which are those of River's
        class, and scales them as here. The samples are different ones for different parameters, the same for
        the same. A concept has to have the features of the data set, and no class more.

    Raises
    ------
    DataError
        If `samples` or `seed` is out of range; and from `generate`, if a parameter is unknown, has a value
        that River refuses, or changes the features or classes.

    Examples
    --------
    >>> sea = load_generator("sea", samples=500, seed=1)
    >>> x, y = sea.generate({"variant": 3})
    >>> x.shape, sea.classes
    ((500, 3), ('0', '1'))
    """
    if samples < 2:
        raise DataError(f"samples is {samples}, but at least 2 have to be drawn from {name}")
    if seed < 0:
        raise DataError(f"seed is {seed}, but must not be negative")
    base = dict(parameters or {})
    values, y, names, classes = _draw(name, base, samples, seed)
    return DataSet(
        name=name,
        x=standardize(values, values),
        y=y,
        classes=tuple(str(label) for label in range(classes)),
        shape=(len(names),),
        feature_names=names,
        ordered=STREAMS[name].ordered,
        generate=partial(_redraw, name, base, samples, seed, values[:CALIBRATION_ROWS].copy(), names, classes),
    )


def _redraw(
    name: str,
    base: Mapping[str, object],
    samples: int,
    seed: int,
    reference: NDArray[np.float64],
    names: tuple[str, ...],
    classes: int,
    parameters: Mapping[str, object],
) -> tuple[Features, Labels]:
    parameters = {**base, **parameters}
    values, y, new_names, new_classes = _draw(name, parameters, samples, seed)
    if new_names != names or new_classes > classes:
        raise DataError(
            f"{call_text(name, parameters)} has {len(new_names)} features and {new_classes} classes, but the "
            f"data set {name} has {len(names)} and {classes}: a concept must keep them"
        )
    return standardize(values, reference), y


def _draw(
    name: str, parameters: Mapping[str, object], samples: int, seed: int
) -> tuple[NDArray[np.float64], Labels, tuple[str, ...], int]:
    """Draw values ``[samples, features]``, class indices, names of features, number of classes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # River corrects some values with a mere warning
            generator, drawn = open_generator(name, parameters, samples, seed)
            inputs, labels = zip(*itertools.islice(drawn, samples), strict=True)
        names = tuple(str(feature) for feature in inputs[0])
        values = np.array([list(x.values()) for x in inputs], dtype=np.float64)
        y = np.array(labels, dtype=np.int64)
    except (ArithmeticError, LookupError, TypeError, ValueError, UserWarning) as error:
        raise DataError(f"River cannot draw {samples} samples from {call_text(name, parameters)}: {error}") from None
    # River leaves SEA's number of classes open, and counts one for anomalies: both are yes-or-no tasks.
    return values, y, names, max(generator.n_classes or 0, 2)


def open_generator(
    name: str, parameters: Mapping[str, object], samples: int, seed: int
) -> tuple[Any, Iterator[tuple[dict[Any, Any], Any]]]:
    """Return one of River's generators as `load_generator` uses it, and the samples that it draws, without scaling.

    Parameters
    ----------
    name, parameters, seed
        As `load_generator` takes them.
    samples
        For the generators that are told how many there will be; no others end by themselves.

    Raises
    ------
    DataError
        If a parameter is unknown. What River makes of a bad value is its own.
    """
    stream = STREAMS[name]
    river_class = _class(stream.river)
    resolved = _resolve(name, river_class, parameters)
    sample_seed = _sample_seed(name, resolved, seed)
    if stream.sample_seed and resolved[stream.sample_seed] is None:
        resolved[stream.sample_seed] = sample_seed
    if stream.length:
        resolved[stream.length] = samples
    generator = river_class(**resolved)
    return generator, iter(generator) if stream.sample_seed else _reseeded(generator, sample_seed)


def _class(river: str | type) -> Any:
    if not isinstance(river, str):
        return river
    from river.datasets import synth  # takes two seconds to import

    return getattr(synth, river)


def _reseeded(generator: Any, seed: int) -> Iterator[tuple[dict[Any, Any], Any]]:
    """Draw the concept from the generator's own seed, but the samples from another.

    Some of River's generators draw both from one source, so that the same concept would always come with
    the same samples. Drawing the first sample fixes the concept; after it the source is exchanged.
    """
    samples: Iterator[tuple[dict[Any, Any], Any]] = iter(generator)
    next(samples)
    generator._rng = random.Random(seed)
    return samples


def _resolve(name: str, river_class: Any, parameters: Mapping[str, object]) -> dict[str, object]:
    stream = STREAMS[name]
    known = {key: value.default for key, value in inspect.signature(river_class).parameters.items()}
    if stream.length:
        del known[stream.length]
    for key in parameters:
        if key not in known:
            raise DataError(f"generator {name} has no parameter {key!r}; it has: {', '.join(sorted(known))}")
    return {**known, **stream.defaults, **parameters}


def _sample_seed(name: str, resolved: Mapping[str, object], seed: int) -> int:
    """Derive a seed for the samples that differs for every concept."""
    concept = json.dumps([name, resolved], sort_keys=True, default=repr)
    digest = int.from_bytes(hashlib.sha256(concept.encode()).digest()[:16], "big")
    return int(np.random.SeedSequence([seed, digest]).generate_state(1, np.uint64)[0])


def call_text(name: str, parameters: Mapping[str, object]) -> str:
    """Return how a person would write a generator with parameters."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in parameters.items())})"
