"""Settings in a TOML file of their own, read with sentences that name the file for what is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fedtp.errors import DataError
from fedtp.settings import problems

Model = TypeVar("Model", bound=BaseModel)

_MOST_BYTES = 50_000_000


def read_settings(model: type[Model], path: Path) -> Model:
    """Return the settings in a file.

    Parameters
    ----------
    model
        What they must fit.
    path
        The file.

    Raises
    ------
    DataError
        If it is missing, no TOML, or holds settings that are unknown or not allowed: a sentence for each.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise DataError(f"{path} is far too large for settings")
        tables = tomllib.loads(content.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {said}") from None
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        sentences = [f"{path}: {problem.text}" for problem in problems(error, model, tables)]
        raise DataError("\n".join(sentences)) from None
