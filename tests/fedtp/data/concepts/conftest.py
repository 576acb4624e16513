from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedtp.data import DataSet, load


@pytest.fixture(scope="session")
def digits():
    return load("digits")


@pytest.fixture(scope="session")
def digits_as_table(digits):
    return replace(digits, shape=(64,))


@pytest.fixture(scope="session")
def sea():
    return load("sea", samples=100)


@pytest.fixture
def speakers():
    x = np.arange(4, dtype=np.float32)[:, None]
    return DataSet("talk", x, np.array([0, 0, 1, 1]), ("yes", "no"), (1,), ("f",), groups=("al", "bo", "cy", "al"))
