from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fedtp.model_file import save_model
from fedtp.pretrained import load_pretrained


def test_the_file_holds_the_network_and_says_what_it_is(make_learner, tmp_path: Path) -> None:
    learner = make_learner()
    weights = {name: np.full(size, 0.5, np.float32) for name, size in learner.sizes.items()}
    save_model(tmp_path / "model.safetensors", learner, weights)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == learner.model.state_dict().keys()
    assert all((tensor == 0.5).all() for tensor in found.values())
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata()["digest"] == learner.digest
    load_pretrained(learner.network(learner.initial_weights()), tmp_path / "model.safetensors")


def test_what_was_there_stays_until_the_new_file_is_whole(
    make_learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, file = make_learner(), tmp_path / "model.safetensors"
    save_model(file, learner, learner.initial_weights())
    before = load_file(file)

    def fail(path: Path, data: bytes) -> None:
        with path.open("wb") as half:
            half.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(file, learner, {name: 2 * packed for name, packed in learner.initial_weights().items()})
    for name, tensor in load_file(file).items():
        torch.testing.assert_close(tensor, before[name])
