"""A simulation that has come so far, in one file: to go on from there as if it had never stopped.

What a component of a simulation knows it writes itself: as a `fedtp.streaming.state.State` of arrays and what JSON can
hold. All of them are saved between two rounds, into one file that replaces the one before as a whole.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedtp.archive import Archive
from fedtp.errors import DataError
from fedtp.streaming.state import Part, State, apart, together
from simulations.results import CHECKPOINT
from simulations.scenario import Scenario

_ARCHIVE = Archive("fedtp.checkpoint", "checkpoint of a simulation", version=1)


@dataclass(frozen=True)
class Checkpoint:
    """A simulation between two rounds.

    Parameters
    ----------
    scenario
        What is simulated.
    round
        The rounds that have ended.
    states
        What each component knows, by the component's name.

    Examples
    --------
    >>> import tempfile
    >>> scenario = Scenario.load("digits-rotating")
    >>> checkpoint = Checkpoint(scenario, 3, {"clock": State({}, {"now": 180.0})})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint.save(Path(folder))
    ...     Checkpoint.load(Path(folder), scenario).states["clock"].record
    {'now': 180.0}
    """

    scenario: Scenario
    round: int
    states: Mapping[str, State]

    def save(self, folder: Path) -> None:
        """Write the checkpoint into a run's folder; an earlier one is replaced once this one is complete.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        whole = together(self.states)
        record = {"scenario": _mark(self.scenario), "round": self.round, "states": whole.record}
        _ARCHIVE.write(folder / CHECKPOINT, record, whole.arrays)

    @classmethod
    def load(cls, folder: Path, scenario: Scenario) -> Checkpoint:
        """Read the checkpoint in a run's folder.

        Raises
        ------
        DataError
            If there is none, it is damaged, or it is of another scenario.
        """
        path = folder / CHECKPOINT
        record, arrays = _ARCHIVE.read(path)
        done, states = record.get("round"), record.get("states")
        if type(done) is not int or done < 0 or not isinstance(states, dict):
            raise DataError(f"{path} is damaged: it does not say how far the simulation has come")
        if record.get("scenario") != _mark(scenario):
            raise DataError(f"{path} belongs to a run of other settings than {folder / 'scenario.toml'}")
        if record.get("fedtp") != version("fedtp"):
            raise DataError(
                f"{path} was written by fedtp {record.get('fedtp')}, and only that version is sure to end with the "
                f"same results, not {version('fedtp')}"
            )
        try:
            return cls(scenario, done, apart(State(arrays, states)))
        except DataError as error:
            raise DataError(f"{path} is damaged: {error}") from None

    def restore(self, parts: Mapping[str, Part], others: Collection[str] = ()) -> dict[str, State]:
        """Hand every component what it knew; return the states of others, by their names.

        Raises
        ------
        DataError
            If these are not the components that were saved, or one of them refuses its state.
        """
        if differing := sorted({*parts, *others} ^ self.states.keys()):
            raise DataError(f"the checkpoint is of another version: {', '.join(differing)} is not in both")
        for name, part in parts.items():
            try:
                part.load_state(self.states[name])
            except DataError as error:
                raise DataError(f"the checkpoint's {name} cannot be gone on with: {error}") from None
        return {name: self.states[name] for name in others}


def from_frame(frame: pl.DataFrame) -> NDArray[np.uint8]:
    """Return a table as an array of bytes, as a state holds it.

    >>> to_frame(from_frame(pl.DataFrame({"a": [1, None]})), {"a": pl.Int64})["a"].to_list()
    [1, None]
    """
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def to_frame(array: NDArray[Any] | None, schema: Mapping[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    """Return the table that `from_frame` wrote.

    Raises
    ------
    DataError
        If it is none with these columns.
    """
    if array is None or array.dtype != np.uint8:
        raise DataError("a table is missing")
    try:
        frame = pl.read_parquet(io.BytesIO(array.tobytes()))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"a table cannot be read: {error}") from None
    if dict(frame.schema) != dict(schema):
        raise DataError(f"a table has the columns {', '.join(frame.columns)}, not {', '.join(schema)}")
    return frame


def _mark(scenario: Scenario) -> str:
    """Return what tells a scenario from others."""
    return hashlib.blake2b(scenario.to_toml().encode(), digest_size=16).hexdigest()
