"""Local losses: what a block's output is compared by, and the error that follows."""

from __future__ import annotations

from fedtp.errors import ModelError
from fedtp.losses.base import Loss, LossFunction, Space, Task
from fedtp.losses.custom import Custom
from fedtp.losses.distances import Absolute, Cosine, Huber, Squared
from fedtp.losses.labels import BinaryCrossEntropy, CrossEntropy, Hinge

LOSSES: dict[str, type[Loss]] = {
    "squared": Squared,
    "absolute": Absolute,
    "huber": Huber,
    "cosine": Cosine,
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "hinge": Hinge,
}


def as_loss(loss: str | Loss | LossFunction, space: Space) -> Loss:
    """Return the loss that is meant, if it makes sense in `space`.

    Parameters
    ----------
    loss
        A name of `LOSSES`, one of its classes with settings of its own (``CrossEntropy(label_smoothing=0.1)``), or any
        function ``loss(output, target) -> number``, see `Custom`.
    space
        Where hidden blocks compare.

    Raises
    ------
    ModelError
        If there is no such loss, or it compares with labels and `space` is the target space.

    Examples
    --------
    >>> as_loss("cross-entropy", "label").gain
    3.0
    """
    if space not in ("label", "target"):
        raise ModelError(f"There is no space called {space!r}; choose label or target.")
    if isinstance(loss, str):
        kind = LOSSES.get(loss.replace("-", "_"))
        if kind is None:
            raise ModelError(f"There is no loss called {loss!r}; choose one of {', '.join(LOSSES)}.")
        name, found = loss, kind()
    elif isinstance(loss, Loss):
        name, found = type(loss).__name__, loss
    elif callable(loss):
        name, found = "function", Custom(loss)
    else:
        raise ModelError(f"A loss is a name, a fedtp.losses.Loss or a function, got {loss!r}.")
    if space not in found.spaces:
        raise ModelError(
            f"The {name} loss compares with labels, so a hidden block cannot use it in target space; "
            "choose space='label', or the squared or absolute loss."
        )
    return found


__all__ = [
    "LOSSES",
    "Absolute",
    "BinaryCrossEntropy",
    "Cosine",
    "CrossEntropy",
    "Custom",
    "Hinge",
    "Huber",
    "Loss",
    "LossFunction",
    "Space",
    "Squared",
    "Task",
    "as_loss",
]
