"""A folder of results: there as a whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fedtp.errors import FedtpError


@dataclass(frozen=True)
class Results:
    """Results of one kind.

    Parameters
    ----------
    word
        What one is called: "run", "study".
    marks
        The files that every folder of the kind holds, and by which one is known.
    begun
        The file that is there in place of the last of these while results are not finished; empty: they never are.
    replaceable
        Whether the commands that write them have ``--force``.

    Examples
    --------
    >>> import tempfile
    >>> runs = Results("run", ("summary.json",))
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with runs.fresh_folder(Path(parent, "run")) as place:
    ...         _ = (place / "summary.json").write_text("{}")
    ...     print([str(path.relative_to(parent)) for path in Path(parent).rglob("*")])
    ['run', 'run/summary.json']
    """

    word: str
    marks: tuple[str, ...]
    begun: str = ""
    replaceable: bool = True

    def unfinished(self, folder: str | Path) -> bool:
        """Whether a folder holds results that are not finished."""
        *others, last = (Path(folder, mark) for mark in self.marks)
        begun = [*others, Path(folder, self.begun)] if self.begun else []
        return bool(begun) and all(path.is_file() for path in begun) and not last.exists()

    def check_target(self, folder: str | Path, force: bool = False) -> Path:
        """Find out, without leaving a trace, whether results can be written to a folder.

        Parameters
        ----------
        folder
            Where the results shall be. It need not exist, nor the folders above it.
        force
            Whether earlier results may be replaced. Nothing but results of this kind are ever replaced.

        Returns
        -------
        Path
            The folder, absolute and without symbolic links.

        Raises
        ------
        FedtpError
            If the folder holds something already, is a file, or cannot be written.
        """
        try:
            target = Path(folder).resolve()
            if target.exists() and not target.is_dir():
                raise FedtpError(f"cannot write results to {folder}: it is a file; choose another folder")
            if target.is_dir() and any(target.iterdir()):
                self._check_replaceable(folder, target, force)
            _check_writable(target)
        except (OSError, RuntimeError, ValueError) as error:
            raise _unwritable(folder, error) from error
        return target

    @contextmanager
    def fresh_folder(self, folder: str | Path, force: bool = False) -> Iterator[Path]:
        """Give a new folder to write results into, and put it in place once all is written.

        Until then earlier results stay as they were; if anything goes wrong or is interrupted, they stay for good and
        nothing else is left.

        Parameters
        ----------
        folder, force
            As in `check_target`.

        Yields
        ------
        Path
            An empty folder beside the place where the results shall be.

        Raises
        ------
        FedtpError
            As `check_target` does, and if writing fails.
        """
        target = self.check_target(folder, force)
        replacing = target.is_dir() and any(target.iterdir())
        fresh, earlier = _sibling(target, "new"), _sibling(target, "old")
        missing = [parent for parent in target.parents if not parent.exists()]
        try:
            fresh.mkdir(parents=True)
            yield fresh
            if replacing:
                target.rename(earlier)
            fresh.rename(target)
        except BaseException as error:
            if earlier.exists() and not target.exists():
                earlier.rename(target)
            shutil.rmtree(fresh, ignore_errors=True)
            for parent in missing:
                with suppress(OSError):
                    parent.rmdir()
            if isinstance(error, OSError):
                raise _unwritable(folder, error) from error
            raise
        finally:
            if target.exists():
                shutil.rmtree(earlier, ignore_errors=True)

    @contextmanager
    def completed(self, folder: str | Path) -> Iterator[Path]:
        """Give a new folder to write what unfinished results lack into, and put it in place once all is written.

        The last mark comes last, so that at every moment they are unfinished, and can be completed again, or complete.

        Parameters
        ----------
        folder
            Where the unfinished results are.

        Yields
        ------
        Path
            An empty folder.

        Raises
        ------
        FedtpError
            If writing fails.
        """
        target = Path(folder)
        fresh = _sibling(target / "rest", "new")
        try:
            fresh.mkdir()
            yield fresh
            for path in sorted(fresh.iterdir(), key=lambda path: path.name == self.marks[-1]):
                path.replace(target / path.name)
            (target / self.begun).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
        finally:
            for left in target.glob(".*.new"):  # also of processes that were killed
                _remove(left)

    def _check_replaceable(self, folder: str | Path, target: Path, force: bool) -> None:
        if self.unfinished(target):
            if not force:
                raise FedtpError(
                    f"{folder} holds a {self.word} that is not finished: go on with it with --resume {folder}, "
                    "or replace it with --force"
                )
        elif not all((target / mark).is_file() for mark in self.marks):
            raise FedtpError(
                f"cannot write results to {folder}: it holds something that is not a {self.word}; choose another folder"
            )
        elif not force:
            otherwise = ", or replace it with --force" if self.replaceable else ""
            raise FedtpError(f"{folder} holds a {self.word} already: choose another folder{otherwise}")


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file so that at no moment a part of it is there; an earlier one stays until then.

    Raises
    ------
    FedtpError
        If it cannot be written: the folder must be there.
    """
    try:
        target = Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise FedtpError(f"cannot write {path}: {error}") from error
    fresh = _sibling(target, "new")
    try:
        with fresh.open("xb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
    except OSError as error:
        raise FedtpError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def append_lines(path: Path, lines: Iterable[str], *, most_bytes: int, files: int) -> None:
    """Append lines to a file; when it is large enough it is closed, and the oldest of those that were closed goes.

    Parameters
    ----------
    path
        The file. Those that were closed are ``path.1``, the latest, to ``path.{files}``.
    lines
        Without their ends.
    most_bytes
        So many bytes are enough.
    files
        How many closed files are kept.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    if path.exists() and path.stat().st_size > most_bytes:
        closed = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, files + 1))]
        for newer, older in reversed(list(pairwise(closed))):
            if newer.exists():
                newer.replace(older)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _check_writable(target: Path) -> None:
    """Make and remove a folder where the first would be made: asking for permission tells root nothing."""
    first = target
    while not first.parent.exists():
        first = first.parent
    probe = _sibling(first, "new")
    probe.mkdir()
    probe.rmdir()


def _sibling(target: Path, purpose: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{purpose}")


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _unwritable(folder: str | Path, error: Exception) -> FedtpError:
    reason = getattr(error, "strerror", None) or error
    return FedtpError(f"cannot write results to {folder}: {reason}; choose a folder that can be written")
