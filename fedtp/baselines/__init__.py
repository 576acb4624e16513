"""The methods that tpSGD is compared with, behind the same ``step(x, y)``."""

from __future__ import annotations

from fedtp.baselines.alignment import FeedbackAlignment
from fedtp.baselines.backprop import Backprop
from fedtp.baselines.direct import DirectFeedback

__all__ = ["Backprop", "DirectFeedback", "FeedbackAlignment"]
