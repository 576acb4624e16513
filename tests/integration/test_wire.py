"""What crosses the network: layer weights and a little more, and never a projection."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from flwr.app import ArrayRecord

from fedtp.optimizer import TPSGD
from simulations import Scenario, simulate

HEADER = 128  # NumPy's, one for each array


@pytest.fixture(scope="module")
def overheard(overhear):
    """A run of the demo's fleet, shortened, and every message of it."""
    messages = []
    # All orders of a round are one and the same.
    listen = overhear(lambda orders, _: messages.extend(orders[:1]), messages.extend)
    scenario = Scenario.load("digits-rotating", ["server.rounds=3", "drift=[]"])
    return simulate(scenario, executor=listen), messages


def test_a_message_weighs_what_its_layers_do(overheard) -> None:
    run, _ = overheard
    layers = sum(4 * size + HEADER for size in run.learner.sizes.values())
    accepted = run.devices.filter(pl.col("status") == "accepted")
    assert len(accepted) > 100
    up, down = accepted["bytes_up"] - layers, accepted["bytes_down"] - layers
    # The same for every message, however many samples are behind it.
    assert up.n_unique() == down.n_unique() == 1
    assert 0 < up[0] < 250
    assert 0 < down[0] < 150
    assert run.summary["bytes_up"] == run.devices["bytes_up"].sum()


def test_a_report_on_a_part_weighs_that_part(small) -> None:
    run = simulate(small("learner.freeze_after_seconds=0"))
    assert (run.devices["bytes_up"] < 250).all()


def test_no_projection_is_in_any_message(overheard) -> None:
    run, messages = overheard
    optimizer = run.learner.optimizer(run.learner.model)
    assert isinstance(optimizer, TPSGD)
    hidden = list(run.learner.chain)[:-1]
    rows = [row.astype(np.float32) for block in hidden for row in optimizer.projection.rows(block.name, block.outputs)]
    scaled = [row / np.float32(np.sqrt(len(row))) for row in rows]
    assert len(messages) > 200
    found = set()
    for message in messages:
        for record in message.content.values():
            if not isinstance(record, ArrayRecord):
                continue
            for name, array in record.items():
                found.add((name, array.shape))
                values = array.numpy()
                for row in (*rows, *scaled):
                    # A row of a projection, or a part of it, anywhere in what was sent.
                    starts = np.flatnonzero(np.isclose(values[: 1 - len(row[:4])], row[0], rtol=1e-6, atol=0))
                    assert not any(np.allclose(values[i : i + 4], row[:4], rtol=1e-5, atol=0) for i in starts)
    assert found == {(name, (size,)) for name, size in run.learner.sizes.items()}


def test_no_message_holds_anything_but_what_its_format_says(overheard) -> None:
    _, messages = overheard
    contents = {
        tuple(sorted((key, *sorted(record)) for key, record in message.content.items())) for message in messages
    }
    assert contents == {
        (("order", "blocks", "digest", "now", "paces", "round", "version"), ("weights", "0", "2")),
        (
            ("metrics", "correct", "detections", "examples", "flops", "loss", "samples"),
            ("report", "digest", "version"),
            ("weights", "0", "2"),
        ),
    }
