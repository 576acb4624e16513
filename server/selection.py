"""Which of the nodes that could be asked are."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np


def choose(nodes: Collection[int], count: int, *key: int, first: Collection[int] = ()) -> list[int]:
    """Choose nodes at random.

    Parameters
    ----------
    nodes
        Ids of the nodes that could be asked.
    count
        How many are wanted; all if there are no more.
    key
        What the choice follows from: a seed, and the number of the choice.
    first
        Ids of those that are chosen before the others.

    Returns
    -------
    list
        In ascending order.

    Examples
    --------
    >>> choose([5, 1, 9, 7], 2, 1, 1)
    [5, 9]
    >>> choose([5, 1, 9, 7], 2, 1, 1, first=[7])
    [1, 7]
    """
    candidates = sorted(nodes)
    if count >= len(candidates):
        return candidates
    rng = np.random.default_rng(key)
    # By position: Flower's ids need all of 64 bits, and NumPy may make doubles of such numbers.
    lots = rng.choice(len(candidates), len(candidates) if first else count, replace=False).tolist()
    if first:
        lots.sort(key=lambda position: candidates[position] not in first)
    return [candidates[position] for position in sorted(lots[:count])]
