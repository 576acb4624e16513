"""A trained network as a file that every PyTorch program reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from fedtp.blocks import Chain, Packed
from fedtp.data.schema import Schema
from fedtp.errors import DataError, FedtpError
from fedtp.learner import Learner, learner_for
from fedtp.learner_spec import LearnerSpec


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


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A model that a federation exported, ready to predict.

    Parameters
    ----------
    learner
        The network's form.
    network
        With the weights that were saved.
    schema
        The columns of a row.
    round
        The round after which it was saved.
    """

    learner: Learner
    network: nn.Sequential
    schema: Schema
    round: int

    @property
    def weights(self) -> dict[str, Packed]:
        """The weights, packed by block."""
        return {block.name: block.join(block.parameters).numpy() for block in Chain(self.network)}

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how likely each class is for rows that the schema parsed, ``[samples, classes]``.

        It is the softmax of the network's outputs: calibrated as far as it was trained by cross-entropy.
        """
        with torch.no_grad():
            samples = torch.from_numpy(x).unflatten(-1, self.learner.input_shape)
            found: NDArray[np.float32] = Chain(self.network).forward(samples).softmax(-1).numpy()
        return found


def load_model(path: str | Path) -> SavedModel:
    """Read a model that a federation exported.

    Raises
    ------
    DataError
        If there is none, or it is damaged, or does not say what its rows look like: in a sentence.
    """
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a model: {error}") from None
    if "schema" not in told:
        raise DataError(
            f"{path} does not say which columns its rows have: predictions need a model that a federation exported"
        )
    try:
        spec = LearnerSpec.model_validate_json(told["learner"])
        schema = Schema.model_validate_json(told["schema"])
        learner = learner_for(spec, schema.sample_shape, len(schema.classes))
        network = learner.network(learner.initial_weights())
        network.load_state_dict(tensors)
        saved = SavedModel(learner, network, schema, int(told.get("round", 0)))
    except (KeyError, ValueError, ValidationError, RuntimeError, FedtpError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    if told.get("digest") != learner.digest:
        raise DataError(f"{path} is damaged: its digest is not that of its network")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise DataError(f"{path} is damaged: it holds numbers that are not finite")
    return saved
