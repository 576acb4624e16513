"""Learning in Ray actors; that they give the same weights is for tests/integration/test_executors.py."""

from __future__ import annotations

import sys

import pytest

from fedtp.errors import FedtpError
from simulations.executors import executor_for
from simulations.world import World


def test_without_ray_one_sentence_says_what_to_install(small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FedtpError, match=r'run.executor is "ray".*pip install "fedtp\[ray\]"'):
        executor_for(World(small("run.executor=ray")))


def test_no_cluster_where_it_is_said_to_be(small, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def init(address: str, **_: object) -> None:
        raise ConnectionError(f"nobody answers at {address}")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(FedtpError, match=r"no Ray cluster at RAY_ADDRESS=127\.0\.0\.1:9: nobody answers"):
        executor_for(World(small("run.executor=ray")))
