"""Elec2: 45,312 half-hours of electricity prices in New South Wales, with drift that really happened."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np

from fedtp.data.dataset import DataSet
from fedtp.data.files import find_folder
from fedtp.errors import DataError

FILE = "electricity.csv"
FEATURES = ("date", "day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
CLASSES = ("DOWN", "UP")

# The spread of values that fill [0, 1] evenly.
EVEN = 1 / sqrt(12)


def load_elec2(path: str | Path | None = None) -> DataSet:
    """Load the question whether the price is above its average of the last day, in order of time.

    Every column is centred and scaled by constants that follow from the published ranges alone, never by
    statistics of rows that come later: ``day`` from 1 to 7 about 4, everything else from 0 to 1 about
    one half. The two prices lie in [0, 1] because of rare spikes and are otherwise tiny, so they are taken
    as log10(price + 0.001), from -3 to 0, in units of half a decade; on a linear scale a network sees
    next to nothing of them.

    Parameters
    ----------
    path
        The folder with ``electricity.csv``, in the form in which River keeps it. None means the folder that
        the environment variable ``RIVER_DATA`` names. In both cases its subfolder ``Elec2`` will do as well.

    Returns
    -------
    DataSet
        Ordered, 8 features, classes ``DOWN`` and ``UP`` (42 %).

    Raises
    ------
    DataError
        If the file is missing, or not such a file.

    Notes
    -----
    Labels depend on the labels before them: "the same as last time" is right 85 times in 100, so judge by
    kappa_t. Victoria's price and demand and the transfer are constant in the first 17,424 rows: it joined
    the market then.

    References
    ----------
    Harries, "SPLICE-2 comparative evaluation: electricity pricing", University of New South Wales, 1999.
    """
    folder = find_folder(
        "elec2",
        [FILE],
        path=path,
        variable="RIVER_DATA",
        subfolder="Elec2",
        hint="get it with `river.datasets.Elec2().download()`, which puts it below ~/river_data",
    )
    values, up = _read(folder / FILE)
    return DataSet(
        name="elec2",
        x=_scale(values).astype(np.float32),
        y=up.astype(np.int64),
        classes=CLASSES,
        shape=(len(FEATURES),),
        feature_names=FEATURES,
        ordered=True,
    )


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    import polars as pl

    try:
        frame = pl.read_csv(file, schema_overrides=dict.fromkeys(FEATURES, pl.Float64) | {"class": pl.String})
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file} cannot be read as a table: {str(error).splitlines()[0]}") from None
    missing = [name for name in (*FEATURES, "class") if name not in frame.columns]
    if missing:
        raise DataError(f"{file} is not Elec2: it has no column {', '.join(missing)}")
    values, labels = frame.select(FEATURES).to_numpy(), frame["class"].to_numpy()
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1) | ~np.isin(labels, CLASSES))
    if not len(labels) or len(bad):
        where = (
            f"row {bad[0] + 1} has a value missing or a class other than UP and DOWN" if len(bad) else "it has no rows"
        )
        raise DataError(f"{file} is damaged: {where}")
    return values, labels == "UP"


def _scale(values: np.ndarray) -> np.ndarray:
    scaled = (values - 0.5) / EVEN
    scaled[:, FEATURES.index("day")] = (values[:, FEATURES.index("day")] - 4) / 2
    for price in (FEATURES.index("nswprice"), FEATURES.index("vicprice")):
        scaled[:, price] = (np.log10(np.maximum(values[:, price], 0) + 0.001) + 1.5) / 0.5
    return scaled
