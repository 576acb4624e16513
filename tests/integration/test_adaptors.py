"""A fleet whose digits are turned: a frozen network learns to read them, and only its adaptors cross the network."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from simulations import Run, simulate
from simulations.world import World

HEADER = 128  # NumPy's, one for each array
SHIFTED = ("data.initial=turned", "concepts.turned.degrees=30", "arrival.rate=0.5", "server.rounds=15")


@pytest.fixture(scope="module")
def pretrained(small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a fleet that reads upright digits."""
    run = simulate(small("learner.hidden=[64]", "arrival.rate=0.5", "server.rounds=15"))
    assert run.summary["final_accuracy"] > 0.85
    return run.save(tmp_path_factory.mktemp("runs") / "upright").parent / "model.safetensors"


@pytest.fixture(scope="module")
def adapt(small, pretrained: Path, overhear):
    """Run the shifted fleet, and listen to every message of it."""

    def run(adaptor: str, *settings: str) -> tuple[Run, float, set[str]]:
        scenario = small(
            *SHIFTED,
            "learner.hidden=[64]",
            f'learner.pretrained="{pretrained}"',
            f"learner.adaptor={adaptor}",
            *settings,
        )
        world = World(scenario)
        before = world.held_out_accuracy(world.learner.initial_weights(), 0.0)
        overheard: set[str] = set()

        def listen(messages, _=None):
            for message in messages:
                overheard.update(message.content["weights"])
                overheard.update(message.content.get("order", {}).get("blocks", ()))

        return simulate(scenario, executor=overhear(listen, listen)), before, overheard

    return run


@pytest.mark.parametrize(
    ("adaptor", "settings", "sizes"),
    [
        ("scale-shift", (), {"0": 2 * 64, "2": 2 * 10}),
        # A bottleneck's units see less than its way in does, so that it needs smaller steps.
        ("bottleneck", ("learner.lr=0.2", "learner.adaptor_size=16"), {"0": 2 * 16 * 64 + 16 + 64}),
        ("low-rank", (), {"0": 4 * (64 + 64) + 64, "2": 4 * (64 + 10) + 10}),
    ],
)
def test_a_fleet_adapts_by_what_it_sends(adapt, pretrained: Path, adaptor: str, settings, sizes) -> None:
    run, before, overheard = adapt(adaptor, *settings)
    assert run.summary["adaptor"] == adaptor
    assert run.summary["final_accuracy"] > before + 0.1
    assert run.learner.sizes == sizes
    assert overheard == set(sizes)

    layers = sum(4 * size + HEADER for size in sizes.values())
    accepted = run.devices.filter(pl.col("status") == "accepted")
    assert accepted.height > 50
    for direction in ("bytes_up", "bytes_down"):
        beside = accepted[direction] - layers
        assert beside.n_unique() == 1
        assert 0 < beside[0] < 250

    after = run.state_dict()
    for name, frozen in load_file(pretrained).items():
        layer, _, kind = name.partition(".")
        name = f"{layer}.linear.{kind}" if adaptor == "low-rank" else name
        assert torch.equal(after[name], frozen), name
    assert any(not torch.equal(after[n], p) for n, p in run.learner.model.named_parameters() if p.requires_grad)


def test_pretrained_weights_may_all_learn_on(adapt) -> None:
    run, before, overheard = adapt("none")
    assert overheard == {"0", "2"}
    assert run.learner.sizes == {"0": 65 * 64, "2": 65 * 10}
    assert before < 0.6 < run.summary["final_accuracy"]


def test_a_readout_learns_beside_its_adaptor(adapt) -> None:
    fixed, *_ = adapt("scale-shift", "server.rounds=2")
    shared, *_ = adapt("scale-shift", "server.rounds=2", "learner.readout=shared")
    reports = fixed.devices.filter(pl.col("status") == "accepted").height
    assert reports == shared.devices.filter(pl.col("status") == "accepted").height > 5
    assert shared.summary["bytes_up"] - fixed.summary["bytes_up"] == reports * 4 * 10 * 64
