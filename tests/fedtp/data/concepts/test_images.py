import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtp.data import Blur, Brightness, Contrast, DataSet, Rotation, apply
from fedtp.data.concepts.images import levels, rotate


def image(pixels):
    pixels = np.asarray(pixels, dtype=np.float32)
    names = tuple(str(i) for i in range(pixels[0].size))
    return DataSet(
        "toy",
        pixels.reshape(len(pixels), -1),
        np.zeros(len(pixels), np.int64),
        ("a",),
        pixels[0].shape,
        names,
    )


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (270, 3), (-90, 3), (360, 0), (450, 1)])
def test_quarter_turns_are_exact_and_counter_clockwise(digits, degrees, quarters):
    turned = apply(Rotation(degrees=degrees), digits)
    assert np.array_equal(turned.x[5].reshape(8, 8), np.rot90(digits.x[5].reshape(8, 8), quarters))
    assert turned.x.flags.c_contiguous
    assert turned.y is digits.y


@pytest.mark.parametrize("degrees", [90, 180, 270, 360])
def test_bilinear_agrees_with_quarter_turns(digits, degrees):
    almost = rotate(digits.x, digits.shape, degrees + 1e-9)
    np.testing.assert_allclose(almost, rotate(digits.x, digits.shape, degrees), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.floats(-720, 720), st.integers(1, 6), st.integers(1, 6))
def test_rotation_stays_between_background_and_brightest(degrees, height, width):
    x = np.random.default_rng(0).random((3, height * width), dtype=np.float32)
    turned = rotate(x, (height, width), degrees)
    assert turned.shape == x.shape
    assert turned.min() >= x.min() - 1e-5
    assert turned.max() <= x.max() + 1e-5


def test_bilinear_against_scipy(digits):
    from scipy.ndimage import rotate

    background = digits.x.min()
    turned = apply(Rotation(degrees=33), digits).x[:20].reshape(-1, 8, 8)
    # A frame of background makes scipy interpolate across the edge, as we do.
    framed = np.pad(digits.x[:20].reshape(-1, 8, 8), ((0, 0), (4, 4), (4, 4)), constant_values=background)
    expected = rotate(framed, 33, axes=(2, 1), reshape=False, order=1, cval=background)
    np.testing.assert_allclose(turned, expected[:, 4:-4, 4:-4], atol=1e-4)


def test_corners_are_background():
    turned = apply(Rotation(degrees=45), image(np.full((2, 7, 7), [[[0]], [[3]]])))
    assert turned.x[1, 0] == 0
    assert turned.x[1].reshape(7, 7)[3, 3] == 3


def test_an_oblong_image_keeps_its_frame():
    turned = apply(Rotation(degrees=90), image([[[0, 1, 2, 3, 4]] * 3]))
    assert turned.x.reshape(3, 5)[:, 2].tolist() == [3, 2, 1]


def test_every_image_is_turned_by_itself(digits):
    whole = apply(Rotation(degrees=20), digits).x
    for some in (slice(0, 1), slice(250, 260), slice(1796, 1797)):
        np.testing.assert_allclose(whole[some], rotate(digits.x[some], digits.shape, 20), atol=1e-6)


def test_blur_is_a_gaussian_of_so_many_pixels():
    frame = np.zeros((2, 21, 21))
    frame[1, 10, 10] = 1
    blurred = apply(Blur(sigma_pixels=1.5), image(frame)).x.reshape(2, 21, 21)
    assert blurred[1].sum() == pytest.approx(1, abs=1e-4)
    offsets = np.arange(-10, 11)
    for axis in (0, 1):
        assert np.sqrt(blurred[1].sum(axis) @ offsets**2) == pytest.approx(1.5, rel=0.02)
    assert (blurred[0] == 0).all()


def test_blur_leaves_even_images_as_they_are_to_the_edge():
    even = image(np.full((2, 5, 7), [[[0.25]], [[3]]]))
    np.testing.assert_allclose(apply(Blur(sigma_pixels=2), even).x, even.x, rtol=1e-6)


def test_colours_do_not_blur_into_each_other():
    frame = np.zeros((1, 3, 6, 6))
    frame[0, 1] = np.random.default_rng(0).random((6, 6))
    blurred = apply(Blur(sigma_pixels=1), image(frame)).x.reshape(3, 6, 6)
    assert (blurred[[0, 2]] == 0).all()
    np.testing.assert_allclose(blurred[1], apply(Blur(sigma_pixels=1), image(frame[:, 1])).x.reshape(6, 6), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1, 1))
def test_brightness_stays_between_dark_and_bright(change):
    pixels = np.linspace(-2, 6, 24).reshape(2, 3, 4)
    lit = apply(Brightness(change=change), image(pixels)).x.reshape(pixels.shape)
    np.testing.assert_allclose(lit, np.clip(pixels + 8 * change, -2, 6), atol=1e-5)


def test_each_colour_has_its_own_range():
    pixels = np.stack([np.linspace(0, 1, 8).reshape(2, 4), np.linspace(5, 15, 8).reshape(2, 4)])[None]
    lit = apply(Brightness(change=0.5), image(pixels)).x.reshape(2, 8)
    assert lit[0].tolist() == pytest.approx([*np.linspace(0.5, 1, 8)[::2].tolist(), 1, 1, 1, 1], abs=0.1)
    assert lit.max(1).tolist() == [1, 15]
    assert lit.min(1).tolist() == [0.5, 10]


def test_contrast_is_about_the_mean_of_each_image(digits):
    flat = apply(Contrast(factor=0), digits).x
    np.testing.assert_allclose(flat, np.repeat(digits.x.mean(1, keepdims=True), 64, 1), atol=1e-5)
    half = apply(Contrast(factor=0.5), digits).x
    np.testing.assert_allclose(half, (digits.x + flat) / 2, atol=1e-5)
    dark, bright = levels(digits)
    strong = apply(Contrast(factor=9), digits).x
    assert (strong >= dark).all()
    assert (strong <= bright).all()
