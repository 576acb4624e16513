"""The same code learns the same on a GPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fedtp import TPSGD
from fedtp.baselines import Backprop
from fedtp.cohort import stack

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
