"""Scaling by the first samples of a stream, as a device that is calibrated before it starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedtp.data.dataset import Features

CALIBRATION_ROWS = 1000
LIMIT = 10.0


def standardize(values: NDArray[np.float64], reference: NDArray[np.float64]) -> Features:
    """Scale by the mean and spread of the first 1,000 rows of `reference`, and clip to [-10, 10].

    Parameters
    ----------
    values
        What to scale, ``[samples, features]``.
    reference
        Where the statistics come from, ``[samples, features]``. A column that does not vary there is only
        centred.

    Returns
    -------
    NDArray
        Scaled values in float32.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.array([[1.0, 7.0], [3.0, 7.0], [1000.0, 8.0]])
    >>> standardize(values, values[:2])
    array([[-1.,  0.],
           [ 1.,  0.],
           [10.,  1.]], dtype=float32)
    """
    head = reference[:CALIBRATION_ROWS]
    spread = head.std(axis=0)
    spread[spread < 1e-9] = 1.0
    scaled: Features = np.clip((values - head.mean(axis=0)) / spread, -LIMIT, LIMIT).astype(np.float32)
    return scaled
