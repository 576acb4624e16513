"""What the labels of a task become, so that a loss can compare an output with them."""

from __future__ import annotations

import torch
from torch import Tensor

from fedtp.errors import ModelError
from fedtp.losses import Loss


def encode(y: Tensor, outputs: int, *, axes: int, dtype: torch.dtype, loss: Loss) -> Tensor:
    """Return what the model's output is compared with.

    Parameters
    ----------
    y
        Labels of samples that have `axes` leading axes:

        - class indices ``[...]`` of an integer type: a one where the class is, zeros elsewhere,
        - yes or no for each of several labels, ``[..., outputs]``, of an integer type or boolean,
        - numbers ``[..., outputs]`` of a floating type, or ``[...]`` for a model with one output: for losses that
          measure a distance any, for those that compare labels numbers from 0 to 1, for the cross-entropy a
          distribution.
    outputs
        How many the model has.
    axes
        1 for a batch; 2 with a device axis or a time axis before the labels, 3 with both.
    dtype
        Of the target.
    loss
        What will compare.

    Returns
    -------
    Tensor
        ``[..., outputs]``.

    Raises
    ------
    ModelError
        If the labels are none of these, out of range, or not what the loss compares with.

    Examples
    --------
    >>> from fedtp.losses import CrossEntropy, Squared
    >>> encode(torch.tensor([1, 0]), 3, axes=1, dtype=torch.float32, loss=CrossEntropy()).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    >>> encode(torch.tensor([0.5, 2.0]), 1, axes=1, dtype=torch.float32, loss=Squared()).tolist()
    [[0.5], [2.0]]
    """
    name = type(loss).__name__
    if y.dim() == axes and not y.is_floating_point():
        if y.dtype == torch.bool:
            raise ModelError("Labels are class indices of an integer type, got torch.bool.")
        return _one_hot(y, outputs, dtype)
    if y.dim() == axes and outputs == 1 and "numbers" in loss.tasks:
        y = y.unsqueeze(-1)
    if y.dim() != axes + 1 or y.shape[-1] != outputs:
        if y.is_floating_point() and y.dim() == axes:
            raise ModelError(
                f"Labels are class indices of an integer type, got {y.dtype}; numbers to predict need a model with one "
                "output and a loss such as 'squared'."
            )
        raise ModelError(
            f"Labels are one class index per sample, or {outputs} numbers, one per output of the model; "
            f"got the shape {tuple(y.shape)}."
        )
    target = y.to(dtype)
    if "numbers" in loss.tasks:
        if not target.isfinite().all():
            raise ModelError("The labels hold NaN or infinity; clean them before learning from them.")
        return target
    if not ((target >= 0) & (target <= 1)).all():
        raise ModelError(f"{name} compares with labels from 0 to 1; choose loss='squared' to predict other numbers.")
    if loss.tasks == {"classes"} and not ((target.sum(-1) - 1).abs() < 1e-2).all():
        raise ModelError(
            f"{name} compares with one class per sample, or with a distribution over the {outputs} classes; "
            "choose loss='binary_cross_entropy' where several labels may hold at once."
        )
    return target


def _one_hot(y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    low, high = (int(v) for v in y.aminmax())
    if low < 0 or high >= classes:
        raise ModelError(
            f"A label is {low if low < 0 else high}, but the model has {classes} outputs: "
            f"labels are 0 to {classes - 1}."
        )
    target = torch.zeros(*y.shape, classes, dtype=dtype, device=y.device)
    return target.scatter_(-1, y.long().unsqueeze(-1), 1)
