"""Finding the files of a data set where a user keeps them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fedtp.errors import DataError


def find_folder(
    what: str,
    files: Sequence[str],
    *,
    path: str | Path | None,
    variable: str,
    subfolder: str,
    hint: str,
) -> Path:
    """Find the first folder that holds one of some files.

    Parameters
    ----------
    what
        The data set's name, for the message.
    files
        Names of files, any one of which marks the folder.
    path
        A folder named by the user, instead of `variable`; the files lie in it or in its `subfolder`.
    variable
        The environment variable that names the folder otherwise.
    subfolder
        Where the files lie inside a folder with several data sets.
    hint
        Where the files come from, for the message.

    Raises
    ------
    DataError
        If there is no such folder: what was looked for, where, and how to get it.
    """
    base = path or os.environ.get(variable)
    places = [Path(base).expanduser(), Path(base).expanduser() / subfolder] if base else []
    for place in places:
        if any((place / file).is_file() for file in files):
            return place

    looked = " and ".join(str(place) for place in places) if places else f"nowhere, as {variable} is not set"
    raise DataError(
        f"the files of {what} were not found (looked for {files[0]} in: {looked}): "
        f"{hint}, and set {variable} or the option `path` to the folder that holds them"
    )
