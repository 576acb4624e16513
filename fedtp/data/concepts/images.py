"""Concepts of images: virtual drift, as of a camera that was turned, got dirty, or sees another light.

Strengths are in pixels or in shares of the range from the darkest to the brightest pixel of a colour in the data set.
For comparison, severities 1 to 5 of CIFAR-10-C (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", 2019) are: Gaussian noise of sigma 0.04, 0.06, 0.08, 0.09, 0.10 (`Noise`);
Gaussian blur of 0.4, 0.6, 0.7, 0.8, 1 pixels; brightness raised by 0.05, 0.1, 0.15, 0.2, 0.3; contrast multiplied by
0.75, 0.5, 0.4, 0.3, 0.15.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, FiniteFloat

from fedtp.data.concepts.concept import Concept, Need
from fedtp.data.dataset import DataSet, Features


class Rotation(Concept):
    """Images turned about their centre (virtual drift).

    Parameters
    ----------
    degrees
        The angle, counter-clockwise.
    """

    kind: Literal["rotation"] = "rotation"
    degrees: FiniteFloat

    needs: ClassVar[Need] = "images"
    moving: ClassVar = {"degrees": 0.0}

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Turn every image."""
        return replace(dataset, x=rotate(dataset.x, dataset.shape, self.degrees))


class Blur(Concept):
    """Images out of focus (virtual drift).

    Parameters
    ----------
    sigma_pixels
        Spread of the Gaussian with which every pixel is smeared; the frame's edge goes on outside.
    """

    kind: Literal["blur"] = "blur"
    sigma_pixels: Annotated[FiniteFloat, Field(ge=0, le=1000)]

    needs: ClassVar[Need] = "images"
    moving: ClassVar = {"sigma_pixels": 0.0}

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Smear every image, colour by colour."""
        from scipy.ndimage import gaussian_filter1d  # takes a quarter of a second to import

        blurred = dataset.x.reshape(len(dataset), *dataset.shape)
        for axis in (-2, -1) if self.sigma_pixels else ():
            blurred = gaussian_filter1d(blurred, self.sigma_pixels, axis=axis, mode="nearest")
        return replace(dataset, x=blurred.reshape(dataset.x.shape))


class Brightness(Concept):
    """Images in another light (virtual drift).

    Parameters
    ----------
    change
        What is added to every pixel, as a share of the range from dark to bright; what leaves the range is clipped.
    """

    kind: Literal["brightness"] = "brightness"
    change: Annotated[FiniteFloat, Field(ge=-1, le=1)]

    needs: ClassVar[Need] = "images"
    moving: ClassVar = {"change": 0.0}

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Light or darken every image."""
        dark, bright = levels(original)
        return replace(dataset, x=np.clip(dataset.x + np.float32(self.change) * (bright - dark), dark, bright))


class Contrast(Concept):
    """Images with more or less contrast (virtual drift).

    Parameters
    ----------
    factor
        What the distance of every pixel from the mean of its image and colour is multiplied with; what leaves the
        range from dark to bright is clipped.
    """

    kind: Literal["contrast"] = "contrast"
    factor: Annotated[FiniteFloat, Field(ge=0, le=1000)]

    needs: ClassVar[Need] = "images"
    moving: ClassVar = {"factor": 1.0}

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Draw every image's pixels together or apart."""
        pixels = dataset.x.reshape(len(dataset), -1, dataset.shape[-2] * dataset.shape[-1])
        mean = pixels.mean(-1, keepdims=True)
        x = (mean + np.float32(self.factor) * (pixels - mean)).reshape(dataset.x.shape)
        return replace(dataset, x=np.clip(x, *levels(original)))


def levels(dataset: DataSet) -> tuple[Features, Features]:
    """Return the darkest and the brightest pixel of each pixel's colour, ``[features]`` each."""
    size = dataset.shape[-2] * dataset.shape[-1]
    pixels = dataset.x.reshape(len(dataset), -1, size)
    return pixels.min((0, 2)).repeat(size), pixels.max((0, 2)).repeat(size)


def rotate(x: Features, shape: tuple[int, ...], degrees: float) -> Features:
    """Turn flattened images counter-clockwise; quarter turns are exact, other angles bilinear.

    What comes into view from outside the frame is background, the smallest value of the data set.
    """
    *colours, height, width = shape
    if colours:  # colour by colour
        return rotate(x.reshape(-1, height * width), (height, width), degrees).reshape(x.shape)
    quarters, rest = divmod(degrees, 90)
    if rest == 0 and (height == width or quarters % 2 == 0):
        images = x.reshape(len(x), height, width)
        return np.ascontiguousarray(np.rot90(images, int(quarters) % 4, axes=(1, 2))).reshape(x.shape)

    # Where each pixel of the turned image comes from, as row and column of the original.
    angle = np.deg2rad(degrees)
    down, right = np.mgrid[:height, :width]
    down, right = down.ravel() - (height - 1) / 2, right.ravel() - (width - 1) / 2
    rows = np.cos(angle) * down + np.sin(angle) * right + (height - 1) / 2
    columns = np.cos(angle) * right - np.sin(angle) * down + (width - 1) / 2

    # It is a mean of the four pixels around that place; those outside the frame are one more, last column.
    background = x.min(initial=np.inf)
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    taps = []
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - abs(rows - row)) * (1 - abs(columns - column))
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        taps.append((weight.astype(np.float32), np.where(inside, row * width + column, height * width)))

    turned = np.zeros_like(x)
    for start in range(0, len(x), 256):  # a few images at a time stay in the processor's cache
        some = slice(start, start + 256)
        padded = np.pad(x[some], ((0, 0), (0, 1)), constant_values=background)
        for weight, source in taps:
            turned[some] += weight * padded.take(source, axis=1)
    return turned
