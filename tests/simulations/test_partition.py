import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtp.errors import ScenarioError
from simulations.partition import partition, quantity_shares

KINDS = ["iid", "dirichlet", "interleaved"]


def skew(y, parts):
    """The mean share of the most frequent class on a device."""
    return np.mean([np.bincount(y[rows]).max() / len(rows) for rows in parts])


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    samples=st.integers(0, 300),
    classes=st.integers(1, 12),
    devices=st.integers(1, 80),
    minimum=st.integers(0, 3),
    exponent=st.floats(-6, 6),
    sigma=st.sampled_from([None, 0.0, 0.5, 10.0]),
    seed=st.integers(0, 1000),
)
def test_every_sample_goes_to_exactly_one_device(kind, samples, classes, devices, minimum, exponent, sigma, seed):
    rng = np.random.default_rng(seed)
    y = (classes * rng.random(samples) ** 3).astype(np.int64)  # the first classes are the frequent ones
    shares = None if sigma is None else quantity_shares(devices, sigma, rng)

    def deal():
        rng = np.random.default_rng(seed)
        return partition(y, devices, rng, kind=kind, alpha=10**exponent, shares=shares, minimum=minimum)

    if samples < devices * minimum:
        with pytest.raises(ScenarioError, match=f"only {samples} to deal out"):
            deal()
        return
    parts = deal()
    assert len(parts) == devices
    assert sorted(np.concatenate(parts)) == list(range(samples))
    sizes = np.array([len(rows) for rows in parts])
    assert (sizes >= minimum).all()
    weights = np.ones(devices) if shares is None else shares / shares.sum()
    expected = minimum + (samples - devices * minimum) * weights / weights.sum()
    assert (abs(sizes - expected) < 1 + 1e-9).all()
    assert all(np.array_equal(one, other) for one, other in zip(parts, deal(), strict=True))


def test_interleaved_devices_take_turns():
    parts = partition(np.zeros(11, np.int64), 4, np.random.default_rng(0), kind="interleaved")
    for device, rows in enumerate(parts):
        assert rows.tolist() == list(range(device, 11, 4))


def test_interleaved_with_shares_spreads_each_device_over_the_whole():
    rng = np.random.default_rng(0)
    parts = partition(np.zeros(1000, np.int64), 10, rng, kind="interleaved", shares=np.arange(1.0, 11.0))
    for rows in parts:
        gap = 1000 / len(rows)
        assert (np.diff(rows) > 0).all()
        assert np.diff(rows).max() < gap + 15
        assert rows[0] < gap + 10


def test_skew_grows_as_alpha_falls():
    y = np.random.default_rng(0).integers(0, 10, 5000)
    skews = [
        skew(y, partition(y, 50, np.random.default_rng(1), kind="dirichlet", alpha=alpha))
        for alpha in (1000, 10, 1, 0.1, 0.01)
    ]
    assert skews == sorted(skews)
    assert skews[0] < 0.2
    assert skews[-1] > 0.85
    assert skews[0] - skew(y, partition(y, 50, np.random.default_rng(1), kind="iid")) < 0.01


def test_mixes_lie_about_the_mix_of_the_whole():
    y = (np.random.default_rng(0).random(20000) < 0.07).astype(np.int64)
    parts = partition(y, 200, np.random.default_rng(1), kind="dirichlet", alpha=5)
    shares = np.array([y[rows].mean() for rows in parts])
    assert abs(np.median(shares) - 0.05) < 0.03
    assert 0.03 < shares.std() < 0.12


def test_more_devices_than_samples_of_a_class():
    y = np.array([0] * 990 + [1] * 10)
    parts = partition(y, 400, np.random.default_rng(0), kind="dirichlet", alpha=0.1)
    assert sum(y[rows].sum() for rows in parts) == 10


def test_samples_of_a_device_come_in_random_order():
    y = np.repeat(np.arange(10), 100)
    for kind in ("iid", "dirichlet"):
        rows = partition(y, 2, np.random.default_rng(0), kind=kind, alpha=100)[0]
        assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "0 devices"),
        ({"kind": "random"}, "'random' is not one of iid, dirichlet, interleaved"),
        ({"kind": "dirichlet", "alpha": 0}, "alpha is 0"),
        ({"kind": "dirichlet", "alpha": float("nan")}, "alpha is nan"),
        ({"minimum": -1}, "minimum is -1"),
        ({"shares": np.array([1.0, 2.0, 3.0])}, "shares must be 2 positive numbers"),
        ({"shares": np.array([1.0, 0.0])}, "positive"),
        ({"shares": np.array([1.0, np.inf])}, "positive"),
        ({"minimum": 6}, "2 devices need at least 6 samples each, 12 in all, but there are only 10"),
    ],
)
def test_what_cannot_be_dealt_out(options, message):
    arguments = {"devices": 2, "rng": np.random.default_rng(0), **options}
    with pytest.raises(ScenarioError, match=message):
        partition(np.zeros(10, np.int64), **arguments)


@given(st.integers(1, 500), st.floats(0, 10), st.integers(0, 99))
def test_quantity_shares_have_mean_one(devices, sigma, seed):
    factors = quantity_shares(devices, sigma, np.random.default_rng(seed))
    assert factors.mean() == pytest.approx(1)
    assert (factors > 0).all()


def test_quantity_shares_are_log_normal():
    logarithms = np.log(quantity_shares(20000, 0.7, np.random.default_rng(0)))
    assert logarithms.std() == pytest.approx(0.7, rel=0.02)
    assert logarithms.mean() == pytest.approx(-(0.7**2) / 2, abs=0.03)


@pytest.mark.parametrize("sigma", [-0.1, 11, float("nan")])
def test_sigma_out_of_range(sigma):
    with pytest.raises(ScenarioError, match="quantity_sigma is"):
        quantity_shares(3, sigma, np.random.default_rng(0))
