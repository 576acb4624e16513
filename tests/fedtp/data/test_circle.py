import itertools

import numpy as np
import pytest

from fedtp.data import apply, load
from fedtp.data.circle import CIRCLES, Circle
from fedtp.data.concepts import Generator
from fedtp.errors import DataError


@pytest.mark.parametrize("variant", range(4))
def test_one_class_is_outside_the_circle(variant: int) -> None:
    right, up, radius = CIRCLES[variant]
    drawn = list(itertools.islice(Circle(variant, seed=3), 4000))
    for x, y in drawn:
        assert y == ((x[0] - right) ** 2 + (x[1] - up) ** 2 > radius**2)
    inside = min(right + radius, 1) - max(right - radius, 0)  # the last circle is cut off by the square's edge
    assert np.mean([y == 0 for _, y in drawn]) == pytest.approx(np.pi * radius * inside / 2, abs=0.03)


def test_points_come_from_the_seed_and_not_from_the_variant() -> None:
    points = [[x for x, _ in itertools.islice(Circle(v, seed=s), 10)] for v, s in ((0, 1), (2, 1), (0, 2))]
    assert points[0] == points[1] != points[2]


def test_it_is_a_data_set_with_concepts() -> None:
    circle = load("circle", samples=500, seed=1)
    assert (circle.shape, circle.classes) == ((2,), ("0", "1"))
    assert apply(Generator(parameters={"variant": 2}), circle).y.mean() < circle.y.mean()


def test_there_are_four() -> None:
    with pytest.raises(DataError, match="unknown variant 4"):
        load("circle", samples=10, parameters={"variant": 4})
