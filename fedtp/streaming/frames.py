"""Frames of any kind that narwhals knows, in and out: pandas, polars, pyarrow."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from fedtp.errors import DataError
from fedtp.streaming.features import Vector


def table(X: Any) -> tuple[list[Hashable], Vector]:
    """Return the columns of a frame, and the values as numbers, ``[samples, columns]``; what is missing is NaN.

    Raises
    ------
    DataError
        If a column does not hold numbers.
    """
    frame = nw.from_native(X, eager_only=True)
    columns = list(X.columns) if frame.implementation.is_pandas() else list(frame.columns)
    try:
        return columns, np.asarray(frame.to_numpy(), np.float64)
    except (TypeError, ValueError):
        numbers = [frame[name].dtype.is_numeric() or frame[name].dtype == nw.Boolean for name in frame.columns]
        text = [name for name, number in zip(columns, numbers, strict=True) if not number]
        raise DataError(
            f"the columns {text} do not hold numbers: encode them first, for example by "
            "river.preprocessing.OneHotEncoder"
        ) from None


def like(X: Any, columns: Mapping[Hashable, Any]) -> Any:
    """Return columns as a frame of the kind of `X`; of pandas with its index."""
    frame = nw.from_native(X, eager_only=True)
    if frame.implementation.is_pandas():
        import pandas as pd

        return pd.DataFrame(dict(columns), index=X.index)
    made = nw.from_dict({str(name): values for name, values in columns.items()}, backend=frame.implementation)
    return made.to_native()
