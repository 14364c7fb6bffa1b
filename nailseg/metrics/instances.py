"""Instance metrics from semantic masks: COCO's average precision, precision and recall of components.

An instance is a connected component (8 neighbours) of a class's region, so nails that touch count as one.
Each image is matched once; average precision follows from the pooled matches, for bootstrap weights too.
COCOeval and torchmetrics are not used: they store the masks of all images and cannot weight images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from nailseg.types import IGNORE_INDEX

IOU_LEVELS = np.linspace(0.5, 0.95, 10)  # COCO's, the same floats
SCORED = 100  # COCO's maxDets: components of an image that enter average precision, by score
COUNTED = 1000  # components of an image that enter any number: noise must not fill the memory


@dataclass(frozen=True)
class Instances:
    """The components of one class in one image, and which of them match the truth.

    Attributes:
        score: float32 (P,), 0..1, mean probability of the class over the component, descending; at most
            `COUNTED`.
        hit: bool (P, 10), the component matches a true one at IoU 0.50, 0.55 .. 0.95.
        truth_area: int64 (G,), pixels of the true components.
    """

    score: np.ndarray
    hit: np.ndarray
    truth_area: np.ndarray


def match_instances(prediction: np.ndarray, probability: np.ndarray, truth: np.ndarray, c: int) -> Instances:
    """Matches the predicted and true components of a class, as COCOeval does (segm, area range all).

    Args:
        prediction: integer (H, W), class index.
        probability: float (H, W), 0..1, of the class.
        truth: integer (H, W), class index or 255: taken out of the prediction first.
        c: index of the class.

    Returns:
        The components by descending score; ties stay in the order OpenCV labels them.
    """
    predicted, true = (prediction == c) & (truth != IGNORE_INDEX), truth == c
    x, y, width, height = cv2.boundingRect((predicted | true).view(np.uint8))
    box = slice(y, y + height), slice(x, x + width)
    labels, area = label_components(predicted[box])
    true_labels, truth_area = label_components(true[box])
    total = np.bincount(labels.ravel(), probability[box].ravel(), len(area) + 1)[1:]
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
    # Two components of one mask never touch, so at IoU 0.5 or more no component has a second match, and
    # COCO's greedy search by score finds just these pairs (Kirillov et al. 2019, Panoptic Segmentation).
    hit = iou.max(1, initial=0)[:, None] >= IOU_LEVELS
    return Instances(score, hit, truth_area)


def average_precision(score: np.ndarray, hit: np.ndarray, n_truth: int, weight: np.ndarray) -> np.ndarray:
    """COCO's average precision: the mean of the highest precision at 101 levels of recall.

    Args:
        score: (M,), of the predictions of all images, one image after the other; `SCORED` of each at most.
        hit: bool (M, 10), of `Instances`.
        n_truth: true components of all images, each weighted as its image.
        weight: integer (M,), of the image of each prediction.

    Returns:
        float64 (10,), AP at IoU 0.50, 0.55 .. 0.95; its mean is COCO's AP. nan without truth.
    """
    if n_truth == 0:
        return np.full(len(IOU_LEVELS), np.nan)
    order = np.argsort(-score, kind="stable")
    right, n = (hit * weight[:, None])[order].cumsum(0), weight[order].cumsum()
    # epsilon as COCOeval adds it; the last row answers the recalls that are never reached
    precision = np.vstack([right / (n[:, None] + np.spacing(1)), np.zeros(len(IOU_LEVELS))])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    levels = np.linspace(0, 1, 101)
    columns = zip((right / n_truth).T, envelope.T, strict=True)
    return np.array([envelope[np.searchsorted(recall, levels)].mean() for recall, envelope in columns])


def average_precisions(instances: Sequence[Instances], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP at IoU 0.5, and its mean over IoU 0.50 to 0.95, of one class for each weighting of the images.

    From the instances of N images and weights int64 (R, N), how often each image counts; both results are
    float64 (R,), nan without truth.
    """
    score = np.concatenate([i.score[:SCORED] for i in instances])
    hit = np.concatenate([i.hit[:SCORED] for i in instances])
    owner = np.repeat(np.arange(len(instances)), [len(i.score[:SCORED]) for i in instances])
    n_truth = weights @ np.array([len(i.truth_area) for i in instances])
    levels = [average_precision(score, hit, int(n), w[owner]) for n, w in zip(n_truth, weights, strict=True)]
    return np.array([level[0] for level in levels]), np.array([level.mean() for level in levels])


def best_f1(instances: Sequence[Instances]) -> dict[str, float | None]:
    """Precision and recall of one class at IoU 0.5 at the score threshold with the best F1 over all images.

    ultralytics reports the same; there F1 is smoothed over 1000 scores, here it is exact.

    Returns:
        `score` (of several with the same F1 the highest), `precision` and `recall`; None where undefined.

    >>> hit = np.array([[True], [False]])
    >>> best_f1([Instances(np.array([0.75, 0.5]), hit, truth_area=np.array([20]))])
    {'score': 0.75, 'precision': 1.0, 'recall': 1.0}
    """
    score = np.concatenate([i.score for i in instances])
    n_truth = sum(len(i.truth_area) for i in instances)
    if len(score) == 0:
        return {"score": None, "precision": None, "recall": 0.0 if n_truth else None}
    order = np.argsort(-score, kind="stable")
    score, right = score[order], np.concatenate([i.hit[:, 0] for i in instances])[order].cumsum()
    last = np.flatnonzero(np.diff(score, append=-1) != 0)  # components of one score come and go together
    right, n = right[last], last + 1
    best = int(np.argmax(2 * right / (n + n_truth)))
    recall = float(right[best] / n_truth) if n_truth else None
    return {"score": float(score[last[best]]), "precision": float(right[best] / n[best]), "recall": recall}


def label_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels connected components (8 neighbours) of a mask, bool or uint8 0/1 (H, W).

    Returns labels int32 (H, W), 0 outside, and the pixels of each label from 1 on, int64.
    """
    if mask.size == 0:
        return np.zeros(mask.shape, np.int32), np.zeros(0, np.int64)
    image = np.ascontiguousarray(mask).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=8, ltype=cv2.CV_32S)
    return labels, stats[1:, cv2.CC_STAT_AREA].astype(np.int64)
