"""The Flower app that `pyproject.toml` declares is one that Flower can load and run."""

from __future__ import annotations

import tomllib
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedtp.learner import learner_of
from fedtp.loading import load_object
from server.settings import ServerSpec

ROOT = Path(__file__).resolve().parent.parent
APP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]


def flat(table: dict[str, object], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Flatten the run config as Flower does."""
    config: dict[str, bool | int | float | str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            config |= flat(value, f"{prefix}{key}.")
        else:
            assert isinstance(value, bool | int | float | str)
            config[prefix + key] = value
    return config


def test_components() -> None:
    assert isinstance(load_object(APP["components"]["serverapp"], "serverapp"), ServerApp)
    assert isinstance(load_object(APP["components"]["clientapp"], "clientapp"), ClientApp)


def test_run_config_fits_the_data_it_names() -> None:
    config = flat(APP["config"])
    learner = learner_of(config)
    assert ServerSpec.from_config(config).rounds == 5
    stream = load_object(str(config["stream"]), "stream")({**config, "partition-id": 3, "num-partitions": 4})
    samples = stream.take(0.0)
    assert samples.x.shape == (50, learner.features)
    assert samples.y.max() < learner.classes


def test_every_pattern_of_the_bundle_matches_a_file() -> None:
    assert [pattern for pattern in APP["fab-include"] if not any(ROOT.glob(pattern))] == []
