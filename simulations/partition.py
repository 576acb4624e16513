"""Which samples each device of a fleet holds."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedtp.errors import ScenarioError

Kind = Literal["iid", "dirichlet", "interleaved"]


def partition(
    y: NDArray[np.int64],
    devices: int,
    rng: np.random.Generator,
    *,
    kind: Kind = "iid",
    alpha: float = 0.5,
    shares: NDArray[np.float64] | None = None,
    minimum: int = 2,
) -> list[NDArray[np.int64]]:
    """Deal out samples, each to exactly one device.

    Parameters
    ----------
    y
        Class indices, ``[samples]``.
    devices
        How many devices there are.
    rng
        Source of all randomness.
    kind
        ``"iid"``: at random. ``"dirichlet"``: every device has a class mix of its own, drawn from a Dirichlet
        distribution about the mix of the whole. ``"interleaved"``: the devices take turns, and keep the order
        of the samples; without `shares`, row i goes to device i modulo `devices`.
    alpha
        Concentration of ``"dirichlet"``: the parameter of each class where classes are equally frequent. The
        smaller it is, the fewer classes a device sees.
    shares
        How much each device holds in relation to the others, ``[devices]``, positive. None means equally
        much.
    minimum
        The least number of samples of a device.

    Returns
    -------
    list
        Row numbers for each device, in the order in which it is to see them.

    Raises
    ------
    ScenarioError
        If there are too few samples, or a parameter is out of range.

    Notes
    -----
    Devices draw from their mixes without replacement, one device after another in random order, as in Hsu, Qi
    and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", 2019: where a class has run out, the mix of the remaining classes counts. So a device
    has exactly as many samples as its share says, whatever its mix, unlike with a division of each class
    among the devices.

    Examples
    --------
    >>> import numpy as np
    >>> y, rng = np.zeros(7, dtype=int), np.random.default_rng(0)
    >>> [rows.tolist() for rows in partition(y, 3, rng, kind="interleaved")]
    [[0, 3, 6], [1, 4], [2, 5]]
    """
    if devices < 1:
        raise ScenarioError(f"data cannot be dealt out to {devices} devices: at least one is needed")
    if minimum < 0:
        raise ScenarioError(f"minimum is {minimum}, but must not be negative")
    if len(y) < devices * minimum:
        raise ScenarioError(
            f"{devices:,} devices need at least {minimum} samples each, {devices * minimum:,} in all, but "
            f"there are only {len(y):,} to deal out: take fewer devices or more data"
        )
    sizes = _sizes(len(y), devices, shares, minimum)
    match kind:
        case "iid":
            owner = rng.permutation(np.repeat(np.arange(devices), sizes))
        case "dirichlet":
            owner = _skewed_owners(y, sizes, alpha, rng)
        case "interleaved":
            return _by_owner(_turns(sizes) if shares is not None else np.arange(len(y)) % devices, sizes)
        case _:
            raise ScenarioError(f"partition kind {kind!r} is not one of iid, dirichlet, interleaved")
    shuffled = rng.permutation(len(y))
    return [shuffled[rows] for rows in _by_owner(owner[shuffled], sizes)]


def quantity_shares(devices: int, sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw how much more than the average each device holds, or receives per second.

    Parameters
    ----------
    devices
        How many devices there are.
    sigma
        Standard deviation of the logarithm; 0 means that all are equal.
    rng
        Source of randomness.

    Returns
    -------
    NDArray
        Log-normal factors, ``[devices]``, whose mean is exactly 1 up to rounding.

    Raises
    ------
    ScenarioError
        If sigma is not between 0 and 10.

    Examples
    --------
    >>> import numpy as np
    >>> quantity_shares(3, 0.0, np.random.default_rng(0))
    array([1., 1., 1.])
    """
    if not 0 <= sigma <= 10:
        raise ScenarioError(f"quantity_sigma is {sigma}, but must be a number from 0 to 10")
    factors = np.exp(sigma * rng.standard_normal(devices))
    return np.asarray(factors / factors.mean())


def _sizes(samples: int, devices: int, shares: NDArray[np.float64] | None, minimum: int) -> NDArray[np.int64]:
    """Give every device the minimum and divide the rest by shares (largest remainders)."""
    weights = np.ones(devices) if shares is None else np.asarray(shares, dtype=np.float64)
    if weights.shape != (devices,) or not np.isfinite(weights.sum()) or (weights <= 0).any():
        raise ScenarioError(f"shares must be {devices} positive numbers, one per device")
    rest = samples - devices * minimum
    exact = rest * (weights / weights.sum())
    whole = np.floor(exact).astype(np.int64)
    largest = np.argsort(whole - exact, kind="stable")[: rest - whole.sum()]
    whole[largest] += 1
    sizes: NDArray[np.int64] = whole + minimum
    return sizes


def _skewed_owners(
    y: NDArray[np.int64], sizes: NDArray[np.int64], alpha: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Find the device of each sample when every device draws its samples by a class mix of its own."""
    if not 1e-6 <= alpha <= 1e6:  # beyond these the draw is as good as at the limits, but may underflow
        raise ScenarioError(f"alpha is {alpha}, but must be a number from 0.000001 to 1,000,000")
    devices = len(sizes)
    present, left = np.unique(y, return_counts=True)
    samples_by_class = [rng.permutation(np.flatnonzero(y == label)) for label in present]
    mixes = rng.dirichlet(alpha * len(present) * left / len(y), size=devices)

    taken = np.zeros((devices, len(present)), dtype=np.int64)
    for device in rng.permutation(devices):
        missing = sizes[device]
        while missing:
            mix = np.where(left > 0, mixes[device], 0.0)
            if mix.sum() < 1e-12:  # it wanted only classes that have run out
                mix = left.astype(np.float64)
            draw = np.minimum(rng.multinomial(missing, mix / mix.sum()), left)
            taken[device] += draw
            left -= draw
            missing -= draw.sum()

    owner = np.empty(len(y), dtype=np.int64)
    for samples, counts in zip(samples_by_class, taken.T, strict=True):
        owner[samples] = np.repeat(np.arange(devices), counts)
    return owner


def _turns(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the device of each sample when each device's samples are spread evenly over the whole."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return owner[np.argsort((nth + 0.5) / sizes[owner], kind="stable")]


def _by_owner(owner: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Row numbers of each owner, in rising order."""
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
