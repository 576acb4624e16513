from __future__ import annotations

import numpy as np
import pytest

from fedtp.errors import DataError
from fedtp.streaming.state import State
from server.federation.checkpoints import Checkpoints, ServerCheckpoint


def checkpoint(number: int) -> ServerCheckpoint:
    return ServerCheckpoint(number, 10.0 * number, "digest", State({"w": np.full(3, number, "f4")}, {"a": [number]}))


def test_the_newest_is_gone_on_with(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    for number in (8, 9, 10):
        checkpoints.save(checkpoint(number))
    latest = Checkpoints(tmp_path, keep=2).latest()
    assert latest is not None
    assert (latest.round, latest.seconds, latest.digest, latest.state.record) == (10, 100.0, "digest", {"a": [10]})
    np.testing.assert_array_equal(latest.state.arrays["w"], np.full(3, 10, "f4"))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", [lambda raw: raw[:-5], lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda raw: b""])
def test_damage_is_noticed_and_the_one_before_is_used(tmp_path, damage, caplog) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for number in (1, 2):
        checkpoints.save(checkpoint(number))
    path = max(tmp_path.iterdir())
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level("WARNING", "flwr.fedtp"):
        latest = checkpoints.latest()
    assert latest is not None
    assert latest.round == 1


def test_a_full_disk_leaves_the_ones_before(tmp_path, monkeypatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(checkpoint(1))
    monkeypatch.setattr(
        "fedtp.folder.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(DataError, match="No space left"):
        checkpoints.save(checkpoint(2))
    assert [path.name for path in tmp_path.iterdir()] == ["round-000000001.safetensors"]
