"""The streams that a study knows by name."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fedtp.data.elec2 import CLASSES, FEATURES, FILE
from fedtp.data.files import find_folder
from fedtp.data.generators import SAMPLES, STREAMS, call_text, open_generator
from fedtp.errors import DataError
from fedtp.streaming.studies.source import Sample, Source
from fedtp.streaming.studies.spec import Call, parse

# The named benchmark streams draw their first samples from these seeds; the study's seed 1 keeps them.
_APART = 1_000

_RBF = {"n_classes": 4, "n_features": 10, "n_centroids": 20}


def names() -> dict[str, str]:
    """List the streams by name, with what each of them is.

    Examples
    --------
    >>> names()["rbf-abrupt"]
    'random centroids, all of them replaced after 10,000 samples'
    """
    generators = {name: stream.title for name, stream in STREAMS.items()}
    known = {**generators, **{name: title for name, (title, _) in (_BENCHMARKS | _FILES).items()}}
    return dict(sorted(known.items()))


def open_source(text: str) -> Source:
    """Open a stream by its name.

    Parameters
    ----------
    text
        One of `names`. A generator takes parameters of River's class: ``"sea(variant=3)"``.

    Raises
    ------
    DataError
        If there is no such stream, its files are missing, or its parameters are refused.

    Examples
    --------
    >>> source = open_source("sea(variant=3)")
    >>> next(source.samples(seed=1))[0].keys()
    dict_keys([0, 1, 2])
    """
    node = parse(text)
    if not isinstance(node, Call) or node.args:
        raise DataError(f'"{text}" does not name a stream: write a name, or a generator as name(parameter=value)')
    name, parameters = node.path, dict(node.keywords)
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1, cutoff=0.0)
        raise DataError(f"there is no stream {name!r}: did you mean {close[0]!r}? (known: {', '.join(names())})")
    if name in STREAMS:
        return _generator(name, parameters)
    if parameters:
        raise DataError(f"stream {name} takes no parameters: leave out {', '.join(parameters)}")
    return (_BENCHMARKS | _FILES)[name][1](name)


def _generator(name: str, parameters: Mapping[str, object]) -> Source:
    stream = STREAMS[name]

    def draw(seed: int) -> Iterator[Sample]:
        # Anomalies are spread over the whole length: always the same one, or the samples would change with it.
        return open_generator(name, parameters, SAMPLES, seed)[1]

    try:
        generator, samples = open_generator(name, parameters, SAMPLES, seed=0)
        next(samples)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"River cannot draw samples from {call_text(name, parameters)}: {error}") from None
    return Source(
        name,
        draw,
        SAMPLES,
        title=names()[name] + (f" with {call_text('', parameters)[1:-1]}" if parameters else ""),
        drifts=None if stream.ordered or parameters else (),
        # River leaves SEA's number of classes open, and counts one for anomalies: both are yes-or-no tasks.
        binary=max(generator.n_classes or 0, 2) == 2,
        endless=not stream.length,
    )


def _elec2(name: str) -> Source:
    folder = find_folder(
        name,
        [FILE],
        path=None,
        variable="RIVER_DATA",
        subfolder="Elec2",
        hint="get it with `river.datasets.Elec2().download()`, which puts it below ~/river_data",
    )

    def draw(_: int) -> Iterator[Sample]:
        with (folder / FILE).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                features = {key: int(row[key]) if key == "day" else float(row[key]) for key in FEATURES}
                yield features, row["class"] == CLASSES[1]

    return _titled(name, draw, 45_312, binary=True)


def _rbf_incremental(name: str) -> Source:
    def draw(seed: int) -> Iterator[Sample]:
        from river.datasets import synth

        shift = _APART * (seed - 1)
        yield from synth.RandomRBFDrift(
            seed_model=42, seed_sample=42 + shift, change_speed=0.001, n_drift_centroids=10, **_RBF
        )

    return _titled(name, draw, SAMPLES, endless=True)


def _rbf_abrupt(name: str) -> Source:
    def draw(seed: int) -> Iterator[Sample]:
        from river.datasets import synth

        shift = _APART * (seed - 1)
        yield from synth.RandomRBF(seed_model=1, seed_sample=11 + shift, **_RBF).take(10_000)
        yield from synth.RandomRBF(seed_model=2, seed_sample=22 + shift, **_RBF)

    return _titled(name, draw, SAMPLES, endless=True, drifts=(10_000,))


def _sea_abrupt(name: str) -> Source:
    def draw(seed: int) -> Iterator[Sample]:
        from river.datasets import synth

        shift = _APART * (seed - 1)
        yield from synth.ConceptDriftStream(
            stream=synth.SEA(seed=42 + shift, variant=0),
            drift_stream=synth.SEA(seed=43 + shift, variant=3),
            seed=1 + shift,
            position=10_000,
            width=100,
        )

    return _titled(name, draw, SAMPLES, endless=True, drifts=(10_000,), binary=True)


def _bundled(name: str) -> Source:
    from river import datasets

    river_class: Any = {
        "bananas": datasets.Bananas,
        "image-segments": datasets.ImageSegments,
        "phishing": datasets.Phishing,
        "shuttle": datasets.Shuttle,
    }[name]
    return _titled(name, lambda _: iter(river_class()), river_class().n_samples, binary=name != "image-segments")


def _loaded(name: str) -> Source:
    from fedtp.data import load

    dataset = load(name)

    def draw(_: int) -> Iterator[Sample]:
        for x, y in zip(dataset.x, dataset.y, strict=True):
            yield dict(zip(dataset.feature_names, x.tolist(), strict=True)), int(y)

    return _titled(name, draw, len(dataset))


def _titled(name: str, draw: Callable[[int], Iterator[Sample]], length: int, **more: Any) -> Source:
    return Source(name, draw, length, title=names()[name], **more)


_BENCHMARKS: dict[str, tuple[str, Callable[[str], Source]]] = {
    "elec2": ("electricity prices of New South Wales, River's 8 features as they are", _elec2),
    "rbf-abrupt": ("random centroids, all of them replaced after 10,000 samples", _rbf_abrupt),
    "rbf-incremental": ("random centroids, half of them moving all the time", _rbf_incremental),
    "sea-abrupt": ("SEA's concept 0, and concept 3 after 10,000 samples", _sea_abrupt),
}

_FILES: dict[str, tuple[str, Callable[[str], Source]]] = {
    "bananas": ("two classes in the shape of bananas", _bundled),
    "digits": ("handwritten digits of 8 x 8 pixels", _loaded),
    "image-segments": ("seven kinds of ground on outdoor images", _bundled),
    "mnist": ("handwritten digits of 28 x 28 pixels", _loaded),
    "phishing": ("web pages that are or are not what they claim", _bundled),
    "shuttle": ("nine sensor readings of a space shuttle, 7 % of them anomalous", _bundled),
}
