"""How copies of one network are judged, and what each of them counts for in a prediction."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from fedtp.streaming.features import Vector

#: What a mistake counts for one sample later.
FORGETTING = 0.998


def seeds(seed: int, copies: int) -> list[int]:
    """Return a seed for each copy; the first one's is the seed itself."""
    mixed = (hashlib.blake2b(f"{seed} {copy}".encode(), digest_size=8).digest() for copy in range(1, copies))
    return [seed, *(int.from_bytes(word, "little") for word in mixed)]


def shares(mistakes: Sequence[float], *, classes: bool) -> Vector:
    """Return what each copy counts for, ``[copies]``, by its mistakes in classes, or its squared errors in values."""
    if classes:
        weights = [math.exp(-m) for m in mistakes]
    else:  # a likelihood, if errors are normal with a variance that is the copy's own
        least = max(min(mistakes), 1e-12)
        weights = [(max(m, 1e-12) / least) ** -8.0 for m in mistakes]
    total = sum(weights)
    return np.array([weight / total for weight in weights])


def wrongs(answers: Vector, target: Vector, *, classes: bool) -> tuple[list[float] | None, int]:
    """Return how wrong each copy was over many samples, as if they had come one by one.

    Parameters
    ----------
    answers
        ``[copies, outputs, samples]``.
    target
        ``[outputs, samples]``.

    Returns
    -------
    wrong
        Of each copy, discounted up to the last sample at which any was wrong; None if none ever was.
    counted
        How many samples that are. What has been counted fades with the next mistake.
    """
    wrong = answers.argmax(1) != target.argmax(0) if classes else np.square(target - answers).sum(1)
    mistaken = wrong.any(0).nonzero()[0]
    if not len(mistaken):
        return None, 0
    counted = int(mistaken[-1]) + 1
    return wrong[:, :counted].dot(FORGETTING ** np.arange(counted)[::-1]).tolist(), counted
