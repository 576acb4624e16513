"""Data sets and their concepts, read from where users keep them.

`load` opens a data set by name, `names` lists them, and `apply` shows a whole data set under another
concept.

>>> from fedtp.data import Rotation, apply, load
>>> digits = load("digits")
>>> turned = apply(Rotation(degrees=90), digits)
>>> turned.x.shape == digits.x.shape
True
"""

from fedtp.data.catalog import load, names
from fedtp.data.concepts import (
    AnyConcept,
    Blur,
    Brightness,
    Chain,
    Contrast,
    Gain,
    Generator,
    Groups,
    Identity,
    LabelSwap,
    Missing,
    Noise,
    Offset,
    Permutation,
    Prior,
    Rotation,
    Stuck,
    apply,
    between,
)
from fedtp.data.dataset import DataSet

__all__ = [
    "AnyConcept",
    "Blur",
    "Brightness",
    "Chain",
    "Contrast",
    "DataSet",
    "Gain",
    "Generator",
    "Groups",
    "Identity",
    "LabelSwap",
    "Missing",
    "Noise",
    "Offset",
    "Permutation",
    "Prior",
    "Rotation",
    "Stuck",
    "apply",
    "between",
    "load",
    "names",
]
