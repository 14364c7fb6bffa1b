import numpy as np
import pytest
import torch

from nailseg import report, report_page
from nailseg.data.manifest import Row
from nailseg.summary import count_images


def test_compare_masks_paints_hits_false_alarms_and_misses() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    truth = np.array([[1, 1, 0, 255]] * 4, np.uint8)
    prediction = np.array([[1, 0, 1, 1]] * 4, np.uint8)
    painted = report_page.compare_masks(image, truth, prediction)[0]
    expected = [
        np.rint(0.65 * np.array(color))
        for color in (report_page.HIT, report_page.MISS, report_page.FALSE_ALARM)
    ]
    assert (painted[:3] == expected).all()
    assert (painted[3] == 0).all(), "ignored pixels stay unpainted"


def test_summary_table_shows_every_number() -> None:
    text = report.summary_table({"n_images": 3, "classes": ["a", "b"], "dice_b": 0.25, "iou_b": None})
    assert "dice_b    0.2500" in text
    assert "iou_b     class absent" in text
    assert "n_images  3" in text


@pytest.mark.parametrize(
    ("name", "start"), [("dice_per_image_nail", "mean Dice of"), ("dice_nail", "Dice (F1)")]
)
def test_explanations_take_the_longest_prefix(name: str, start: str) -> None:
    row = report_page._row(name, 0.5, {"surface_tolerance": 2.0, "intervals": {name: [0.4, 0.6]}})
    assert f"<small class=meaning>{start}" in row
    assert "[0.400, 0.600]" in row


def test_slices_divide_the_images() -> None:
    sides = [4, 40, 120, 0]  # one nail each, of that side
    target = torch.zeros(4, 150, 150, dtype=torch.long)
    for n, side in enumerate(sides):
        target[n, :side, :side] = 1
    logits = 4.0 * torch.stack([1 - target, target], 1)
    counts = count_images(logits, target, torch.arange(4))
    rows = [Row(f"Images/{n % 2}/{n}.jpg", None, "test", "twins" if n < 2 else str(n)) for n in range(4)]
    names = ["background", "nail"]
    found = report.slices(counts, names, rows, [(150, 150)] * 4)
    assert found == {
        "folder": {"Images/0": [0, 2], "Images/1": [1, 3]},
        "size of nail": {"small": [0], "medium": [1], "large": [2]},
    }
    many = [Row(f"{n}.jpg", None, "test", "a" if n < 5 else "b" if n < 11 else "c") for n in range(14)]
    counts = counts.select([0, 1, 2, 3] * 3 + [0, 1])
    found = report.slices(counts, names, many, [(10 + n, 10) for n in range(14)])
    assert found["group"] == {"a": [0, 1, 2, 3, 4], "b": [5, 6, 7, 8, 9, 10]}, "c is too small"
    assert list(found["image size"]) == ["smallest third", "middle third", "largest third"]
    assert sorted(n for part in found["image size"].values() for n in part) == list(range(14))
    numbers = report.slice_numbers(counts, names, {"group": {"a": [0, 1], "empty": [3]}})["group"]
    assert numbers["a"]["n_images"] == 2
    assert numbers["a"]["dice_nail"] == 1.0
    assert numbers["empty"]["dice_nail"] is None
