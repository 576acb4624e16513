"""Fleets of small devices that learn together from drifting streams, without backpropagation."""

from importlib import metadata
from typing import TYPE_CHECKING, Any

from fedtp.lazy import lazily

if TYPE_CHECKING:
    from fedtp.learner_spec import LearnerSpec
    from fedtp.optimizer import TPSGD
    from fedtp.recurrent import Recurrent

    __version__: str

__all__ = ["TPSGD", "LearnerSpec", "Recurrent", "__version__"]

# Where the public names live. They are imported when first asked for, because PyTorch takes seconds.
_HOMES = {"TPSGD": "fedtp.optimizer", "LearnerSpec": "fedtp.learner_spec", "Recurrent": "fedtp.recurrent"}


_find = lazily(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return metadata.version("fedtp")
        except metadata.PackageNotFoundError:  # Flower's bundles hold the files, uninstalled
            return "unknown"
    return _find(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
