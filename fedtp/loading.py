"""Objects by import path, as run configs name them."""

from __future__ import annotations

import importlib
from typing import Any

from fedtp.errors import FedtpError


def load_object(path: str, what: str) -> Any:
    """Return the object at ``"package.module:name"``.

    Parameters
    ----------
    path
        The import path.
    what
        What it is to be, for the message.

    Raises
    ------
    FedtpError
        If there is no such object.

    Examples
    --------
    >>> load_object("math:sqrt", "a function")(9.0)
    3.0
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise FedtpError(
            f'{what} is "{path}", which cannot be imported ({error}); write it as "package.module:name".'
        ) from None
