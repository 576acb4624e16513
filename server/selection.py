"""Which of the nodes that could be asked are."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np


def choose(nodes: Collection[int], count: int, *key: int) -> list[int]:
    """Choose nodes at random, all of them alike.

    Parameters
    ----------
    nodes
        Ids of the nodes that could be asked.
    count
        How many are wanted; all if there are no more.
    key
        What the choice follows from: a seed, and the number of the choice.

    Returns
    -------
    list
        In ascending order.

    Examples
    --------
    >>> choose([5, 1, 9, 7], 2, 1, 1)
    [5, 9]
    """
    candidates = sorted(nodes)
    if count >= len(candidates):
        return candidates
    rng = np.random.default_rng(key)
    # By position: Flower's ids need all of 64 bits, and NumPy may make doubles of such numbers.
    return [candidates[position] for position in sorted(rng.choice(len(candidates), count, replace=False))]
