"""What the model may tell of a device."""

from __future__ import annotations

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, pld
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from fedtp.clipping import clipped
from fedtp.errors import DataError, FedtpError, WireError
from fedtp.streaming.state import State
from server.app import run_schedule
from server.privacy import NoisyMean, Privacy, privacy_loss, private
from server.settings import PrivacySpec, ReactionSpec, ServerSpec, TrustSpec

A, B, C = 101, 102, 2**64 - 1
SENT = {"0": np.ones(300, np.float32), "2": np.zeros(100, np.float32)}


def change(size: float) -> dict[str, np.ndarray]:
    """Weights whose change has a norm of twenty times a size."""
    return {name: packed + np.float32(size) for name, packed in SENT.items()}


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_what_was_clipped_has_the_norm_that_is_asked_for(size: float, bound: float) -> None:
    found = clipped(change(size), SENT, bound)
    privacy = Privacy(PrivacySpec(clip=bound))
    if bound > 1e-3 * max(1.0, size):  # float32 tells no smaller changes from none
        privacy.check(A, found, SENT)
    if 20 * size <= bound * 0.999:
        assert all(found[name] is not None and (found[name] == change(size)[name]).all() for name in found)
    np.testing.assert_allclose(found["0"] - 1, found["2"][0], atol=1e-6)  # it points where it did


def test_an_update_beyond_the_bound_is_refused_and_not_counted() -> None:
    privacy = Privacy(PrivacySpec(clip=1.0, noise=1.0))
    with pytest.raises(WireError, match="norm of 2, above the bound of 1") as caught:
        privacy.check(A, change(0.1), SENT)
    assert caught.value.reason == "clip"
    assert privacy.epsilon == 0
    with pytest.raises(WireError):
        privacy.check(A, {"0": np.full(300, 3e38, np.float32)}, SENT)


@pytest.mark.parametrize(("noise", "times"), [(1.0, 1), (4.0, 50), (0.7, 3)])
def test_the_loss_is_that_of_dp_accounting(noise: float, times: int) -> None:
    accountant = pld.PLDAccountant()
    accountant.compose(GaussianDpEvent(noise), times)
    assert privacy_loss(noise, times, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)


def test_the_loss_is_of_the_device_that_was_heard_most_often() -> None:
    privacy = Privacy(PrivacySpec(clip=1.0, noise=2.0, delta=1e-6))
    for node in (A, B, A, A, C):
        privacy.check(node, change(0.01), SENT)
    assert privacy.epsilon == privacy_loss(2.0, 3, 1e-6)
    other = Privacy(privacy.spec)
    other.load_state(privacy.state())
    other.check(A, change(0.01), SENT)
    assert other.epsilon == privacy_loss(2.0, 4, 1e-6)
    with pytest.raises(DataError):
        other.load_state(State({}))
    assert Privacy(PrivacySpec(clip=1.0)).epsilon is None


def test_the_noise_is_normal_and_as_large_as_it_must_be() -> None:
    current = np.ones(20_000, np.float32)
    mean = NoisyMean(PrivacySpec(clip=0.5, noise=3.0), 1, 0)
    updates = [(current + np.float32(0.25), 10), (current - np.float32(0.05), 1000)]
    found = mean(current, updates)
    noise = (found - 1.1) * 2 / (0.5 * 3.0)  # of the sum: each counts alike
    assert abs(noise.mean()) < 0.03
    assert kstest(noise, "norm").pvalue > 1e-3
    again = mean(current, updates)
    assert abs(np.corrcoef(found, again)[0, 1]) < 0.03


def test_blocks_have_noise_of_their_own_and_a_seed_gives_the_same() -> None:
    spec, current = PrivacySpec(clip=1.0, noise=1.0), np.zeros(1000, np.float32)
    make, again, secret = (private(spec, lambda: None, seed) for seed in (5, 5, None))  # type: ignore[arg-type, return-value]
    one, two, same, hidden = make(), make(), again(), secret()
    first = one(current, [(current, 1)])
    assert abs(np.corrcoef(first, two(current, [(current, 1)]))[0, 1]) < 0.2
    assert (first == same(current, [(current, 1)])).all()
    assert abs(np.corrcoef(first, hidden(current, [(current, 1)]))[0, 1]) < 0.2
    resumed = NoisyMean(spec, 5, 0)
    resumed.load_state(one.state())
    assert (resumed(current, [(current, 1)]) == one(current, [(current, 1)])).all()


def test_without_noise_the_aggregation_stays_what_it_is() -> None:
    made = object()
    assert private(PrivacySpec(clip=1.0), lambda: made, 1)() is made  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("server", "trust", "reactions", "said"),
    [
        (ServerSpec(mode="buffered"), TrustSpec(), ReactionSpec(), "synchronous"),
        (ServerSpec(strategy="FedMedian"), TrustSpec(), ReactionSpec(), "mean"),
        (ServerSpec(), TrustSpec(norm_bound=5.0), ReactionSpec(), "norm_bound"),
        (ServerSpec(), TrustSpec(), ReactionSpec(reaction="reset"), "reaction"),
    ],
)
def test_what_would_tell_what_the_noise_hides_is_refused(
    server, trust, reactions, said: str, make_grid, make_learner
) -> None:
    grid = make_grid({A: lambda _: 0.0})
    privacy = PrivacySpec(clip=1.0, noise=1.0)
    with pytest.raises(FedtpError, match=said):
        run_schedule(grid, make_learner(), server, grid.clock, print, reactions, trust=trust, privacy=privacy)
    assert not grid.orders


def test_orders_tell_the_bound_and_rounds_the_loss(make_grid, make_learner) -> None:
    """The grid's honest nodes answer with weights of a hundred, far beyond the bound."""
    grid, rounds = make_grid({A: lambda _: 0.0, B: lambda _: 0.0}), []
    spec = ServerSpec(rounds=3, round_seconds=10.0)
    privacy = PrivacySpec(clip=1e4, noise=0.05)
    run_schedule(grid, make_learner(), spec, grid.clock, rounds.append, privacy=privacy, noise_seed=1)
    assert {order.clip for order in grid.orders[A]} == {1e4}
    assert [done.epsilon for done in rounds] == [privacy_loss(0.05, times, 1e-5) for times in (1, 2, 3)]
    assert all(np.isfinite(done.weights["0"]).all() for done in rounds)

    grid, rounds = make_grid({A: lambda _: 0.0}), []
    run_schedule(grid, make_learner(), spec, grid.clock, rounds.append, privacy=PrivacySpec(clip=1.0))
    assert [verdict.reason for done in rounds for verdict in done.verdicts.values()] == ["clip"] * 3
    assert all(done.epsilon is None for done in rounds)


def test_dp_accounting_is_missed_at_once(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dp_accounting", None)
    with pytest.raises(FedtpError, match=r"fedtp\[privacy\]"):
        Privacy(PrivacySpec(clip=1.0, noise=1.0))
    assert Privacy(PrivacySpec(clip=1.0)).epsilon is None
