"""A trained network as a file that every PyTorch program reads."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from safetensors.torch import save

from fedtp.blocks import Packed
from fedtp.learner import Learner


def save_model(
    path: str | Path, learner: Learner, weights: Mapping[str, Packed], told: Mapping[str, str] | None = None
) -> None:
    """Write a model as an ordinary ``state_dict`` of its ``nn.Sequential``, in safetensors' format.

    Parameters
    ----------
    path
        The file. What it held is there until it holds the new model, whatever happens in between.
    learner
        The network and how it learns; the file's metadata describe it.
    weights
        Packed by block.
    told
        What else its metadata shall say.
    """
    metadata = {
        "seed": str(learner.spec.seed),
        "digest": learner.digest,
        "shape": ",".join(map(str, learner.shape)),
        "classes": str(learner.classes),
        "learner": learner.spec.model_dump_json(),
        "fedtp": version("fedtp"),
        **(told or {}),
    }
    path = Path(path)
    new = path.with_name(path.name + ".new")
    new.write_bytes(save(learner.network(weights).state_dict(), metadata))
    new.replace(path)
