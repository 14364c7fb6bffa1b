import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from nailseg.metrics.instances import (
    COUNTED,
    SCORED,
    Instances,
    average_precision,
    best_f1,
    match_instances,
)

Image = tuple[np.ndarray, np.ndarray, np.ndarray]  # predicted mask, probability, truth
SHAPE = (70, 90)


def scene(seed: int, empty: str = "", noise: float = 0.0) -> Image:
    """Nails by the truth, and the same moved, missed, joined or invented by the prediction."""
    rng = np.random.default_rng(seed)
    predicted, truth = np.zeros((2, *SHAPE), np.uint8)
    for _ in range(9):
        x, y, a, b, dx, dy, da = rng.integers((0, 0, 2, 2, -1, -1, -1), (90, 70, 12, 12, 2, 2, 2)).tolist()
        if rng.random() < 0.8:
            cv2.ellipse(truth, (x, y), (a, b), 0, 0, 360, 1, -1)
        if rng.random() < 0.8:
            cv2.ellipse(predicted, (x + dx, y + dy), (a + da, b), 0, 0, 360, 1, -1)
    predicted ^= (rng.random(SHAPE) < noise).astype(np.uint8)
    truth[rng.random(SHAPE) < 0.02] = 255
    predicted, truth = predicted * (empty != "prediction"), truth * np.uint8(empty != "truth")
    return predicted, rng.random(SHAPE, np.float32), truth


def image_of(predicted: list[str], truth: list[str], probability: float | None = None) -> Image:
    masks = [(np.array([list(row) for row in rows]) == "#").astype(np.uint8) for rows in (predicted, truth)]
    ramp = np.linspace(0.9, 0.5, masks[0].size, dtype=np.float32).reshape(masks[0].shape)
    return masks[0], ramp if probability is None else ramp * 0 + np.float32(probability), masks[1]


def coco_precision(images: list[Image]) -> np.ndarray:
    """Precision (10, 101) by COCOeval, from components that SciPy finds."""
    truths, predictions, truth_set, prediction_set = [], [], COCO(), COCO()
    for number, (predicted, probability, truth) in enumerate(images, 1):
        for mask, found in ((truth == 1, truths), ((predicted > 0) & (truth != 255), predictions)):
            labels, n = ndimage.label(mask, np.ones((3, 3)))
            for component in (labels == i for i in range(1, n + 1)):
                code = coco_mask.encode(np.asfortranarray(component, np.uint8))
                score = float(np.float32(probability[component].mean(dtype=np.float64)))
                entry = {"image_id": number, "category_id": 1, "iscrowd": 0, "area": int(component.sum())}
                found.append(entry | {"id": len(found) + 1, "segmentation": code, "score": score})
    for data, annotations in ((truth_set, truths), (prediction_set, predictions)):
        sizes = [{"id": i, "height": len(m), "width": m.shape[1]} for i, (_, _, m) in enumerate(images, 1)]
        data.dataset = {"images": sizes, "annotations": annotations, "categories": [{"id": 1}]}
        data.createIndex()
    evaluation = COCOeval(truth_set, prediction_set, "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, 2]  # area all, maxDets 100


def pooled(images: list[Image], times: list[int] | None = None) -> tuple:
    found = [match_instances(*image, c=1) for image in images]
    times = times or [1] * len(found)
    score, hit = ([getattr(f, field)[:SCORED] for f in found] for field in ("score", "hit"))
    weight = np.repeat(times, [len(each) for each in score])
    n_truth = sum(len(f.truth_area) * t for f, t in zip(found, times, strict=True))
    return np.concatenate(score), np.concatenate(hit), n_truth, weight


SETS = {
    **{f"random {seed}": [scene(10 * seed + i) for i in range(4)] for seed in range(3)},
    "empty images among others": [
        scene(0, "truth"),
        scene(1, "prediction"),
        scene(2),
        image_of([".."], [".."]),
    ],
    "no prediction": [scene(3, "prediction")],
    "more than 100 predictions": [scene(4, noise=0.08), scene(5, noise=0.05)],
    "one score": [image_of(["##..##", "......", "#....."], ["##....", "......", "#...##"], 1.0)] * 20,
    "IoU exactly 0.5": [image_of(["##..#.", "##..##"], ["##..##", ".....#"])],
    "joined, divided, diagonal": [
        image_of(["######", "......", "##.###"], ["##.###", "......", "######"]),
        image_of(["#.....", ".#....", "..#..."], ["#.....", ".#....", "......"]),
    ],
    "full": [image_of(["######"] * 3, ["######"] * 3)],
    "255 everywhere": [scene(6), (scene(7)[0], scene(7)[1], np.full(SHAPE, 255))],
}


@pytest.mark.parametrize("case", SETS)
def test_average_precision_matches_cocoeval(case: str) -> None:
    found, expected = average_precision(*pooled(SETS[case])), coco_precision(SETS[case]).mean(1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert case == "no prediction" or found[0] > 0


def test_average_precision_without_truth_is_nan() -> None:
    assert np.isnan(average_precision(*pooled([scene(0, "truth")]))).all()


@pytest.mark.parametrize("times", [[2, 0, 3, 1], [0, 0, 1, 0], [0, 4, 0, 0]])
def test_weights_match_repeated_images(times: list[int]) -> None:
    images = SETS["random 1"]
    again = [image for image, t in zip(images, times, strict=True) for _ in range(t)]
    np.testing.assert_allclose(average_precision(*pooled(images, times)), average_precision(*pooled(again)))


def test_best_f1_by_hand() -> None:
    score, hit = np.array([0.9, 0.8, 0.7, 0.7, 0.1]), np.zeros((5, 10), bool)
    hit[[0, 2], 0] = True  # both of score 0.7 come together, the right and the wrong one
    area = np.array([9, 9])
    images = [Instances(score[:2], hit[:2], area), Instances(score[2:], hit[2:], area)]
    assert best_f1(images) == pytest.approx({"score": 0.7, "precision": 2 / 4, "recall": 2 / 4})
    nothing = Instances(score[:0], hit[:0], area)
    assert best_f1([nothing]) == {"score": None, "precision": None, "recall": 0.0}
    assert best_f1([Instances(score, hit, area[:0])])["recall"] is None


def test_instances_have_area_score_and_match() -> None:
    predicted, probability, truth = image_of(["##...#", "##...#"], ["##....", "##.##."])
    truth = np.where([[0, 1, 0, 0, 0, 0], [0] * 6], 255, truth)  # one of four pixels does not count
    found = match_instances(predicted, probability, truth, c=1)
    assert found.truth_area.tolist() == [3, 2]
    assert found.hit.all(1).tolist() == [True, False]
    assert found.score == pytest.approx([probability[[0, 1, 1], [0, 0, 1]].mean(), probability[:, 5].mean()])


def test_at_most_a_thousand_components_are_counted_by_score() -> None:
    points = np.zeros((90, 90), bool)
    points[::2, ::2] = True  # 2025 of them
    probability = np.linspace(0.5, 0.9, points.size).reshape(points.shape)
    found = match_instances(points, probability, points, c=1)
    assert len(found.score) == COUNTED == 1000
    assert found.hit.all()
    assert found.score.min() == pytest.approx(0.7, abs=0.01)
