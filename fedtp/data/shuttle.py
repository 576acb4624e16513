"""Shuttle: nine sensor readings of a NASA space shuttle, and whether it was in an unusual state."""

from __future__ import annotations

import numpy as np

from fedtp.data.dataset import DataSet
from fedtp.data.standardize import standardize


def load_shuttle() -> DataSet:
    """Statlog's Shuttle, in the two classes of the anomaly-detection benchmark; installed with River.

    Standardised by the mean and spread of its first 1,000 rows, a calibration such as a device could make
    before it starts, and clipped to [-10, 10], for some readings are rare spikes a hundred spreads wide.

    Returns
    -------
    DataSet
        49,097 rows with 9 features; 7 % of them are anomalies, so judge by kappa.

    Notes
    -----
    Not ordered: Statlog shuffled the rows when it published them (they show neither trend nor
    autocorrelation), though the first feature is a time.

    References
    ----------
    UCI Machine Learning Repository, "Statlog (Shuttle)"; ODDS, "Shuttle dataset".

    Examples
    --------
    >>> shuttle = load_shuttle()
    >>> shuttle.x.shape, shuttle.classes, round(float(shuttle.y.mean()), 3)
    ((49097, 9), ('normal', 'anomaly'), 0.072)
    """
    import polars as pl
    from river import datasets  # takes two seconds to import

    frame = pl.read_csv(datasets.Shuttle().path)
    names = tuple(f"f{number}" for number in range(1, 10))
    values = frame.select(names).to_numpy().astype(np.float64)
    return DataSet(
        name="shuttle",
        x=standardize(values, values),
        y=frame["anomaly"].to_numpy().astype(np.int64),
        classes=("normal", "anomaly"),
        shape=(len(names),),
        feature_names=names,
    )
