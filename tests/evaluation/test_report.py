import numpy as np
import pytest
import torch

from nailseg.data.manifest import Row
from nailseg.evaluation import html, plots, report, report_tables
from nailseg.metrics.image_counts import count_images


def test_compare_masks_paints_hits_false_alarms_and_misses() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    truth = np.array([[1, 1, 0, 255]] * 4, np.uint8)
    prediction = np.array([[1, 0, 1, 1]] * 4, np.uint8)
    painted = html.compare_masks(image, truth, prediction)[0]
    expected = [np.rint(0.65 * np.array(color)) for color in (html.HIT, html.MISS, html.FALSE_ALARM)]
    assert (painted[:3] == expected).all()
    assert (painted[3] == 0).all(), "ignored pixels stay unpainted"


def test_summary_table_shows_every_number() -> None:
    text = report.summary_table({"n_images": 3, "classes": ["a", "b"], "dice_b": 0.25, "iou_b": None})
    assert "dice_b    0.2500" in text
    assert "iou_b     class absent" in text
    nothing = {
        "n_images": 3,
        "precision_b": None,
        "instance_precision_b": None,
        "recall_b": None,
        "miou": None,
    }
    words = dict(line.split(maxsplit=1) for line in report.summary_table(nothing).splitlines())
    assert words["precision_b"] == words["instance_precision_b"] == "nothing predicted"
    assert (words["recall_b"], words["miou"]) == ("class absent", "undefined")
    page = {"surface_tolerance": 2.0, "intervals": {}}
    assert "nothing predicted" in report_tables.number_row("precision_b", None, page)
    assert "n_images  3" in text


@pytest.mark.parametrize(
    ("name", "start"), [("dice_per_image_nail", "mean Dice of"), ("dice_nail", "Dice (F1)")]
)
def test_explanations_take_the_longest_prefix(name: str, start: str) -> None:
    row = report_tables.number_row(name, 0.5, {"surface_tolerance": 2.0, "intervals": {name: [0.4, 0.6]}})
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


def test_a_slice_called_small_hides_no_other() -> None:
    target = torch.zeros(4, 8, 8, dtype=torch.long)
    counts = count_images(torch.stack([1.0 - target, target], 1), target, torch.arange(4))
    rows = [Row(f"{'small' if n % 2 else 'alice'}/{n}.jpg", None, "test", "") for n in range(4)]
    found = report.slices(counts, ["background", "nail"], rows, [(8, 8)] * 4)
    assert found["folder"] == {"alice": [0, 2], "small": [1, 3]}


def test_slices_of_three_classes_are_two_tables_and_few_images_are_grey() -> None:
    numbers = {"dice_nail": 0.25, "iou_nail": None, "dice_finger": 0.75}
    parts = {"a": {"n_images": 4} | numbers, "b": {"n_images": 5} | numbers}
    first, second = report_tables.slice_tables("group", parts, ["background", "finger", "nail"]).split(
        "</table>"
    )[:2]
    assert "group: finger" in first
    assert "0.750" in first
    assert "0.250" not in first
    assert "group: nail" in second
    assert "0.250" in second
    assert first.count("<tr class=few>") == 1


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 1), (7, 2), (23, 7), (24, 8), (100, 8)])
def test_no_picture_stands_twice_in_the_gallery(n: int, size: int) -> None:
    shown = html.galleries(list(range(n)))
    assert [len(part) for part in shown.values()] == [size] * 3
    assert n < 3 or len({p for part in shown.values() for p in part}) == 3 * size
    assert (shown["Worst"][0], shown["Best"][0]) == (0, n - 1)


def test_thresholds_and_best_f1_are_told() -> None:
    known = {"best_threshold": 0.41, "best_threshold_dice": 0.912}
    best = {"score": 0.62, "precision": None, "recall": 0.0}
    chosen = {"calibration": {"nail": known | {"threshold": 0.37, "threshold_dice": 0.9}}}
    page = report_tables.decisions(chosen | {"instances_at_best_f1": {"nail": best}})
    assert "0.370<td>Dice 0.900" in page
    assert "0.410<td>Dice 0.912" in page
    assert "0.620<td>precision undefined, recall 0.000" in page
    unchosen = report_tables.decisions(
        {"calibration": {"nail": known}, "instances_at_best_f1": {"nail": best}}
    )
    assert "validation" not in unchosen


def test_drawings_stand_alone_and_count_whole_epochs(tmp_path) -> None:
    table = tmp_path / "metrics.csv"
    table.write_text("epoch,train/loss,val/loss,val/dice_nail\n0,1,1,0.1\n1,0.5,0.6,0.4\n")
    text = plots.training_curves(table)
    assert text.count("<svg") == 2
    assert ">1.5<" not in text, "no half epochs"
    nothing = {"ece": None, "reliability": []}
    assert plots.reliability_diagram({"nail": nothing, "finger": nothing}).count("<svg") == 2
