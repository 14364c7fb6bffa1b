"""Single nails: is each one found, and is each one that was found real? COCO's numbers from semantic masks.

An instance is a connected component (8 neighbours) of a class's region, so nails that touch count as one.
Images are matched once; average precision and the rest follow from what is pooled over them, also for a
bootstrap that draws images again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from nailseg.types import IGNORE_INDEX

IOU_LEVELS = np.linspace(0.5, 0.95, 10)  # COCO's, the same floats
SCORED = 100  # COCO's maxDets: of each image only so many components enter average precision, by score
COUNTED = 1000  # and only so many any number: a network of noise must not fill the memory


@dataclass(frozen=True)
class Instances:
    """The components of one class in one image, and which of them are right.

    Attributes:
        score: float32 (P,), 0..1, mean probability of the class over the component, descending; P <= 1000.
        hit: bool (P, 10), the component has a partner in the truth at IoU 0.50, 0.55 .. 0.95.
        area: int64 (P,), in pixels.
        truth_area: int64 (G,), in pixels.
        found: bool (G, 10), the true component has a partner at those IoUs.
    """

    score: np.ndarray
    hit: np.ndarray
    area: np.ndarray
    truth_area: np.ndarray
    found: np.ndarray


def match_instances(prediction_mask: np.ndarray, probability: np.ndarray, truth: np.ndarray) -> Instances:
    """Pairs the components of a predicted and a true region, as COCOeval does (segm, area range all).

    Args:
        prediction_mask: bool or 0/1 (H, W), the pixels predicted as the class.
        probability: float (H, W), 0..1, of the class.
        truth: integer (H, W), 1 the class, 0 not, 255 ignored: taken out of the prediction first.

    Returns:
        The components by descending score; ties stay in the order OpenCV labels them.
    """
    truth = np.asarray(truth, np.uint8)
    predicted, true = (np.asarray(prediction_mask) > 0) & (truth != IGNORE_INDEX), truth == 1
    x, y, width, height = cv2.boundingRect((predicted | true).view(np.uint8))
    box = slice(y, y + height), slice(x, x + width)
    labels, area = components(predicted[box])
    true_labels, truth_area = components(true[box])
    total = np.bincount(labels.ravel(), np.asarray(probability)[box].ravel(), len(area) + 1)[1:]
    score = (total / area).astype(np.float32)
    best = np.argsort(-score, kind="stable")[:COUNTED]
    score, area = score[best], area[best]
    # number the components by rank, those past the limit as background: the table of pairs stays small
    rank = np.zeros(len(total) + 1, np.int64)
    rank[best + 1] = np.arange(1, len(best) + 1)
    pair = rank[labels] * (len(truth_area) + 1) + true_labels
    table = np.bincount(pair.ravel(), minlength=(len(best) + 1) * (len(truth_area) + 1))
    shared = table.reshape(len(best) + 1, -1)[1:, 1:]
    iou = shared / (area[:, None] + truth_area - shared)
    # Two components of one mask never touch, so at IoU 0.5 or more no component has a second partner, and
    # COCO's greedy search by score finds just these pairs (Kirillov et al. 2019, Panoptic Segmentation).
    hit, found = (iou.max(axis, initial=0)[:, None] >= IOU_LEVELS for axis in (1, 0))
    return Instances(score, hit, area, truth_area, found)


def average_precision(
    score: np.ndarray, hit: np.ndarray, n_truth: int, weight: np.ndarray | None = None
) -> np.ndarray:
    """COCO's average precision: the mean of the highest precision at 101 levels of recall.

    Args:
        score: (M,), of the predictions of all images, one image after the other; COCO takes 100 of each.
        hit: bool (M, 10), of `Instances`.
        n_truth: true components of all images, each as often as its image counts.
        weight: integer (M,), how often the image of each prediction counts; 1 when None.

    Returns:
        float64 (10,), AP at IoU 0.50, 0.55 .. 0.95; its mean is COCO's AP. nan without truth.
    """
    if n_truth == 0:
        return np.full(len(IOU_LEVELS), np.nan)
    _, right, n = _by_score(score, hit, weight)
    # epsilon as COCOeval adds it; the last row answers the recalls that are never reached
    precision = np.vstack([right / (n[:, None] + np.spacing(1)), np.zeros(len(IOU_LEVELS))])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    levels = np.linspace(0, 1, 101)
    columns = zip((right / n_truth).T, envelope.T, strict=True)
    return np.array([envelope[np.searchsorted(recall, levels)].mean() for recall, envelope in columns])


class PrecisionRecall(NamedTuple):
    """Precision and recall at IoU 0.5: of all components, and of those from `best_score` on; or nan."""

    precision: float
    recall: float
    best_score: float
    best_precision: float
    best_recall: float


def precision_recall(
    score: np.ndarray, hit: np.ndarray, n_truth: int, weight: np.ndarray | None = None
) -> PrecisionRecall:
    """Precision and recall of all components, and at the score with the best F1.

    The second pair is what ultralytics reports; there F1 is smoothed over 1000 scores, here it is exact.

    Args:
        score: as for `average_precision`.
        hit: as for `average_precision`.
        n_truth: as for `average_precision`.
        weight: as for `average_precision`.

    Returns:
        The five numbers; of several scores with the same F1 the highest.
    """
    score, right, n = _by_score(score, hit, weight)
    # components of one score come and go together, those of no weight count nowhere
    last = np.flatnonzero((np.diff(score, append=-1) != 0) & (n > 0))
    if len(last) == 0:
        recall = 0.0 if n_truth else np.nan
        return PrecisionRecall(np.nan, recall, np.nan, np.nan, recall)
    score, right, n = score[last], right[last, 0], n[last]
    best = int(np.argmax(2 * right / (n + n_truth)))
    precision, recall = right / n, right / n_truth if n_truth else np.full(len(n), np.nan)
    pairs = (float(precision[-1]), float(recall[-1])), (float(precision[best]), float(recall[best]))
    return PrecisionRecall(*pairs[0], float(score[best]), *pairs[1])


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels connected components (8 neighbours) of a mask, bool or uint8 0/1 (H, W).

    Returns:
        Labels int32 (H, W), 0 outside, and the pixels of each label from 1 on, int64.
    """
    if mask.size == 0:
        return np.zeros(mask.shape, np.int32), np.zeros(0, np.int64)
    image = np.ascontiguousarray(mask).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=8, ltype=cv2.CV_32S)
    return labels, stats[1:, cv2.CC_STAT_AREA].astype(np.int64)


def _by_score(
    score: np.ndarray, hit: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores in descending order (stable), and down to each the right (M, 10) and all (M,) components."""
    order = np.argsort(-score, kind="stable")
    weight = np.ones(len(score), np.int64) if weight is None else weight[order]
    return score[order], (hit[order] * weight[:, None]).cumsum(0), weight.cumsum()
