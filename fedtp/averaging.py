"""The mean of many devices' weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtp.blocks import Packed


def weighted_mean(updates: Sequence[tuple[Packed, int]]) -> Packed:
    """Average packed blocks, each in proportion to its examples (FedAvg, McMahan et al. 2017, arXiv 1602.05629).

    Parameters
    ----------
    updates
        At least one block, ``[size]``, with its number of examples; one alone is returned as it is.

    Examples
    --------
    >>> ones = np.ones(2, np.float32)
    >>> weighted_mean([(ones, 30), (5 * ones, 10)])
    array([2., 2.], dtype=float32)
    """
    if len(updates) == 1:
        return updates[0][0]
    total = sum(examples for _, examples in updates)
    mean = np.zeros(updates[0][0].size, np.float32)
    scaled = np.empty_like(mean)
    for weights, examples in updates:
        mean += np.multiply(weights, np.float32(examples / total), out=scaled)
    return mean
