"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, installed with scikit-learn."""

from __future__ import annotations

import numpy as np

from fedtp.data.dataset import DataSet

# Pixels are counts from 0 to 16; these are the mean and the spread of all pixels, as fractions of 16.
MEAN, SPREAD = 0.3053, 0.3760


def load_digits() -> DataSet:
    """Load the 8x8 digits, scaled to zero mean and unit spread over all pixels.

    Returns
    -------
    DataSet
        1,797 images with 64 features in 10 classes of 174 to 183 images.

    References
    ----------
    Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
    (its test part).

    Examples
    --------
    >>> digits = load_digits()
    >>> digits.x.shape, digits.shape, digits.classes[:3]
    ((1797, 64), (8, 8), ('0', '1', '2'))
    """
    from sklearn import datasets  # takes a second to import

    bunch = datasets.load_digits()
    return DataSet(
        name="digits",
        x=((bunch.data / 16 - MEAN) / SPREAD).astype(np.float32),
        y=bunch.target.astype(np.int64),
        classes=tuple(str(digit) for digit in range(10)),
        shape=(8, 8),
        feature_names=tuple(f"pixel-{row}-{column}" for row in range(8) for column in range(8)),
    )
