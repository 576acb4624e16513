"""Numbers as a person reads them: a few digits and the unit that fits."""

from __future__ import annotations

from dataclasses import dataclass

MISSING = "–"

_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_JOULES = ((1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ"), (1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"))
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
# An axis keeps seconds up to three minutes, minutes up to three hours and hours up to three days.
_TIME = ((3 * 86_400.0, 86_400.0, "d"), (3 * 3_600.0, 3_600.0, "h"), (180.0, 60.0, "min"))


@dataclass(frozen=True)
class Unit:
    """A unit of measure.

    Parameters
    ----------
    name
        Its sign, such as ``"MB"``.
    size
        How many of the base unit (bytes, joules, seconds) it holds.
    """

    name: str
    size: float


def byte_unit(largest: float) -> Unit:
    """Choose the unit in which numbers of bytes up to `largest` read well.

    Examples
    --------
    >>> byte_unit(2_500_000)
    Unit(name='MB', size=1000000.0)
    """
    return _fitting(largest, _BYTES)


def joule_unit(largest: float) -> Unit:
    """Choose the unit in which energies up to `largest` joules read well."""
    return _fitting(largest, _JOULES)


def time_unit(longest: float) -> Unit:
    """Choose the unit for an axis of time that is `longest` seconds long."""
    for least, size, name in _TIME:
        if longest >= least:
            return Unit(name, size)
    return Unit("s", 1.0)


def count(number: float | None) -> str:
    """Write a whole number, its thousands set apart.

    Examples
    --------
    >>> count(12345)
    '12,345'
    >>> count(None)
    '–'
    """
    return MISSING if number is None else f"{number:,.0f}"


def percent(share: float | None) -> str:
    """Write a share of one as a percentage.

    Examples
    --------
    >>> percent(0.8416)
    '84.2%'
    """
    return MISSING if share is None else f"{100 * share:.1f}%"


def data_size(number: float | None) -> str:
    """Write a number of bytes, in decimal units.

    Examples
    --------
    >>> data_size(12_345_678)
    '12.3 MB'
    >>> data_size(640)
    '640 B'
    """
    return MISSING if number is None else _in(byte_unit(number), number)


def energy(joules: float | None) -> str:
    """Write an amount of energy.

    Examples
    --------
    >>> energy(4321.0)
    '4.32 kJ'
    """
    return MISSING if joules is None else _in(joule_unit(joules), joules)


def duration(seconds: float | None) -> str:
    """Write a length of time, in at most two units.

    Examples
    --------
    >>> duration(0.0123), duration(42.25), duration(3_725), duration(2 * 86_400)
    ('12.3 ms', '42.2 s', '1 h 2 min', '2 d')
    """
    if seconds is None:
        return MISSING
    if seconds < 60:
        return _in(_fitting(seconds, _SECONDS), seconds)
    for size, name, small, small_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        # Rounded first, so that 59 min 59.9 s is 1 h and not 59 min 60 s.
        whole, rest = divmod(round(seconds / small), size // small)
        if whole:
            return f"{whole} {name} {rest} {small_name}" if rest else f"{whole} {name}"
    return f"{seconds:.0f} s"


def _fitting(largest: float, units: tuple[tuple[float, str], ...]) -> Unit:
    for size, name in units:
        if largest >= size:
            return Unit(name, size)
    # Zero, or less than the smallest unit: the base unit says it plainly.
    return next(Unit(name, size) for size, name in units if size == 1.0)


def _in(unit: Unit, number: float) -> str:
    return f"{_digits(number / unit.size)} {unit.name}"


def _digits(number: float) -> str:
    """Write three significant digits, or all of those before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
