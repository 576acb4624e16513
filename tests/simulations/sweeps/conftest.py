from __future__ import annotations

from pathlib import Path

import pytest

SEA = """
title = "Five boards on SEA"

[data]
name = "sea"
samples = 2000

[arrival]
rate = 0.2

[learner]
hidden = [8]

[server]
rounds = 3

[[devices]]
class = "pi"
count = 5
"""


@pytest.fixture(scope="session")
def sea(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scenario's file."""
    path = tmp_path_factory.mktemp("scenario") / "sea.toml"
    path.write_text(SEA)
    return path
