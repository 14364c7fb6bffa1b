import re
from html import unescape
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import ImageColor

from nailseg.data.manifest import Row
from nailseg.evaluation import html
from nailseg.evaluation.per_image import image_table
from nailseg.metrics.calibration import summarize_calibration
from nailseg.metrics.image_counts import bootstrap_intervals, count_images, summarize, summarize_instances

NAMES = ["background", "finger", "<nail>", "ring"]
NUMBERS = {
    f"{key}_{name}": value
    for key in html.SLICE_NUMBERS
    for name, value in (("finger", 0.75), ("<nail>", 0.25), ("ring", None))
}


def text_of(page: str) -> str:
    """What a reader sees: no tags, no drawings, single spaces."""
    page = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]*>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", unescape(page))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """The report of four images of three classes."""
    target = torch.zeros(4, 40, 40, dtype=torch.long)
    target[0, 4:20, 4:20], target[1, 4:12, 4:12] = 1, 2
    logits = torch.nn.functional.one_hot(target.roll(2, -1), 4).permute(0, 3, 1, 2).float()
    counts = count_images(logits, target, torch.arange(4))
    tested = {
        "split": "test",
        "csv": "a.csv",
        "fingerprint": "f00",
        "model": "",
        "eval_size": 64,
        "resize": "keep",
    }
    metrics = summarize(counts, NAMES) | {
        "tested": tested | {"nailseg": "1.0", "allow": ["mask-empty"], "skip_bad": True},
        "surface_tolerance": 2.0,
        "intervals": bootstrap_intervals(counts, NAMES, range(4)),
        "calibration": summarize_calibration(counts.histogram, NAMES, 0.37),
        "instances_at_best_f1": summarize_instances(counts, NAMES),
        "confusion_matrix": counts.matrix.sum(0).tolist(),
        "slices": {"group": {"a": {"n_images": 4} | NUMBERS, "b": {"n_images": 5} | NUMBERS}},
    }
    table = image_table(counts, NAMES, [Row(f"{n}&.jpg", "m", "test", "") for n in range(4)])
    dataset = SimpleNamespace(
        read=lambda n: (np.zeros((40, 40, 3), np.uint8), target[n].numpy().astype(np.uint8))
    )
    curves = tmp_path_factory.mktemp("run") / "metrics.csv"
    curves.write_text("epoch,train/loss,val/loss,val/dice_finger\n0,1,1,0.1\n1,0.5,0.6,0.4\n")
    segmenter = lambda image: SimpleNamespace(mask=np.zeros((40, 40), np.uint8))  # noqa: E731
    return html.render_report(metrics, table, segmenter, dataset, curves)


def test_page_states_what_was_tested(page: str) -> None:
    assert "4 images of the split test , at the masks' original size" in text_of(page)
    tested = (
        "Tested: a.csv (fingerprint f00); model not named; 64 pixels (keep); nailseg 1.0; issues allowed: "
    )
    assert f"{tested}mask-empty; rows with errors left out." in text_of(page)


def test_page_explains_numbers_by_the_longest_prefix(page: str) -> None:
    assert (
        "dice_per_image_finger mean Dice of the images that contain the class 0.8750 [0.875, 0.875]"
        in text_of(page)
    )
    assert "dice_finger Dice (F1), over all pixels of the set 0.8750 [0.875, 0.875]" in text_of(page)
    assert "surface_dice_finger share of both outlines that lie within 2 pixels" in text_of(page)


def test_page_states_why_a_number_is_missing(page: str) -> None:
    assert "ring share of the pixels found that are right nothing predicted" in text_of(page)
    assert "recall_ring share of the class's pixels that are found class absent" in text_of(page)
    assert html.explain_none("miou") == "undefined"


def test_slices_of_three_classes_are_two_tables_and_few_images_are_grey(page: str) -> None:
    first, second = page[page.index("<h2>Slices") :].split("</table>")[:2]
    assert "group: finger" in first
    assert "0.750" in first
    assert "0.250" not in first
    assert "group: &lt;nail&gt;" in second
    assert "0.250" in second
    assert first.count("<tr class=few>") == 1


def test_thresholds_and_best_f1_are_shown(page: str) -> None:
    text = text_of(page)
    assert "finger: threshold chosen on the validation part 0.370 Dice 0.875" in text
    assert re.search(r"finger: best threshold on this set 0.\d{3} Dice 0.875", text)
    assert re.search(
        r"finger: components from the score with the best F1 0.\d{3} precision 1.000, recall 1.000", text
    )


def test_confusion_matrix_has_shares_of_the_true_class(page: str) -> None:
    assert "finger 32 12.50% 224 87.50% 0 0.00%" in text_of(page)


def test_page_has_drawings_and_a_gallery(page: str) -> None:
    assert page.count("<svg") == 2 + 3, "losses, Dice, and the reliability of three classes"
    assert page.count("<figure>") == 3
    assert "0&.jpg finger: Dice 0.875, found 1 of 1, wrong 0 <nail>: Dice absent" in text_of(page)


def test_paint_errors_paints_hits_false_alarms_and_misses() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    truth = np.array([[1, 1, 0, 255]] * 4, np.uint8)
    prediction = np.array([[1, 0, 1, 1]] * 4, np.uint8)
    painted = html.paint_errors(image, truth, prediction)[0]
    colors = [ImageColor.getrgb(color) for color in (html.HIT, html.MISS, html.FALSE_ALARM)]
    expected = [np.rint(html.ERROR_OPACITY * np.array(color)) for color in colors]
    assert (painted[:3] == expected).all()
    assert (painted[3] == 0).all(), "ignored pixels stay unpainted"


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 1), (7, 2), (23, 7), (24, 8), (100, 8)])
def test_no_image_is_twice_in_the_gallery(n: int, size: int) -> None:
    shown = html.galleries(list(range(n)))
    assert [len(part) for part in shown.values()] == [size] * 3
    assert n < 3 or len({p for part in shown.values() for p in part}) == 3 * size
    assert (shown["Worst"][0], shown["Best"][0]) == (0, n - 1)
