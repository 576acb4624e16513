"""The methods that tpSGD is compared with, behind the same ``step(x, y)``."""

from __future__ import annotations

from fedtp.baselines.backprop import Backprop

__all__ = ["Backprop"]
