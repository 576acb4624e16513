"""Settings in Flower's run config, which is flat: booleans, numbers and text by dotted key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fedtp.errors import ModelError
from fedtp.settings import problems

ConfigValue = bool | int | float | str
Model = TypeVar("Model", bound=BaseModel)


def to_config(settings: BaseModel, prefix: str) -> dict[str, ConfigValue]:
    """Return settings as a run config: lists with commas between, tables as JSON; what is None is left out."""
    return {prefix + name: _flat(value) for name, value in settings.model_dump(exclude_none=True).items()}


def from_config(model: type[Model], config: Mapping[str, object], prefix: str) -> Model:
    """Read settings back from a run config; keys without the prefix are somebody else's.

    Raises
    ------
    ModelError
        If a setting is unknown or has a value that is not allowed, with one sentence for each.
    """
    defaults = {name: field.get_default(call_default_factory=False) for name, field in model.model_fields.items()}
    settings = {
        name: _like(config[prefix + name], defaults.get(name))
        for name in (key.removeprefix(prefix) for key in config if key.startswith(prefix))
    }
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        path = tuple(part for part in prefix.split(".") if part)
        found = problems(error, model, settings, path)
        raise ModelError("\n".join(problem.text for problem in found)) from None


class Settings(BaseModel):
    """Settings that never change, hold nothing unknown, and fit a TOML table and Flower's run config.

    Attributes
    ----------
    prefix
        What stands before each name in a run config.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    prefix: ClassVar[str]

    def to_config(self, prefix: str | None = None) -> dict[str, ConfigValue]:
        """Return the settings for Flower's run config, which holds no lists and no tables.

        Parameters
        ----------
        prefix
            Put before each name, instead of the settings' own.

        Returns
        -------
        dict
            Lists as text with commas between; what is None is left out.
        """
        return to_config(self, self.prefix if prefix is None else prefix)

    @classmethod
    def from_config(cls, config: Mapping[str, object], prefix: str | None = None) -> Self:
        """Read the settings back from a run config; keys without the prefix are somebody else's.

        Raises
        ------
        ModelError
            If a setting is unknown or has a value that is not allowed, with one sentence for each.
        """
        return from_config(cls, config, cls.prefix if prefix is None else prefix)


def _flat(value: Any) -> ConfigValue:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else value


def _like(value: object, default: object) -> object:
    """Turn text back into the list or table that the setting is."""
    if isinstance(default, tuple):
        return [_whole(part) for part in str(value).split(",") if part.strip()]
    if isinstance(default, dict) and isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _whole(text: str) -> int | str:
    """Return the whole number that `text` is, or the text for the validator to complain about."""
    try:
        return int(text)
    except ValueError:
        return text
