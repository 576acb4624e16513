"""A stream for a study: samples as a River user has them, and what is known about them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from fedtp.errors import DataError

Sample: TypeAlias = tuple[dict[str, Any], Any]


@dataclass(frozen=True, eq=False)
class Source:
    """Where a study's samples come from.

    Parameters
    ----------
    name
        What it is called; the folder of results is named after it.
    draw
        Gives the samples for a seed, ``(features, label)`` each. The same seed gives the same samples; real data come
        as they are for any.
    length
        How many samples there are, or are taken from a stream without an end.
    title
        What it is, in a few words.
    drifts
        Which samples, counted from 0, are the first of a new concept; none if the stream is known not to drift; None if
        that is not known, or if the stream never stands still.
    binary
        Whether the labels are false and true, or 0 and 1. A classifier of two classes only is then used as it is.
    endless
        Whether more samples than `length` can be drawn.

    Examples
    --------
    >>> coin = Source("coin", draw=lambda seed: iter([({"side": 1.0}, True)] * 100), length=100, binary=True)
    >>> len(list(coin.limited(samples=10).samples(seed=1)))
    10
    """

    name: str
    draw: Callable[[int], Iterator[Sample]]
    length: int
    title: str = ""
    drifts: tuple[int, ...] | None = None
    binary: bool = False
    endless: bool = False

    def samples(self, seed: int) -> Iterator[Sample]:
        """Draw the samples for a seed, at most `length`."""
        return itertools.islice(self.draw(seed), self.length)

    def limited(self, samples: int | None = None, drift_at: Sequence[int] | None = None) -> Source:
        """Take only the first samples, and say where the true drifts are.

        Parameters
        ----------
        samples
            How many. None leaves it at what there is.
        drift_at
            Which samples, counted from 0, are the first of a new concept. None leaves it at what is known.

        Raises
        ------
        DataError
            If there would be no sample, or a drift is not within the stream.
        """
        length = self.length if samples is None else samples if self.endless else min(samples, self.length)
        if length < 1:
            raise DataError(f"the stream {self.name} has no samples: at least 1 is needed")
        if drift_at is None:
            known = self.drifts
        else:
            known = tuple(sorted(set(drift_at)))
            for drift in known:
                if not 0 < drift < length:
                    raise DataError(
                        f"a drift at sample {drift:,} is not within the stream {self.name}: its {length:,} samples are "
                        f"counted from 0, and a drift needs one before it"
                    )
        within = None if known is None else tuple(drift for drift in known if drift < length)
        return replace(self, length=length, drifts=within)
