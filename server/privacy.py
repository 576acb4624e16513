"""Differential privacy: the model tells next to nothing of what any one device has learnt.

The server orders updates of a bounded norm, counts each alike, and adds Gaussian noise to their sum (DP-FedAvg, McMahan
et al. 2018, arXiv 1710.06963, Algorithm 1). What is protected is what a device has learnt, for all its orders together:
the model is about as likely if all its updates were zero (Kairouz et al. 2021, arXiv 2103.00039, Definition 1.1). That
a device took part, and the counts in its reports, are not: these the server knows, and shows.

Orders of rounds follow from a seed that all devices know, so there is no amplification by sampling to be counted on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fedtp.blocks import Packed
from fedtp.errors import FedtpError, WireError
from fedtp.streaming.state import State
from server.aggregation import Aggregation
from server.notes import Notes, by_node, of_nodes
from server.settings import PrivacySpec

#: What random numbers are for; purposes of a scenario's seed have numbers below this.
_PURPOSE = 1_000
#: How far a norm may lie above its bound: weights are float32, and a change is the difference of two.
_ROUNDING = 1e-3


def privacy_loss(noise: float, times: int, delta: float) -> float:
    """Return the ε of a device whose update was in so many noisy sums.

    Parameters
    ----------
    noise
        Standard deviation of the noise in each, divided by the largest norm of an update.
    times
        How many sums.
    delta
        The δ.

    Raises
    ------
    FedtpError
        If dp-accounting is not installed.

    Notes
    -----
    `times` Gaussian mechanisms are together as one with the noise divided by the root of `times` (Dong, Roth and Su
    2022, arXiv 1905.02383, Corollary 3.3), whose ε is exact (Balle and Wang 2018, arXiv 1805.06530, Theorem 8).
    """
    try:
        from dp_accounting import get_epsilon_gaussian
    except ImportError:
        raise FedtpError('privacy.noise needs dp-accounting: pip install "fedtp[privacy]"') from None
    return float(get_epsilon_gaussian(noise / times**0.5, delta)) if times else 0.0


class _Noted(Notes):
    """What is known of each node, each once: in how many sums its updates were."""

    times: list[int]


class Privacy:
    """Checks that updates have the norm that was asked for, and tells what the model may have told of a device.

    Parameters
    ----------
    spec
        The bound, the noise, and δ.

    Examples
    --------
    >>> privacy = Privacy(PrivacySpec(clip=1.0))
    >>> privacy.check(7, {"0": np.full(4, 3, np.float32)}, {"0": np.zeros(4, np.float32)})
    Traceback (most recent call last):
    ...
    fedtp.errors.WireError: its update has a norm of 6, above the bound of 1 that it was told
    """

    def __init__(self, spec: PrivacySpec) -> None:
        self.spec = spec
        self._times: dict[int, int] = {}
        if spec.noise:
            privacy_loss(spec.noise, 1, spec.delta)  # before anything has been learnt

    @property
    def epsilon(self) -> float | None:
        """The largest ε of a device; None without noise, which is no privacy at all."""
        if not self.spec.noise:
            return None
        return privacy_loss(self.spec.noise, max(self._times.values(), default=0), self.spec.delta)

    def check(self, node: int, weights: Mapping[str, Packed], sent: Mapping[str, Packed]) -> None:
        """Refuse an update with too large a norm, over all blocks together; note one that has not.

        Raises
        ------
        WireError
            If it has.
        """
        if not self.spec.clip:
            return
        squares = [float(np.square(packed - sent[name], dtype=np.float64).sum()) for name, packed in weights.items()]
        norm = sum(squares) ** 0.5
        if not norm <= self.spec.clip * (1 + _ROUNDING):
            text = f"its update has a norm of {norm:.4g}, above the bound of {self.spec.clip:g} that it was told"
            raise WireError("clip", text)
        self._times[node] = self._times.get(node, 0) + 1

    def state(self) -> State:
        """Return in how many sums each node was."""
        rows, values = by_node(self._times)
        return State({"times": rows}, _Noted(times=values).saved())

    def load_state(self, state: State) -> None:
        """Take over what was noted.

        Raises
        ------
        DataError
            If it is of something else.
        """
        self._times = of_nodes(state, "times", _Noted.of(state).times)


class NoisyMean:
    """The mean of updates, each counted alike, with Gaussian noise.

    Parameters
    ----------
    spec
        The bound of an update's norm, and how much noise there is.
    seed
        Of the noise. Whoever knows it can take the noise away.
    block
        Which block's it is, counted from 0.
    """

    def __init__(self, spec: PrivacySpec, seed: int, block: int) -> None:
        self._deviation = spec.clip * (1 + _ROUNDING) * spec.noise
        self._seed = seed
        self._block = block
        self._times = 0

    def __call__(self, current: Packed, updates: Sequence[tuple[Packed, int]]) -> Packed:
        """Return the new weights."""
        self._times += 1
        key = (_PURPOSE, self._block, self._times)
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))
        total = np.zeros(len(current), np.float64)
        for weights, _ in updates:
            total += weights
        total -= len(updates) * current.astype(np.float64)
        total += rng.normal(0.0, self._deviation, len(current))
        return (current + total / len(updates)).astype(np.float32)

    def state(self) -> State:
        """Return how often there was noise: it must not come twice."""
        return State({}, {"times": self._times})

    def load_state(self, state: State) -> None:
        """Go on where another was.

        Raises
        ------
        DataError
            If it is of something else.
        """
        self._times = state.whole("times")


def private(spec: PrivacySpec, make: Callable[[], Aggregation], seed: int | None) -> Callable[[], Aggregation]:
    """Return what makes an aggregation for one block after the other: with noise, if there shall be any.

    Parameters
    ----------
    spec
        How much noise.
    make
        Makes the aggregation that there is without.
    seed
        Of the noise; None: one that nobody knows.
    """
    if not spec.noise:
        return make
    secret, made = secrets.randbits(128) if seed is None else seed, 0

    def noisy() -> Aggregation:
        nonlocal made
        made += 1
        return NoisyMean(spec, secret, made - 1)

    return noisy
