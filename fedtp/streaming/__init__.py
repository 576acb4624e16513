"""Learners on streams: River estimators, how they adapt to drift, and studies of how well they do."""

from fedtp.streaming.classifier import TPClassifier
from fedtp.streaming.regressor import TPRegressor

__all__ = ["TPClassifier", "TPRegressor"]
