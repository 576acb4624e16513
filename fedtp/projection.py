"""Target projections: fixed random matrices that every device draws from the same seed, bit for bit.

A projection is never sent, so a server and its devices must arrive at the same bits on their own, whatever
their processor, operating system and library versions. Hence two rules in this file:

- random bits come from a counter-based generator alone (Philox, raw 64-bit words), keyed by a hash;
- they become values by operations that IEEE 754 defines exactly (``+ - * /``, square root, comparison,
  splitting off the exponent), each its own NumPy call, so that no compiler may fuse two of them. Nothing is
  left to the mathematical library (`log`, `exp`) or to sums whose order is NumPy's choice (`sum`, `dot`).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fedtp.errors import ModelError

Kind = Literal["normal", "uniform", "sign", "orthogonal"]
Label: TypeAlias = str | int | float | bool

# Inverse of the normal distribution function: Wichura (1988), Algorithm AS 241, PPND16, a numerator and a
# denominator for the centre, the tails and the far tails. Highest power first.
_CENTRE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
     4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
     1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
     2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2,
     4.2313330701600911252e1, 1.0),
)  # fmt: skip
_TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
     1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
     4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
     1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
     2.05319162663775882187e0, 1.0),
)  # fmt: skip
_FAR_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
     2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
     5.46378491116411436990e0, 6.65790464350110377720e0),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
     7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
     5.99832206555887937690e-1, 1.0),
)  # fmt: skip
_LOG_2 = 0.6931471805599453
_SQRT_3 = 1.7320508075688772
# atanh(s) / s in powers of s²: enough terms for double precision where |s| <= 1/3.
_ATANH = tuple(1.0 / (2 * k + 1) for k in reversed(range(17)))


def class_key(label: Label) -> int:
    """Hash of a class label: the same in every process and on every machine, unlike Python's `hash`.

    Labels of different types are different classes, as in a River stream that has ``"1"`` and ``1``. A NumPy
    scalar counts as the Python value it holds.

    Parameters
    ----------
    label
        The label: a bool, an int, a float or a string.

    Returns
    -------
    int
        In ``[0, 2**64)``: the first 8 bytes, little-endian, of BLAKE2b over the type's name and the value.

    Raises
    ------
    ModelError
        If the label is of another type, or not a number (NaN is not even equal to itself).

    Examples
    --------
    >>> class_key("walking")
    575263569928306260
    >>> len({class_key(label) for label in ("1", 1, 1.0, True)})
    4
    """
    match label:
        case bool() | np.bool_():
            fields = b"bool", bytes([bool(label)])
        case int() | np.integer():
            fields = b"int", str(int(label)).encode()
        case float() | np.floating() if label == label:
            fields = b"float", struct.pack("<d", float(label) + 0.0)  # + 0.0: -0.0 is the class 0.0
        case str():
            fields = b"str", _text(label)
        case _:
            raise ModelError(f"a class label is {label!r}: use strings, numbers other than NaN, or booleans")
    return int.from_bytes(_hash(b"class", *fields, size=8), "little")


@dataclass(frozen=True)
class Projection:
    """The fixed random projections of a network's blocks, one row per class.

    The row of a class is drawn from ``(seed, block name, class key)`` alone. So a class that is added later
    changes no other row, and a block that is added or widened changes no other block. Entries have mean 0 and
    variance 1, whatever the kind.

    Parameters
    ----------
    seed
        Any whole number from 0 up; who shares it shares the projections.
    kind
        What an entry is drawn from: ``"normal"`` (standard normal), ``"uniform"`` (between -√3 and √3),
        ``"sign"`` (-1 or 1), or ``"orthogonal"``: normal rows made orthogonal to each other, each of length
        √features. This one needs fixed classes, and in each block at least as many features as classes.
    classes
        How many classes there are, where they are fixed: a class's key is then its index. Or their labels,
        where new ones may still appear: a class's key is then the hash of its label, see `class_key`.

    Attributes
    ----------
    keys : tuple of int
        The key of each class, in the order of the rows.

    Raises
    ------
    ModelError
        If the seed, the kind or the classes are none of the above, or a label appears twice.

    Notes
    -----
    Target projections are from Frenkel, Lefebvre and Bol, "Learning without feedback" (2021), and used with
    local losses by Lomnitz et al., "Learning with Local Gradients at the Edge" (arXiv 2208.08503).

    Examples
    --------
    >>> projection = Projection(7, kind="sign", classes=3)
    >>> projection.rows("hidden", features=4)
    array([[-1., -1.,  1., -1.],
           [-1., -1., -1.,  1.],
           [-1.,  1., -1.,  1.]], dtype=float32)
    >>> projection.digest({"hidden": 4})
    '7af4b535abab8291cbcae30e5f0e1a67'

    Where classes appear as the stream goes on, the rows that were there stay as they were:

    >>> before = Projection(7, classes=["walking", "sitting"]).rows("hidden", 4)
    >>> after = Projection(7, classes=["walking", "sitting", "running"]).rows("hidden", 4)
    >>> (before == after[:2]).all()
    np.True_
    """

    seed: int
    kind: Kind = field(default="normal", kw_only=True)
    classes: int | Sequence[Label] = field(kw_only=True, compare=False)
    keys: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", _whole("seed", self.seed, least=0))
        if self.kind not in get_args(Kind):
            raise ModelError(f"the projection kind is {self.kind!r}: choose one of {', '.join(get_args(Kind))}")
        object.__setattr__(self, "keys", self._class_keys())
        if isinstance(self.classes, Sequence):
            object.__setattr__(self, "classes", tuple(self.classes))

    def _class_keys(self) -> tuple[int, ...]:
        if isinstance(self.classes, int | np.integer):
            return tuple(range(_whole("number of classes", self.classes, least=1)))
        if isinstance(self.classes, str) or not isinstance(self.classes, Sequence):
            raise ModelError(f"the classes are {self.classes!r}: give their number, or the list of their labels")
        if self.kind == "orthogonal":
            raise ModelError(
                "an orthogonal projection needs a fixed number of classes, not labels that may become more: "
                "give the number, or choose the kind normal, uniform or sign"
            )
        keys = tuple(map(class_key, self.classes))
        if len(set(keys)) < len(keys):
            raise ModelError(f"a class label appears twice in {list(self.classes)!r}: give each label once")
        return keys

    def rows(self, block: str, features: int) -> NDArray[np.float32]:
        """Draw the projection of one block, or recall it.

        Parameters
        ----------
        block
            The name of the block.
        features
            How many outputs the block has.

        Returns
        -------
        NDArray[np.float32]
            ``[classes, features]``, read-only: the array is kept, and shared by equal projections.
            Unless the kind is orthogonal, the first columns do not depend on how many follow.

        Raises
        ------
        ModelError
            If there are no features, or fewer than classes where the rows must be orthogonal.
        """
        features = _whole(f"number of features of block {block!r}", features, least=1)
        if self.kind == "orthogonal" and len(self.keys) > features:
            raise ModelError(
                f"block {block!r} has {features} features, too few for {len(self.keys)} orthogonal rows: "
                "widen the block, or choose the projection kind normal, uniform or sign"
            )
        return _rows(self.seed, self.kind, self.keys, block, features)

    def digest(self, blocks: Mapping[str, int]) -> str:
        """Hash by which two sides tell that they hold the same projections, to the last bit.

        Parameters
        ----------
        blocks
            The number of features of each block, by the block's name, in any order.

        Returns
        -------
        str
            32 hexadecimal digits: 16 bytes of BLAKE2b over the kind, the class keys, and the name and the
            little-endian float32 rows of each block.

        Raises
        ------
        ModelError
            As `rows` does.
        """
        fields = [_text(self.kind), np.array(self.keys, dtype="<u8").tobytes()]
        for block in sorted(blocks):
            fields += _text(block), self.rows(block, blocks[block]).astype("<f4").tobytes()
        return _hash(b"digest", *fields, size=16).hex()


@lru_cache(maxsize=64)  # a few networks' blocks: the many devices of one process draw each projection once
def _rows(seed: int, kind: Kind, keys: tuple[int, ...], block: str, features: int) -> NDArray[np.float32]:
    raw = np.empty((len(keys), features), dtype=np.uint64)
    for row, key in zip(raw, keys, strict=True):
        row[:] = _random_words(seed, block, key, features)
    match kind:
        case "normal":
            values = _normal_quantile(_open_unit(raw))
        case "uniform":
            values = (2.0 * _open_unit(raw) - 1.0) * _SQRT_3
        case "sign":
            values = np.where(raw >> np.uint64(63), 1.0, -1.0)
        case "orthogonal":
            values = _orthogonalised(_normal_quantile(_open_unit(raw))) * math.sqrt(features)
    rows = values.astype(np.float32)
    rows.flags.writeable = False
    return rows


def _random_words(seed: int, block: str, key: int, count: int) -> NDArray[np.uint64]:
    seed_bytes = seed.to_bytes((seed.bit_length() + 7) // 8, "little")
    hashed = _hash(b"row", seed_bytes, _text(block), key.to_bytes(8, "little"), size=16)
    return np.random.Philox(key=int.from_bytes(hashed, "little")).random_raw(count)


def _open_unit(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers strictly between 0 and 1: the middles of 2**52 equal cells, so that 1 - u is exact too."""
    return ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _normal_quantile(u: NDArray[np.float64]) -> NDArray[np.float64]:
    q = u - 0.5
    values = np.empty_like(u)
    central = np.abs(q) <= 0.425
    centre = q[central]
    values[central] = centre * _ratio(_CENTRE, 0.180625 - centre * centre)

    beyond = u[~central]
    r = np.sqrt(-_log(np.minimum(beyond, 1.0 - beyond)))
    sizes = _ratio(_TAIL, r - 1.6)
    far = r > 5.0
    sizes[far] = _ratio(_FAR_TAIL, r[far] - 5.0)
    values[~central] = np.where(beyond < 0.5, -sizes, sizes)
    return values


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # log(m 2^e) = e log 2 + 2 atanh((m - 1) / (m + 1))
    mantissa, exponent = np.frexp(x)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent * _LOG_2 + 2.0 * s * _polynomial(_ATANH, s * s)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: NDArray[np.float64]) -> NDArray[np.float64]:
    numerator, denominator = coefficients
    return _polynomial(numerator, x) / _polynomial(denominator, x)


def _polynomial(coefficients: tuple[float, ...], x: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total *= x
        total += coefficient
    return total


def _orthogonalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply modified Gram-Schmidt, clearing each row of those before it twice: once loses precision."""
    units: list[NDArray[np.float64]] = []
    for row in rows:
        for unit in units * 2:
            row = row - _inner(row, unit) * unit
        units.append(row / math.sqrt(_inner(row, row)))
    return np.stack(units)


def _inner(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return math.fsum((a * b).tolist())  # rounded once, so the order does not matter


def _hash(purpose: bytes, *fields: bytes, size: int) -> bytes:
    hashed = hashlib.blake2b(digest_size=size, person=b"fedtp." + purpose)
    for content in fields:
        hashed.update(len(content).to_bytes(8, "little"))  # no two lists of fields read the same
        hashed.update(content)
    return hashed.digest()


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _whole(what: str, value: object, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ModelError(f"the {what} is {value!r}: give a whole number, at least {least}")
    return int(value)
