"""The same code learns the same on a GPU."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import nn

from fedtp import TPSGD
from fedtp.baselines import Backprop
from fedtp.cohort import stack
from fedtp.models import cnn, recurrent

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.mark.parametrize("devices", [0, 3])
@pytest.mark.parametrize("method", ["tpsgd", "tpsgd with momentum", "backprop"])
def test_a_gpu_learns_what_the_cpu_learns(method: str, devices: int) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
    models = [plain, copy.deepcopy(plain)]
    if devices:
        models = [stack(model, devices) for model in models]
    models[1].cuda()
    optimizers: list[TPSGD | Backprop] = [
        Backprop(model, lr=0.1) if method == "backprop" else TPSGD(model, seed=7, momentum=0.5 * ("with" in method))
        for model in models
    ]
    for _ in range(5):
        x, y = torch.randn(*[devices] * bool(devices), 8, 12), torch.randint(0, 4, (*[devices] * bool(devices), 8))
        losses = [optimizers[0].step(x, y), optimizers[1].step(x.cuda(), y.cuda())]
        assert losses[0] is not None
        assert losses[1] is not None
        torch.testing.assert_close(losses[1].cpu(), losses[0], rtol=1e-3, atol=1e-4)
    for expected, found in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert found.is_cuda
        torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("readout", ["fixed", "learnt"])
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        pytest.param(cnn((1, 8, 8), [4, 6], 4, hidden=[8], seed=1), (8, 1, 8, 8), id="convolutions"),
        pytest.param(recurrent(5, 8, 4, cell="gru", layers=2, seed=1), (8, 20, 5), id="gru"),
        pytest.param(recurrent(5, 8, 4, cell="lstm", seed=1), (8, 20, 5), id="lstm"),
    ],
)
def test_other_layers_do_too(model: nn.Sequential, shape: tuple[int, ...], readout: Literal["fixed", "learnt"]) -> None:
    models = [copy.deepcopy(model), copy.deepcopy(model).cuda()]
    optimizers = [TPSGD(model, seed=7, lr=0.1, momentum=0.5, readout=readout) for model in models]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x, y = torch.randn(shape, generator=generator), torch.randint(0, 4, shape[:1], generator=generator)
        losses = [optimizers[0].step(x, y), optimizers[1].step(x.cuda(), y.cuda())]
        assert losses[0] is not None
        assert losses[1] is not None
        torch.testing.assert_close(losses[1].cpu(), losses[0], rtol=1e-3, atol=1e-3)
    for expected, found in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=1e-3, atol=1e-3)
    for name, readout_matrix in optimizers[1].learnt_readouts().items():
        assert readout_matrix.is_cuda
        torch.testing.assert_close(readout_matrix.cpu(), optimizers[0].learnt_readouts()[name], rtol=1e-3, atol=1e-3)
