"""Every data set by its name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from fedtp.data.cifar10 import load_cifar10
from fedtp.data.dataset import DataSet
from fedtp.data.digits import load_digits
from fedtp.data.elec2 import load_elec2
from fedtp.data.generators import SAMPLES, STREAMS, load_generator
from fedtp.data.mnist import load_mnist
from fedtp.data.shuttle import load_shuttle
from fedtp.data.spoken_digits import load_spoken_digits
from fedtp.errors import DataError

INSTALLED = {"digits": load_digits, "shuttle": load_shuttle}
FROM_FILES = {
    "cifar10": load_cifar10,
    "elec2": load_elec2,
    "mnist": load_mnist,
    "spoken-digits": load_spoken_digits,
}


def names() -> list[str]:
    """List the names of all data sets, in alphabetical order.

    >>> names()[:4]
    ['agrawal', 'anomaly-sine', 'cifar10', 'circle']
    """
    return sorted([*INSTALLED, *FROM_FILES, *STREAMS])


def load(
    name: str,
    *,
    path: str | Path | None = None,
    samples: int | None = None,
    parameters: Mapping[str, object] | None = None,
    seed: int = 0,
) -> DataSet:
    """Load a data set by name.

    Parameters
    ----------
    name
        One of `names`.
    path
        The folder that holds the files of a data set that is read from files, instead of the one that the environment
        variable ``FEDTP_DATA`` or ``RIVER_DATA`` names.
    samples
        How many samples to draw from a generator; None means 20,000.
    parameters
        Parameters of a generator, those of River's class.
    seed
        Seed of the samples of a generator; the other data sets are what they are.

    Returns
    -------
    DataSet
        The data set, scaled for learning.

    Raises
    ------
    DataError
        If there is no such data set, its files are missing or damaged, or an option does not belong to it.

    Examples
    --------
    >>> load("stagger", samples=100).feature_names
    ('size', 'color', 'shape')
    >>> load("digitz")
    Traceback (most recent call last):
    fedtp.errors.DataError: there is no data set 'digitz': did you mean 'digits'? (known: agrawal, ...
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1, cutoff=0.0)
        raise DataError(f"there is no data set {name!r}: did you mean {close[0]!r}? (known: {', '.join(names())})")
    if path is not None and name not in FROM_FILES:
        raise DataError(f"data set {name} is not read from files of yours: leave out the path {str(path)!r}")
    if samples is not None and name not in STREAMS:
        raise DataError(f"data set {name} is not drawn from a generator: leave out samples = {samples}")
    if parameters and name not in STREAMS:
        raise DataError(f"data set {name} is not drawn from a generator: leave out its parameters")

    if name in INSTALLED:
        return INSTALLED[name]()
    if name in FROM_FILES:
        return FROM_FILES[name](path)
    return load_generator(name, SAMPLES if samples is None else samples, seed, parameters)
