"""Concepts: what can become of a data set's distribution, so that a fleet has something to adapt to."""

from fedtp.data.concepts.apply import AnyConcept, Chain, Identity, apply, between
from fedtp.data.concepts.concept import Concept
from fedtp.data.concepts.images import Blur, Brightness, Contrast, Rotation
from fedtp.data.concepts.labels import Generator, LabelSwap
from fedtp.data.concepts.mixes import Groups, Prior
from fedtp.data.concepts.tables import Gain, Missing, Noise, Offset, Permutation, Stuck

__all__ = [
    "AnyConcept",
    "Blur",
    "Brightness",
    "Chain",
    "Concept",
    "Contrast",
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
]
