"""Learners on streams: River estimators, how they adapt to drift, and studies of how well they do."""

from typing import TYPE_CHECKING

from fedtp.lazy import lazily

if TYPE_CHECKING:
    from fedtp.streaming.classifier import TPClassifier
    from fedtp.streaming.merging import merge
    from fedtp.streaming.persistence import load
    from fedtp.streaming.regressor import TPRegressor
    from fedtp.streaming.sequences import TPSequenceClassifier, TPSequenceRegressor

__all__ = ["TPClassifier", "TPRegressor", "TPSequenceClassifier", "TPSequenceRegressor", "load", "merge"]

# Where the public names live. They are imported when first asked for, so that the command line starts at once.
_HOMES = {
    "TPClassifier": "fedtp.streaming.classifier",
    "TPRegressor": "fedtp.streaming.regressor",
    "TPSequenceClassifier": "fedtp.streaming.sequences",
    "TPSequenceRegressor": "fedtp.streaming.sequences",
    "load": "fedtp.streaming.persistence",
    "merge": "fedtp.streaming.merging",
}


__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
