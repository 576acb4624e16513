"""A measure with its confidence interval, as a person reads it."""

from __future__ import annotations

from collections.abc import Callable

from fedtp.interval import Interval
from fedtp.report.units import MISSING, count, data_size, duration, energy

# Of a name; more would leave no room on a telephone.
_LONGEST = 28


def brief(name: str, longest: int = _LONGEST) -> str:
    """Shorten a long name.

    Examples
    --------
    >>> brief("StandardScaler | HoeffdingAdaptiveTreeClassifier")
    'StandardScaler | HoeffdingA…'
    """
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def mean(figure: Interval) -> Interval:
    """Leave out the confidence interval, where it would take too much room."""
    return Interval(figure.mean, None, figure.runs)


def share(figure: Interval) -> str:
    """Write a share of one as a percentage.

    Examples
    --------
    >>> share(Interval(0.91234, 0.00321, 5))
    '91.23% ± 0.32'
    """
    return _text(figure, lambda value: f"{100 * value:.2f}%", lambda value: f"{100 * value:.2f}")


def score(figure: Interval) -> str:
    """Write a number about one, such as kappa."""
    return _text(figure, lambda value: f"{value:.3f}")


def number(figure: Interval) -> str:
    """Write a number of samples, errors or events; of small means one digit after the point.

    Examples
    --------
    >>> number(Interval(1234.4, None, 1)), number(Interval(0.5, 0.25, 5)), number(Interval(2.0, None, 1))
    ('1,234', '0.5 ± 0.2', '2')
    """

    def digits(value: float) -> str:
        return f"{value:.1f}" if abs(value) < 100 and value != round(value) else count(value)

    return _text(figure, digits)


def micros(figure: Interval) -> str:
    """Write a time in microseconds."""
    return _text(figure, lambda value: f"{value:,.1f}")


def size(figure: Interval) -> str:
    """Write a number of bytes."""
    return _text(figure, data_size)


def work(figure: Interval) -> str:
    """Write an amount of energy."""
    return _text(figure, energy)


def time(figure: Interval) -> str:
    """Write a length of time."""
    return _text(figure, duration)


def signed(difference: Interval, form: Callable[[Interval], str]) -> str:
    """Write a difference with its sign, in the form of what differs.

    Examples
    --------
    >>> signed(Interval(-0.0123, 0.004, 5), share), signed(Interval(0.0, 0.0, 5), share)
    ('−1.23% ± 0.40', '0.00%')
    """
    if difference.mean is None:
        return MISSING
    sign = "+" if difference.mean > 0 else "−" if difference.mean < 0 else ""
    return sign + form(Interval(abs(difference.mean), difference.margin, difference.runs))


def _text(figure: Interval, form: Callable[[float], str], form_margin: Callable[[float], str] | None = None) -> str:
    if figure.mean is None:
        return MISSING
    # Where all runs agree, "± 0" would only take room.
    margin = "" if not figure.margin else f" ± {(form_margin or form)(figure.margin)}"
    return form(figure.mean) + margin
