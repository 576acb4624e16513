"""Where a device is in its stream, for its long-lived process: without the learner, and the memory that it takes."""

from __future__ import annotations

from pathlib import Path

from fedtp.archive import Archive
from fedtp.errors import DataError

#: A device's state, from its folder on, and what it looks like.
STATE = Path("state") / "device.safetensors"
ARCHIVE = Archive("fedtp.device", "state of a device", version=1)


class Place:
    """The place of a device whose state is on disk.

    Parameters
    ----------
    folder
        The device's.
    """

    def __init__(self, folder: Path) -> None:
        self._state = folder / STATE
        self._known: tuple[tuple[int, int, int], str] | None = None

    def reading(self) -> str:
        """Return the name of the file that the device's stream reads from; empty if it has not begun."""
        try:
            found = self._state.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            # Asked for every message that comes, and the file holds the whole device.
            if self._known is None or self._known[0] != stamp:
                record, _ = ARCHIVE.read(self._state)
                self._known = stamp, str(record["cursor"]["file"])
            return self._known[1]
        except (OSError, DataError, KeyError, TypeError):
            return ""
