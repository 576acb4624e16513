"""Concepts of tables and sequences: virtual drift, as of sensors that age, break, or fall silent.

Features are scaled, so that 0 is the ordinary value of each, and 1 about its ordinary spread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, FiniteFloat

from fedtp.data.concepts.concept import Concept, Need, columns_of, generator, keep_padding
from fedtp.data.concepts.images import levels
from fedtp.data.dataset import DataSet


class Gain(Concept):
    """Sensors whose amplification changed (virtual drift).

    Parameters
    ----------
    factor
        What the features are multiplied with. They are scaled to lie about zero, so this widens them about
        their ordinary value.
    features
        Which features, by index or by name; none means all.
    """

    kind: Literal["gain"] = "gain"
    factor: FiniteFloat
    features: tuple[int | str, ...] = ()

    needs: ClassVar[Need] = "a table of features"
    moving: ClassVar = {"factor": 1.0}

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Amplify."""
        factors = np.ones(dataset.x.shape[1], dtype=np.float32)
        factors[columns_of(self.features, dataset)] = self.factor
        return replace(dataset, x=dataset.x * factors)


class Offset(Concept):
    """Sensors whose zero moved (virtual drift).

    Parameters
    ----------
    amount
        What is added, in ordinary spreads of the features.
    features
        Which features, by index or by name; none means all.
    """

    kind: Literal["offset"] = "offset"
    amount: FiniteFloat
    features: tuple[int | str, ...] = ()

    needs: ClassVar[Need] = "a table of features"
    moving: ClassVar = {"amount": 0.0}

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Shift."""
        shift = np.zeros(dataset.x.shape[1], dtype=np.float32)
        shift[columns_of(self.features, dataset)] = self.amount
        return replace(dataset, x=keep_padding(dataset.x + shift, dataset))


class Missing(Concept):
    """Sensors that send nothing, so that their ordinary value is taken instead (virtual drift).

    Parameters
    ----------
    features
        Which features, by index or by name; none means all.
    share
        Which share of their readings is missing, each by chance.
    """

    kind: Literal["missing"] = "missing"
    features: tuple[int | str, ...] = ()
    share: Annotated[FiniteFloat, Field(ge=0, le=1)] = 1.0

    needs: ClassVar[Need] = "a table of features"
    moving: ClassVar = {"share": 0.0}

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Leave readings out."""
        columns = columns_of(self.features, dataset)
        x = dataset.x.copy()
        x[:, columns] *= generator(seed).random((len(x), len(columns)), dtype=np.float32) >= self.share
        return replace(dataset, x=x)


class Stuck(Concept):
    """Sensors that always show the same (virtual drift).

    Parameters
    ----------
    value
        What they show, in ordinary spreads of the features from their ordinary value.
    features
        Which features, by index or by name; none means all.
    """

    kind: Literal["stuck"] = "stuck"
    value: FiniteFloat
    features: tuple[int | str, ...] = ()

    needs: ClassVar[Need] = "a table of features"
    moving: ClassVar = {"value": None}

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Overwrite what they would have shown."""
        x = dataset.x.copy()
        x[:, columns_of(self.features, dataset)] = self.value
        return replace(dataset, x=keep_padding(x, dataset))


class Noise(Concept):
    """Noisy sensors, a camera's pixels among them (virtual drift).

    Parameters
    ----------
    sigma
        Standard deviation of the Gaussian noise that is added: of images, as a share of the range from the darkest to
        the brightest pixel, and what leaves the range is clipped; else in ordinary spreads of the features.
    features
        Which features, by index or by name; none means all.
    """

    kind: Literal["noise"] = "noise"
    sigma: Annotated[FiniteFloat, Field(ge=0)]
    features: tuple[int | str, ...] = ()

    moving: ClassVar = {"sigma": 0.0}

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Add noise, the same whenever the seed is the same."""
        columns = columns_of(self.features, dataset)
        noise = generator(seed).standard_normal((len(dataset), len(columns)), dtype=np.float32)
        noise *= np.float32(self.sigma)
        x = dataset.x.copy()
        if not dataset.is_image:
            x[:, columns] += noise
            return replace(dataset, x=keep_padding(x, dataset))
        dark, bright = levels(original)
        x[:, columns] += noise * (bright - dark)[columns]
        return replace(dataset, x=np.clip(x, dark, bright))


class Permutation(Concept):
    """Pixels or features that change places, the same for all samples (virtual drift), as in permuted MNIST.

    Parameters
    ----------
    number
        Which permutation: another number, another one.
    """

    kind: Literal["permutation"] = "permutation"
    number: Annotated[int, Field(ge=0, le=2**31)] = 0

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Exchange columns; of a sequence, in all its steps alike."""
        width = dataset.x.shape[1] if dataset.lengths is None else dataset.shape[-1]
        order = generator((*seed, self.number)).permutation(width)
        x = dataset.x.reshape(-1, width)[:, order].reshape(dataset.x.shape)
        return replace(dataset, x=x)
