import numpy as np
import pytest

from fedtp.data import load


def test_digits_are_scaled_images():
    digits = load("digits")
    assert digits.x.shape == (1797, 64)
    assert digits.x.dtype == np.float32
    assert digits.y.dtype == np.int64
    assert digits.is_image
    assert not digits.ordered
    assert digits.x.mean() == pytest.approx(0, abs=1e-3)
    assert digits.x.std() == pytest.approx(1, abs=1e-3)
    assert digits.feature_names[9] == "pixel-1-1"
