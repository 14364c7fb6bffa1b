import cv2
import numpy as np
import pytest
import torch
from monai.metrics import compute_surface_dice

from nailseg.metrics.boundary import BOUNDARY_SHARE, boundary_band, count_outlines
from nailseg.metrics.confusion import confusion_matrix, iou

SHAPE = (40, 52)


def blobs(seed: int, n_classes: int = 2) -> torch.Tensor:
    """Blots of every class, some of them cut by the image border."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.uint8)
    for c in list(range(1, n_classes)) * 4:
        x, y, a, b, angle = (int(v) for v in rng.integers((0, 0, 1, 1, 0), (SHAPE[1], SHAPE[0], 9, 9, 180)))
        cv2.ellipse(mask, (x, y), (a, b), angle, 0, 360, c, -1)
    return torch.from_numpy(mask).long()


def frame(value: int, inside: int, width: int = 4) -> torch.Tensor:
    mask = torch.full(SHAPE, value)
    mask[width:-width, width:-width] = inside
    return mask


def pixel(y: int, x: int) -> torch.Tensor:
    mask = torch.zeros(SHAPE, dtype=torch.long)
    mask[y, x] = 1
    return mask


EMPTY, FULL = torch.zeros(SHAPE, dtype=torch.long), torch.ones(SHAPE, dtype=torch.long)
PAIRS = {
    "both empty": (EMPTY, EMPTY),
    "missed": (EMPTY, blobs(0)),
    "false alarm": (blobs(0), EMPTY),
    "both full": (FULL, FULL),
    "full and centre": (FULL, frame(0, 1, 2)),
    "ring along the border": (frame(1, 0), FULL),
    "pixels at a corner": (pixel(0, 0), pixel(1, 1)),
    "pixels far apart": (pixel(0, 0), pixel(39, 51)),
    "255 everywhere": (FULL, torch.full(SHAPE, 255)),
    "ignored frame": (FULL, frame(255, 1)),
    "ignored centre": (blobs(1), frame(1, 255, 12)),
    "noise": (blobs(2) ^ (torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.2), blobs(3)),
    "shifted": (blobs(4), blobs(4).roll((2, 1), (0, 1))),
    "three classes": (blobs(5, 3), blobs(5, 3).roll(2, 1)),
}


# MONAI 1.6.1 warns of an argument of its own
@pytest.mark.filterwarnings("ignore:.*get_mask_edges.always_return_as_numpy:FutureWarning")
@pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class:UserWarning")
@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3])
@pytest.mark.parametrize("case", PAIRS)
def test_surface_dice_matches_monai(case: str, tolerance: float) -> None:
    prediction, target = PAIRS[case]
    counts = count_outlines(prediction[None], target[None], 3, tolerance)[0, :, 2:]
    assert (counts[0] == 0).all()  # the background
    counted = target != 255
    one_hot = [torch.nn.functional.one_hot(m * counted, 3).movedim(-1, 0)[None] for m in (prediction, target)]
    expected = compute_surface_dice(*one_hot, [tolerance] * 2, include_background=False)[0]
    torch.testing.assert_close((counts[1:, 0] / counts[1:, 1]).float(), expected, equal_nan=True)


def test_surface_counts_by_hand() -> None:
    target = torch.zeros(1, 9, 9, dtype=torch.uint8)
    target[0, 2:5, 2:5] = 1  # contour: 8 pixels, all but the middle one
    prediction = target.roll(2, 2)  # columns 4..6
    # near are columns 3 (two pixels) and 4 (three) of the truth, 4 (three) and 5 (two) of the prediction
    assert count_outlines(prediction, target, 2, 1)[0, 1, 2:].tolist() == [10, 16]


@pytest.mark.parametrize("case", PAIRS)
def test_boundary_counts_are_independent_of_the_crop(case: str) -> None:
    prediction, target = PAIRS[case]
    width, counted = round(BOUNDARY_SHARE * float(np.hypot(*SHAPE))), target.numpy() != 255
    counts = count_outlines(prediction[None], target[None], 3, 0)[0, :, :2]
    for c in (1, 2):
        a, b = ((m == c).numpy().astype(np.uint8) for m in (prediction, target))
        a, b = ((m - erode_by_steps(m, width) > 0) & counted for m in (a, b))
        assert counts[c].tolist() == [(a & b).sum(), (a | b).sum()]
    assert (counts[0] == 0).all()


def erode_by_steps(mask: np.ndarray, width: int) -> np.ndarray:
    """Erosion written out: a pixel stays if all its neighbours in the square belong to the region."""
    height, length = mask.shape
    out = np.zeros_like(mask)
    for y in range(height):
        for x in range(length):
            window = [
                mask[v, u] if 0 <= v < height and 0 <= u < length else 0
                for v in range(y - width, y + width + 1)
                for u in range(x - width, x + width + 1)
            ]
            out[y, x] = min(window)
    return out


@pytest.mark.parametrize("width", [1, 2, 3])
def test_boundary_band_is_the_region_minus_its_erosion(width: int) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((14, 18), np.uint8)
    mask[:9, 5:] = 1  # touches two borders of the image
    mask[rng.integers(0, 14, 6), rng.integers(0, 18, 6)] = 0
    assert (boundary_band(mask, width) == mask - erode_by_steps(mask, width)).all()


def test_boundary_iou_is_one_for_equal_masks_and_lower_after_a_shift() -> None:
    target = torch.zeros(1, 200, 200, dtype=torch.long)
    target[:, 50:150, 50:150] = 1
    same = count_outlines(target, target, 2, 0)[0, 1]
    shifted = count_outlines(target.roll(3, 1), target, 2, 0)[0, 1]
    assert same[0] == same[1] > 0
    region = confusion_matrix(target.roll(3, 1), target, 2)[0]
    assert shifted[0] / shifted[1] < iou(region)[1]
