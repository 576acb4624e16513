"""Frames of any kind that narwhals knows, in and out: pandas, polars, pyarrow."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from narwhals.stable.v2 import dependencies

from fedtp.errors import DataError
from fedtp.streaming.features import Vector


def table(X: Any) -> tuple[list[Hashable], Vector]:
    """Return the columns of a frame, and the values as numbers, ``[samples, columns]``; what is missing is NaN.

    Raises
    ------
    DataError
        If a column does not hold numbers.
    """
    # Asked directly, a frame gives its values up to ten times as fast as through narwhals.
    try:
        if dependencies.is_polars_dataframe(X):
            return list(X.columns), np.ascontiguousarray(X.to_numpy(order="c"), np.float64)
        frame = X if dependencies.is_pandas_dataframe(X) else nw.from_native(X, eager_only=True)
        return list(frame.columns), np.ascontiguousarray(frame.to_numpy(), np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"the columns {_no_numbers(X)} do not hold numbers: encode them first, for example by "
            "river.preprocessing.OneHotEncoder"
        ) from None


def column(y: Any) -> list[Any]:
    """Return the values of a series."""
    if dependencies.is_pandas_series(y):
        return list(y.tolist())
    if dependencies.is_polars_series(y):
        return list(y.to_list())
    return list(nw.from_native(y, series_only=True).to_list())


def like(X: Any, columns: Mapping[Any, Any]) -> Any:
    """Return columns as a frame of the kind of `X`; of pandas with its index."""
    if dependencies.is_pandas_dataframe(X):
        pandas: Any = dependencies.get_pandas()
        return pandas.DataFrame(dict(columns), index=X.index)
    kind = nw.from_native(X, eager_only=True).implementation
    return nw.from_dict({str(name): values for name, values in columns.items()}, backend=kind).to_native()


def series_like(X: Any, values: Any) -> Any:
    """Return values as a series of the kind of `X`; of pandas with its index."""
    if dependencies.is_pandas_dataframe(X):
        pandas: Any = dependencies.get_pandas()
        return pandas.Series(values, index=X.index, name="y")
    return like(X, {"y": values})["y"]


def _no_numbers(X: Any) -> list[str]:
    frame = nw.from_native(X, eager_only=True)
    kinds = {name: frame[name].dtype for name in frame.columns}
    return [name for name, kind in kinds.items() if not (kind.is_numeric() or kind == nw.Boolean)]
