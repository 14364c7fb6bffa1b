import numpy as np
import pytest

from nailseg.metrics.bootstrap import interval, resample_weights


def test_weights_draw_as_many_images_as_there_are() -> None:
    weights = resample_weights(7, 500)
    assert weights.shape == (500, 7)
    assert weights.dtype == np.int64
    assert (weights.sum(1) == 7).all()
    assert weights.mean(0) == pytest.approx(np.ones(7), abs=0.15)
    assert weights.var() == pytest.approx(1 - 1 / 7, abs=0.1)  # of a multinomial


def test_weights_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert (resample_weights(20, 5) == resample_weights(20, 5)).all()
    assert (resample_weights(20, 5) != resample_weights(20, 5, seed=1)).any()
    assert resample_weights(1, 3).tolist() == [[1], [1], [1]]


def test_interval_holds_the_share_it_says() -> None:
    assert interval(np.arange(1001)) == pytest.approx((25, 975))
    assert interval(np.arange(1001)[::-1], level=0.5) == pytest.approx((250, 750))


def test_interval_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(resample_weights(400, 5000) @ values / 400)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_interval_leaves_nan_out() -> None:
    values = np.append(np.arange(101.0), [np.nan] * 50)
    assert interval(values) == interval(np.arange(101.0))
    assert np.isnan(interval(np.array([np.nan]))).all()
    assert np.isnan(interval(np.array([]))).all()
