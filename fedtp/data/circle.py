"""The circles of drift detection, which River has not."""

from __future__ import annotations

import random
from collections.abc import Iterator

#: Centre and radius of each variant's circle.
CIRCLES = ((0.2, 0.5, 0.15), (0.4, 0.5, 0.2), (0.6, 0.5, 0.25), (0.8, 0.5, 0.3))


class Circle:
    """Points of the unit square, of class 1 outside a circle and 0 within.

    Parameters
    ----------
    variant
        Which circle, from 0 to 3: about (0.2, 0.5), (0.4, 0.5), (0.6, 0.5) or (0.8, 0.5), with a radius of 0.15, 0.2,
        0.25 or 0.3.
    seed
        Of the points.

    References
    ----------
    Gama, Medas, Castillo, Rodrigues, "Learning with Drift Detection", SBIA 2004. The two concepts of FedDrift's
    CIRCLE-2 (Jothimurugesan et al., arXiv 2206.00799) are variants 0 and 2.

    Examples
    --------
    >>> import itertools
    >>> for x, y in itertools.islice(Circle(variant=2, seed=1), 2):
    ...     print({i: round(value, 2) for i, value in x.items()}, y)
    {0: 0.13, 1: 0.85} 1
    {0: 0.76, 1: 0.26} 1
    """

    n_classes = 2

    def __init__(self, variant: int = 0, seed: int | None = None) -> None:
        if variant not in range(len(CIRCLES)):
            raise ValueError(f"unknown variant {variant}, possible choices are 0 to {len(CIRCLES) - 1}")
        self.variant = variant
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[dict[int, float], int]]:
        rng = random.Random(self.seed)
        right, up, radius = CIRCLES[self.variant]
        while True:
            x = {0: rng.random(), 1: rng.random()}
            yield x, int((x[0] - right) ** 2 + (x[1] - up) ** 2 > radius**2)
