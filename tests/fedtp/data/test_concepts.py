import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fedtp.data import AnyConcept, DataSet, Gain, Generator, Identity, LabelSwap, Rotation, apply, load
from fedtp.data.concepts import _rotate
from fedtp.errors import DataError


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def sea():
    return load("sea", samples=100)


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


def test_identity_changes_nothing(digits):
    assert apply(Identity(), digits) is digits


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (270, 3), (-90, 3), (360, 0), (450, 1)])
def test_quarter_turns_are_exact_and_counter_clockwise(digits, degrees, quarters):
    turned = apply(Rotation(degrees=degrees), digits)
    assert np.array_equal(turned.x[5].reshape(8, 8), np.rot90(digits.x[5].reshape(8, 8), quarters))
    assert turned.x.flags.c_contiguous
    assert turned.y is digits.y


@pytest.mark.parametrize("degrees", [90, 180, 270, 360])
def test_bilinear_agrees_with_quarter_turns(digits, degrees):
    almost = _rotate(digits.x, digits.shape, degrees + 1e-9)
    np.testing.assert_allclose(almost, _rotate(digits.x, digits.shape, degrees), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.floats(-720, 720), st.integers(1, 6), st.integers(1, 6))
def test_rotation_stays_between_background_and_brightest(degrees, height, width):
    x = np.random.default_rng(0).random((3, height * width), dtype=np.float32)
    turned = _rotate(x, (height, width), degrees)
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
        np.testing.assert_allclose(whole[some], _rotate(digits.x[some], digits.shape, 20), atol=1e-6)


def test_label_swap_by_index_and_by_name(digits):
    swapped = apply(LabelSwap(swaps=((1, 2), ("3", 4))), digits)
    assert np.array_equal(swapped.y == 1, digits.y == 2)
    assert np.array_equal(swapped.y == 4, digits.y == 3)
    assert np.array_equal(swapped.y == 7, digits.y == 7)
    assert swapped.x is digits.x
    assert apply(LabelSwap(swaps=[("normal", "anomaly")]), load("shuttle")).y.sum() == 49097 - 3511


@pytest.mark.parametrize("swaps", [[(1, 1)], [(1, 2), (2, 3)], [(1, 2), ("2", 3)]])
def test_a_class_in_two_swaps(digits, swaps):
    with pytest.raises(DataError, match="more than once"):
        apply(LabelSwap(swaps=swaps), digits)


@pytest.mark.parametrize("label", [10, -1, "ten"])
def test_swap_of_an_unknown_class(digits, label):
    with pytest.raises(DataError, match=r"has no class .*: name one of 0, 1,.* or its index from 0 to 9"):
        apply(LabelSwap(swaps=[(1, label)]), digits)


def test_gain_of_some_and_of_all_features(sea):
    some = apply(Gain(factor=2, features=("1", 2)), sea)
    assert np.array_equal(some.x, sea.x * np.float32([1, 2, 2]))
    assert some.x.dtype == np.float32
    assert np.array_equal(apply(Gain(factor=0.5), sea).x, sea.x / 2)


def test_gain_of_an_unknown_feature(sea):
    with pytest.raises(DataError, match="'sea' has no feature 'salary': name one of 0, 1, 2"):
        apply(Gain(factor=2, features=["salary"]), sea)


def test_generator(sea):
    other = apply(Generator(parameters={"variant": 3}), sea)
    assert other.y.sum() < sea.y.sum()
    assert other.classes == sea.classes


@pytest.mark.parametrize(
    ("concept", "kind"),
    [
        (Gain(factor=2), "concept gain needs a table, but data set 'digits' holds images"),
        (Generator(parameters={}), "concept generator suits drawn data only, but data set 'digits'"),
    ],
)
def test_concepts_that_do_not_suit_images(digits, concept, kind):
    with pytest.raises(DataError, match=kind):
        apply(concept, digits)


def test_a_table_cannot_be_turned(sea):
    with pytest.raises(DataError, match="rotation needs images, but data set 'sea' is a table"):
        apply(Rotation(degrees=90), sea)


def test_concepts_are_told_apart_by_kind():
    read = TypeAdapter(AnyConcept).validate_python
    assert read({"kind": "rotation", "degrees": 90}) == Rotation(degrees=90)
    assert read({"kind": "label-swap", "swaps": [[1, "a"]]}) == LabelSwap(swaps=((1, "a"),))
    assert read({"kind": "gain", "factor": 2, "features": [1, "a"]}).features == (1, "a")
    values = {"a": True, "b": 1, "c": 1.0, "d": "1"}
    parameters = read({"kind": "generator", "parameters": values}).parameters
    assert [type(value) for value in parameters.values()] == [bool, int, float, str]


@pytest.mark.parametrize(
    "concept",
    [
        {"kind": "rotate", "degrees": 90},
        {"kind": "rotation"},
        {"kind": "rotation", "degrees": float("nan")},
        {"kind": "rotation", "degrees": 90, "angle": 1},
        {"kind": "label-swap", "swaps": []},
        {"kind": "label-swap", "swaps": [[1, 2, 3]]},
        {"kind": "gain", "factor": float("inf")},
    ],
)
def test_malformed_concepts(concept):
    with pytest.raises(ValidationError):
        TypeAdapter(AnyConcept).validate_python(concept)
