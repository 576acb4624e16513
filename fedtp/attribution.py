"""Which blocks a drift has to do with, by what each of them answers before it and after it.

`fedtp.streaming.drift` says why answers are read anew before they are compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: A hidden block has moved if its loss rose at least by this share of the rise at the last block.
MOVED = 0.4


def moved(rise: float, last: float) -> bool:
    """Whether the loss of a block rose, measured by the rise at the last one."""
    return rise > 0.0 and rise >= MOVED * last


def reread_classes(answers: NDArray[np.float64 | np.int64], labels: NDArray[np.float64 | np.int64]) -> float:
    """Return how many answers are wrong if each is read as the label that goes with it most often in the others.

    Examples
    --------
    Two classes have changed their names, and the answers still keep them apart:

    >>> reread_classes(np.array([0, 1, 0, 1]), np.array([1, 0, 1, 0]))
    0.0
    """
    classes, places = np.unique(np.concatenate([answers, labels]), return_inverse=True)
    read, meant = np.split(places, 2)
    together = np.zeros((len(classes), len(classes)))
    np.add.at(together, (read, meant), 1.0)
    others = together[read]
    others[np.arange(len(read)), meant] -= 1.0  # who names an answer by its own label is never wrong
    return float((others.argmax(1) != meant).mean())


def from_block(
    before: NDArray[np.int64],
    labels_before: NDArray[np.int64],
    after: NDArray[np.int64],
    labels_after: NDArray[np.int64],
) -> int:
    """Return the position of the first block that a drift has moved.

    Parameters
    ----------
    before, after
        What each block answered for samples from before the drift and from after it, ``[samples, blocks]``.
    labels_before, labels_after
        Their labels, ``[samples]``.

    Examples
    --------
    The last block is wrong about everything since two classes changed their names; the first one's answers only have to
    be read anew:

    >>> labels = np.arange(20) % 2
    >>> answers = np.stack([labels, labels], 1)
    >>> from_block(answers, labels, answers, 1 - labels)
    1
    """
    last = before.shape[1] - 1
    rises = []
    for block in range(last + 1):
        wrong = float((after[:, block] != labels_after).mean())
        if block < last:
            wrong = min(wrong, reread_classes(after[:, block], labels_after))
        rises.append(wrong - float((before[:, block] != labels_before).mean()))
    return next(block for block, rise in enumerate(rises) if block == last or moved(rise, rises[last]))
