import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, precision_recall_curve
from torchmetrics.functional.classification import binary_calibration_error

from nailseg.metrics.calibration import (
    BINS,
    best_threshold,
    expected_calibration_error,
    probability_histogram,
    reliability_curve,
)


def pixels(seed: int, n: int = 4000, saturated: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (2, n / 2), miscalibrated, and a truth with a fifth of it ignored."""
    generator = torch.Generator().manual_seed(seed)
    logit = torch.randn(n, generator=generator) * (8 if saturated else 2) - 1
    truth = (torch.rand(n, generator=generator) < (logit / 2).sigmoid()).byte()
    truth[torch.rand(n, generator=generator) < 0.2] = 255
    return logit.sigmoid().view(2, -1), truth.view(2, -1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_histogram_counts_every_pixel_that_counts(dtype: torch.dtype) -> None:
    probability, truth = pixels(0)
    histogram = probability_histogram(probability, truth.to(dtype))
    expected = np.zeros((BINS, 2), np.int64)
    for p, t in zip(probability.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if t != 255:
            expected[int(np.float32(p) * 255 + np.float32(0.5)), t] += 1
    assert histogram.tolist() == expected.tolist()


def test_histogram_of_a_third_class_is_one_against_the_rest() -> None:
    probability = torch.tensor([0, 1.0, 0.5, 0.5, 0.5, 0.25])
    histogram = probability_histogram(probability, torch.tensor([0, 1, 2, 1, 255, 255]), index=2)
    assert histogram[[0, 128, 255]].tolist() == [[1, 0], [1, 1], [1, 0]]
    assert histogram.sum() == 4


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_matches_torchmetrics_up_to_rounding(seed: int, saturated: bool) -> None:
    probability, truth = pixels(seed, saturated=saturated)
    counted = truth != 255
    found = expected_calibration_error(probability_histogram(probability, truth))
    expected = binary_calibration_error(probability[counted], truth[counted], n_bins=15, norm="l1").item()
    assert expected > 0.05
    assert found == pytest.approx(expected, abs=1 / 256)


def test_calibration_error_of_whole_codes_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.randint(0, 255, (3000,), generator=generator).double() / 255  # all but 1
    truth = torch.randint(0, 2, (3000,), generator=generator)
    found = expected_calibration_error(probability_histogram(probability, truth))
    expected = binary_calibration_error(probability + 1e-9, truth, n_bins=15, norm="l1").item()
    assert found == pytest.approx(expected, abs=1e-6)


def test_reliability_curve_matches_sklearn() -> None:
    probability, truth = pixels(1)
    table = reliability_curve(probability_histogram(probability, truth)).numpy()
    code = np.floor(probability[truth != 255].numpy() * 255 + 0.5) / 255
    frequency, confidence = calibration_curve(truth[truth != 255], code + 1e-9, n_bins=10)
    np.testing.assert_allclose(table[:, 0], confidence, atol=1e-8)
    np.testing.assert_allclose(table[:, 1], frequency)
    np.testing.assert_allclose(table[:, 2], np.histogram(code + 1e-9, np.linspace(0, 1, 11))[0] / code.size)


def test_empty_bins_and_empty_sets_are_nan() -> None:
    table = reliability_curve(probability_histogram(torch.tensor([0.03, 0.04, 1]), torch.tensor([0, 1, 1])))
    assert table[0].tolist() == pytest.approx([(8 + 10) / 255 / 2, 0.5, 2 / 3])
    assert table[9].tolist() == pytest.approx([1, 1, 1 / 3])
    assert table[1:9, :2].isnan().all()
    assert (table[1:9, 2] == 0).all()
    nothing = probability_histogram(torch.rand(9), torch.full((9,), 255))
    assert nothing.sum() == 0
    assert reliability_curve(nothing).isnan().all()
    assert np.isnan(expected_calibration_error(nothing))
    assert best_threshold(nothing) is best_threshold(torch.tensor([[1, 0]] * BINS)) is None


@pytest.mark.parametrize("seed", range(3))
def test_best_threshold_has_the_highest_dice(seed: int) -> None:
    probability, truth = pixels(seed)
    p, t = probability[truth != 255].numpy(), truth[truth != 255].numpy()
    threshold, dice = best_threshold(probability_histogram(probability, truth))
    assert dice == pytest.approx(f1_score(t, p >= threshold))
    edges = np.append(0, (np.arange(1, BINS) - 0.5) / 255)
    assert dice == pytest.approx(max(f1_score(t, p >= edge) for edge in edges))
    precision, recall, _ = precision_recall_curve(t, p)  # at every probability there is
    assert 0 <= (2 * precision * recall / (precision + recall)).max() - dice < 0.005


@pytest.mark.parametrize(
    ("probability", "truth", "expected"),
    [
        ([0.1, 0.9], [0, 1], (0.5, 1.0)),  # anything between is as good
        ([0.0, 0.1], [1, 1], (0.0, 1.0)),  # all of it
        ([0.9, 0.8, 0.7], [1, 0, 0], (204.5 / 255, 1.0)),
        ([0.1, 0.2, 0.3], [1, 0, 0], (25.5 / 255, 0.5)),
    ],
)
def test_best_threshold_by_hand(probability: list, truth: list, expected: tuple[float, float]) -> None:
    histogram = probability_histogram(torch.tensor(probability), torch.tensor(truth))
    assert best_threshold(histogram) == pytest.approx(expected)
