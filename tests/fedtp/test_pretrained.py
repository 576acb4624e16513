from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedtp.errors import DataError, FedtpError, ModelError
from fedtp.models import mlp
from fedtp.pretrained import load_pretrained


def other() -> dict[str, Tensor]:
    return dict(mlp(4, [3], 2, seed=5).state_dict())


def test_a_model_gets_the_weights_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_file(other(), tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", "~/model.safetensors"):
        model = mlp(4, [3], 2, seed=1)
        load_pretrained(model, path)
        torch.testing.assert_close(dict(model.state_dict()), other(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"2.bias": None}, "are not the network's: '2.bias' the file has not"),
        ({"4.weight": torch.zeros(2, 2)}, "are not the network's: '4.weight' the network has not"),
        ({"0.weight": torch.zeros(5, 4)}, r"'0.weight' is float32 \[5, 4\] instead of float32 \[3, 4\]"),
        ({"0.bias": torch.zeros(3, dtype=torch.float64)}, r"'0.bias' is float64 \[3\] instead of float32 \[3\]"),
        ({"2.weight": torch.full((2, 3), torch.nan)}, "hold NaN or infinity in '2.weight'"),
    ],
)
def test_what_is_not_the_networks_is_refused(tmp_path: Path, change: dict[str, Tensor | None], message: str) -> None:
    tensors = {name: tensor for name, tensor in {**other(), **change}.items() if tensor is not None}
    save_file(tensors, tmp_path / "model.safetensors")
    model = mlp(4, [3], 2, seed=1)
    with pytest.raises(ModelError, match=message) as caught:
        load_pretrained(model, tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(dict(model.state_dict()), dict(mlp(4, [3], 2, seed=1).state_dict()), rtol=0, atol=0)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("weights")
    torch.save(other(), tmp_path / "pickled")
    for path in (tmp_path / "missing", tmp_path / "text", tmp_path / "pickled", tmp_path):
        with pytest.raises(DataError, match="cannot be read as a safetensors file") as caught:
            load_pretrained(nn.Linear(1, 1), path)
        assert str(path) in str(caught.value)
        assert isinstance(caught.value, FedtpError)
