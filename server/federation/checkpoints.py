"""What the server knows between two rounds, on disk: to go on from there after whatever has happened."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from fedtp.archive import Archive
from fedtp.errors import DataError
from fedtp.streaming.state import State

log = logging.getLogger("flwr.fedtp")

_ARCHIVE = Archive("fedtp.server", "checkpoint of a federation's server", version=1)


@dataclass(frozen=True)
class ServerCheckpoint:
    """The server after a round.

    Parameters
    ----------
    round
        The rounds that have ended.
    seconds
        When the last one did, s on the server's clock.
    digest
        Of the network and the projections.
    state
        What `server.round.Round.state` returned.
    """

    round: int
    seconds: float
    digest: str
    state: State


class Checkpoints:
    """The checkpoints in a folder, the latest ones.

    Parameters
    ----------
    folder
        Where they are.
    keep
        How many.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, checkpoint: ServerCheckpoint) -> None:
        """Write one, and remove those that are too old.

        Raises
        ------
        DataError
            If it cannot be written; earlier ones stay.
        """
        record = {
            "round": checkpoint.round,
            "seconds": checkpoint.seconds,
            "network": checkpoint.digest,
            "state": checkpoint.state.record,
        }
        _ARCHIVE.write(self._folder / f"round-{checkpoint.round:09d}.safetensors", record, checkpoint.state.arrays)
        for old in self._paths()[: -self._keep]:
            old.unlink(missing_ok=True)

    def latest(self) -> ServerCheckpoint | None:
        """Return the newest one that is whole, and say so of those that are not; None if there is none."""
        for path in reversed(self._paths()):
            try:
                return _read(path)
            except DataError as error:
                log.warning("%s: going on from the checkpoint before it", error)
        return None

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("round-*.safetensors"))


def _read(path: Path) -> ServerCheckpoint:
    record, arrays = _ARCHIVE.read(path)
    number, seconds, digest, state = (record.get(key) for key in ("round", "seconds", "network", "state"))
    fits = isinstance(number, int) and isinstance(seconds, int | float) and isinstance(digest, str)
    if not fits or not isinstance(state, dict):
        raise DataError(f"{path} does not hold what a checkpoint holds")
    return ServerCheckpoint(int(number), float(seconds), digest, State(arrays, state))  # type: ignore[arg-type]
