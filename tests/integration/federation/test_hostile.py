"""Two of eight devices lie in every way there is, one after the other: the others' model is as good as without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedtp.errors import FedtpError
from fedtp.model_file import SavedModel, load_model
from server.federation.results import read_events
from simulations import Scenario, simulate
from simulations.world import World

pytestmark = pytest.mark.federation

SETTINGS = [
    "devices.0.count=8",
    "partition.kind=iid",
    "drift=[]",
    "server.strategy=FedTrimmedAvg",
    "server.strategy_options={beta=0.25}",
    "trust.norm_bound=4.0",
]
HOSTILE = ("device-3", "device-6")
#: All are honest for so many rounds, and then each way of lying lasts so many.
HONEST, EACH = 3, 3
#: The ways, which hostile.py knows, and why the server refuses what it can see to be one.
REASONS = {
    "NaN": "not finite",
    "huge weights": "norm",
    "sign-flipped": "",
    "label-flipped": "",
    "replayed": "replay",
    "oversized": "size",
    "foreign seed": "digest",
    "malformed records": "missing record",
}
ROUNDS = HONEST + EACH * len(REASONS)


def test_whatever_two_of_eight_send_the_model_is_as_good(tmp_path: Path, federation: Callable[..., Any]) -> None:
    # One round follows the other as soon as all have answered.
    fed = federation(*SETTINGS, "server.rounds=1000", "server.round_seconds=60", "server.interval_seconds=1")
    lies = tmp_path / "lies"
    lies.write_text("none", "utf-8")
    for name in HOSTILE:
        fed.alter(name, "simulations.world:open_stream", "hostile:open_stream")
    own = [path.name for path in fed.devices]
    fed.start("server", *(name for name in own if name not in HOSTILE))
    fed.start(*HOSTILE, PYTHONPATH=str(Path(__file__).parent), FEDTP_TEST_LIES=str(lies))
    fed.made.write_wish("learn")
    models: dict[str, SavedModel] = {}

    def look(status: dict[str, Any]) -> None:
        begun = [way for number, way in enumerate(REASONS) if status["round"] >= HONEST + EACH * number]
        if begun and lies.read_text("utf-8") != begun[-1]:
            lies.write_text(begun[-1], "utf-8")
        if begun:
            try:
                models[begun[-1]] = load_model(fed.made.model)
            except FedtpError:  # it is being replaced
                return

    fed.learn_for(ROUNDS, look)
    world = World(Scenario.load("loopback", SETTINGS))
    for way, model in models.items():
        honest = simulate(Scenario.load("loopback", [*SETTINGS, f"server.rounds={model.round}"]))
        accuracy, aim = world.held_out_accuracy(model.weights, 0.0), honest.summary["final_accuracy"]
        print(f"{way}: accuracy {accuracy:.4f} after round {model.round}, of honest devices {aim:.4f}")
        assert accuracy > aim - 0.02, way
    assert list(models) == list(REASONS)

    orders = [event for event in read_events(fed.made.events) if event["kind"] == "order"]
    refused = Counter((event["device"], event["reason"]) for event in orders if event["status"] == "refused")
    assert {device for device, _ in refused} == set(HOSTILE)
    for reason in filter(None, REASONS.values()):
        for name in HOSTILE:
            assert refused[name, reason] >= EACH - 1, (refused, fed.logs())
    told = Counter[str]()
    for (_, reason), count in refused.items():
        told[reason] += count
    assert fed.status()["refusals"] == told
