"""Random numbers of a run: one stream for each purpose and device, all from the scenario's seed."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random numbers are for. The numbers are part of a run's meaning: never reuse or renumber them."""

    PARTITION = 1
    QUANTITY = 2
    DRIFT = 3
    FLEET = 4
    STREAM = 5
    TRANSPORT = 6
    ARRIVAL = 7
    CONCEPT = 10
    GAPS = 11
    CHOICE = 12


def generator(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """Return the generator for a purpose, and for a device or a pass within it.

    Examples
    --------
    >>> generator(1, Purpose.DRIFT).random() == generator(1, Purpose.DRIFT).random()
    True
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(purpose), *key)))
