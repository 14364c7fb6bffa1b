"""The numbers of a set: averaging as the names say, any order and division, intervals, every ratio twice."""

import numpy as np
import pytest
import torch

from nailseg.metrics.calibration import summarize_calibration
from nailseg.metrics.image_counts import (
    ImageCounts,
    bootstrap_intervals,
    count_images,
    percentile_interval,
    ratios,
    resample_weights,
    summarize,
)

NAMES = ["background", "nail"]


def logits_of(prediction: torch.Tensor, n_classes: int = 2) -> torch.Tensor:
    """Logits whose argmax is the prediction."""
    return 4.0 * torch.nn.functional.one_hot(prediction, n_classes).permute(0, 3, 1, 2).float()


def counts_of(prediction: torch.Tensor, target: torch.Tensor, n_classes: int = 2) -> ImageCounts:
    return count_images(logits_of(prediction, n_classes), target, torch.arange(len(target)))


def blobs(n: int, n_classes: int = 2, seed: int = 0, side: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and truths, int64 (n, side, side), of a few squares each; some pixels are 255."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, n, side, side), np.int64)
    for image in range(n):
        for _ in range(rng.integers(0, 5)):
            top, left, size = *rng.integers(0, side - 10, 2), rng.integers(3, 12)
            c, shift = rng.integers(1, n_classes), rng.integers(-2, 3)
            masks[0, image, top : top + size, left : left + size] = c
            masks[1, image, max(0, top + shift) : top + shift + size, left : left + size] = c
    masks[1, :, :2] = 255
    return torch.from_numpy(masks[0]), torch.from_numpy(masks[1])


def test_averages_match_their_names() -> None:
    target = torch.zeros(3, 8, 8, dtype=torch.long)
    target[0, :2] = 1  # 16 pixels
    target[1, :1] = 1  # 8 pixels, and the third image has none
    prediction = target.clone()
    prediction[1, 0, 4:] = 0  # half of the second image's found
    prediction[2, 0, 0] = 1  # a false alarm in the third
    summary = summarize(counts_of(prediction, target), NAMES)
    expected = {
        "n_images": 3,
        "iou_nail": 20 / 25,
        "dice_nail": 40 / 45,
        "precision_nail": 20 / 21,
        "recall_nail": 20 / 24,
        "dice_per_image_nail": (1 + 2 * 4 / 12) / 2,
        "n_images_with_nail": 2,
        "n_false_alarms_nail": 1,
        "miou": (20 / 25 + (3 * 64 - 25) / (3 * 64 - 20)) / 2,
        "pixel_accuracy": (3 * 64 - 5) / (3 * 64),
        # the half nail has an IoU of exactly 0.5, which counts
        "instance_precision_nail": 2 / 3,
        "instance_recall_nail": 1.0,
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected)


def test_none_where_a_class_is_absent() -> None:
    empty = torch.zeros(2, 6, 6, dtype=torch.long)
    counts = counts_of(empty, empty)
    summary = summarize(counts, NAMES)
    assert summary["miou"] == summary["pixel_accuracy"] == 1.0
    absent = {name for name, value in summary.items() if value is None}
    assert absent == {name for name in summary if name.endswith("_nail") and not name.startswith("n_")}
    assert summary["n_images_with_nail"] == summary["n_false_alarms_nail"] == 0
    assert all(bootstrap_intervals(counts, NAMES, [0, 1])[name] is None for name in absent)


def test_all_pixels_ignored_gives_none() -> None:
    target = torch.full((1, 6, 6), 255)
    summary = summarize(counts_of(torch.ones(1, 6, 6, dtype=torch.long), target), NAMES)
    assert summary["dice_nail"] is None
    assert summary["n_false_alarms_nail"] == 0


@pytest.mark.parametrize("n_images", [7, 8, 13])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_any_division_gives_the_same_counts(n_images: int, world_size: int, batch: int) -> None:
    from nailseg.data.samplers import EqualSizeSampler

    prediction, target = blobs(n_images, 3)
    logits = logits_of(prediction, 3) + torch.randn(
        n_images, 3, 48, 48, generator=torch.Generator().manual_seed(1)
    )
    whole = count_images(logits, target, torch.arange(n_images))
    parts = []
    for rank in reversed(range(world_size)):
        for rows in EqualSizeSampler([(48, 48)] * n_images, batch, world_size, rank):
            parts.append(count_images(logits[rows], target[rows], torch.tensor(rows)))
    joined = ImageCounts.concatenate(parts)
    for field in ("row", "matrix", "outlines", "histogram"):
        assert torch.equal(getattr(joined, field), getattr(whole, field)), field
    names = ["background", "nail", "ring"]
    assert summarize(joined, names) == summarize(whole, names)


def test_weights_repeat_images() -> None:
    counts = counts_of(*blobs(6))
    weights = np.array([[2, 0, 1, 0, 3, 0]])
    again = counts.select([0, 0, 2, 4, 4, 4])
    expected = ratios(again, NAMES, np.ones((1, 6), np.int64))
    for name, value in ratios(counts, NAMES, weights).items():
        assert value == pytest.approx(expected[name], nan_ok=True), name


def test_intervals_hold_the_number_and_do_not_depend_on_the_order() -> None:
    counts = counts_of(*blobs(12))
    summary = summarize(counts, NAMES)
    found = bootstrap_intervals(counts, NAMES, range(12))
    for name, (low, high) in found.items():
        assert low <= summary[name] <= high, name
    turned = ImageCounts.concatenate([counts.select([n]) for n in range(12)])
    order = [5, 3, 11, 0, 1, 2, 4, 6, 7, 8, 9, 10]
    shuffled = turned.select(order)
    assert bootstrap_intervals(shuffled, NAMES, [order.index(n) for n in range(12)]) == found
    assert bootstrap_intervals(counts, NAMES, range(12), seed=1) != found


def test_calibration_reports_the_threshold_chosen_before() -> None:
    prediction, target = blobs(5)
    counts = counts_of(prediction, target)
    found = summarize_calibration(counts.histogram, NAMES, 0.5)["nail"]
    summary = summarize(counts, NAMES)
    assert found["threshold_dice"] == pytest.approx(summary["dice_nail"])
    assert found["best_threshold_dice"] >= found["threshold_dice"]
    assert sum(part["share"] for part in found["reliability"]) == pytest.approx(1)
    assert "threshold" not in summarize_calibration(counts.histogram, NAMES, None)["nail"]


def test_no_counted_pixels_gives_no_calibration_error() -> None:
    target = torch.full((1, 6, 6), 255)
    counts = counts_of(torch.ones(1, 6, 6, dtype=torch.long), target)
    found = summarize_calibration(counts.histogram, NAMES, 0.5)["nail"]
    assert (found["ece"], found["best_threshold"], found["threshold_dice"]) == (None, None, None)


def test_precision_counts_more_than_100_components_but_average_precision_does_not() -> None:
    target = torch.zeros(1, 64, 64, dtype=torch.long)
    target[0, ::4, ::4] = 1  # 256 points
    prediction, logits = target.clone(), logits_of(target)
    logits[:, 1] += 0.01 * torch.arange(64)[None, :, None] * target  # no two rows of one score
    summary = summarize(count_images(logits, target, torch.arange(1)), NAMES)
    assert prediction.sum() == 256
    assert (summary["instance_precision_nail"], summary["instance_recall_nail"]) == (1, 1)
    assert summary["ap50_nail"] == pytest.approx(100 / 256, abs=0.01), "COCO's maxDets"


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


def test_interval_holds_its_share_of_the_values() -> None:
    assert percentile_interval(np.arange(1001)) == pytest.approx((25, 975))
    assert percentile_interval(np.arange(1001)[::-1], level=0.5) == pytest.approx((250, 750))


def test_interval_of_a_mean_matches_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = percentile_interval(resample_weights(400, 5000) @ values / 400)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_interval_leaves_nan_out() -> None:
    values = np.append(np.arange(101.0), [np.nan] * 50)
    assert percentile_interval(values) == percentile_interval(np.arange(101.0))
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()
    assert np.isnan(percentile_interval(np.array([]))).all()
