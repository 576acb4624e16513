"""A measure with its confidence interval, as a person reads it."""

from __future__ import annotations

from collections.abc import Callable

from fedtp.report.stream.results import Figure, StreamResults
from fedtp.report.units import MISSING, count, data_size

# Of a model's name; more would leave no room on a telephone.
_LONGEST = 28


def brief(name: str) -> str:
    """Shorten a long name.

    Examples
    --------
    >>> brief("StandardScaler | HoeffdingAdaptiveTreeClassifier")
    'StandardScaler | HoeffdingA…'
    """
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def mean(figure: Figure) -> Figure:
    """Leave out the confidence interval, where it would take too much room."""
    return Figure(figure.mean, None)


def share(figure: Figure) -> str:
    """Write a share of one as a percentage.

    Examples
    --------
    >>> share(Figure(0.91234, 0.00321))
    '91.23% ± 0.32'
    """
    return _text(figure, lambda value: f"{100 * value:.2f}%", lambda value: f"{100 * value:.2f}")


def score(figure: Figure) -> str:
    """Write a number about one, such as kappa."""
    return _text(figure, lambda value: f"{value:.3f}")


def number(figure: Figure) -> str:
    """Write a number of samples, errors or events; of small means one digit after the point.

    Examples
    --------
    >>> number(Figure(1234.4, None)), number(Figure(0.5, 0.25)), number(Figure(2.0, None))
    ('1,234', '0.5 ± 0.2', '2')
    """

    def digits(value: float) -> str:
        return f"{value:.1f}" if abs(value) < 100 and value != round(value) else count(value)

    return _text(figure, digits)


def micros(figure: Figure) -> str:
    """Write a time in microseconds."""
    return _text(figure, lambda value: f"{value:,.1f}")


def size(figure: Figure) -> str:
    """Write a number of bytes."""
    return _text(figure, data_size)


def recovery(results: StreamResults, model: str) -> str:
    """Write the recovery time of a model, and of how many drifts it is if not of all."""
    recovered = results.figure(model, "drifts_recovered").mean
    drifts = len(results.true_drifts)
    text = number(results.figure(model, "recovery_samples"))
    if recovered is None or recovered == drifts:
        return text
    return f"{text} ({number(Figure(recovered, None))} of {drifts})" if recovered else "never"


def _text(figure: Figure, form: Callable[[float], str], form_margin: Callable[[float], str] | None = None) -> str:
    if figure.mean is None:
        return MISSING
    # Where all runs agree, "± 0" would only take room.
    margin = "" if not figure.margin else f" ± {(form_margin or form)(figure.margin)}"
    return form(figure.mean) + margin
