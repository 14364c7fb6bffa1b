import numpy as np
import pytest

from nailseg import report, report_page


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
    assert f"<td>{start}" in row
    assert "[0.400, 0.600]" in row
