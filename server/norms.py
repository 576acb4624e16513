"""How far updates of a block usually go, and which ones go much too far."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from fedtp.blocks import Packed
from fedtp.errors import WireError
from fedtp.streaming.state import State

#: Of so many of the latest updates of a block the median is taken; before there are so few nothing is too far.
WINDOW, FEW = 64, 8


class Norms:
    """The norms of the latest updates, block by block: of what devices changed in the weights that they were sent.

    A device that is far off by mistake, or in bad faith, must not be believed however plausible its numbers are one by
    one. The bound follows the fleet: it grows when all have to learn something new.

    Parameters
    ----------
    bound
        An update of a block is refused if its norm is more than this many times the running median; 0: none is.
    blocks
        Names of the blocks.

    Examples
    --------
    >>> norms = Norms(10.0, ["0"])
    >>> sent = {"0": np.zeros(4, np.float32)}
    >>> for _ in range(8):
    ...     norms.check({"0": np.full(4, 0.5, np.float32)}, sent)
    >>> norms.check({"0": np.full(4, 9.0, np.float32)}, sent)
    Traceback (most recent call last):
    ...
    fedtp.errors.WireError: its update of block '0' has a norm of 18, more than 10 times the median of 1
    """

    def __init__(self, bound: float, blocks: Mapping[str, object] | list[str]) -> None:
        self._bound = bound
        self._latest: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in blocks}

    def check(self, weights: Mapping[str, Packed], sent: Mapping[str, Packed]) -> None:
        """Refuse an update that goes too far in one of its blocks; note the norms of one that does not.

        Parameters
        ----------
        weights
            What a device answered, packed by block.
        sent
            What it had been sent.

        Raises
        ------
        WireError
            If it goes too far.
        """
        if not self._bound:
            return
        norms = {name: float(np.linalg.norm(packed - sent[name])) for name, packed in weights.items() if name in sent}
        for name, norm in norms.items():
            latest = self._latest[name]
            median = float(np.median(latest)) if len(latest) >= FEW else 0.0
            if median and norm > self._bound * median:
                raise WireError(
                    "norm",
                    f"its update of block {name!r} has a norm of {norm:.3g}, more than {self._bound:g} times the "
                    f"median of {median:.3g}",
                )
        for name, norm in norms.items():
            self._latest[name].append(norm)

    def state(self) -> State:
        """Return the norms."""
        return State({name: np.array(latest, np.float64) for name, latest in self._latest.items()})

    def load_state(self, state: State) -> None:
        """Take over what was noted.

        Raises
        ------
        DataError
            If it is of something else.
        """
        found = {name: state.typed(name, np.float64, None).tolist() for name in self._latest}
        self._latest = {name: deque(norms, maxlen=WINDOW) for name, norms in found.items()}
