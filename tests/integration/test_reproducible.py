"""The same scenario in processes of their own: nothing may depend on hashes, imports or what ran before."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

from simulations import Scenario, simulate

SCENARIO = ["server.rounds=4", "drift.0.at_seconds=60", "server.fraction=0.7"]
SCRIPT = f"""
import hashlib, json
from simulations import Scenario, simulate
run = simulate(Scenario.load("digits-rotating", {SCENARIO!r}))
weights = hashlib.sha256(b"".join(packed.tobytes() for packed in run.weights.values())).hexdigest()
print(json.dumps([{{k: v for k, v in run.summary.items() if k != "wall_seconds"}}, weights]))
"""


def test_another_process_gives_the_same_bits() -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "FLWR_TELEMETRY_ENABLED": "0"}
    found = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    run = simulate(Scenario.load("digits-rotating", SCENARIO))
    weights = hashlib.sha256(b"".join(packed.tobytes() for packed in run.weights.values())).hexdigest()
    summary = {key: value for key, value in run.summary.items() if key != "wall_seconds"}
    assert json.loads(found.stdout) == [summary, weights]
