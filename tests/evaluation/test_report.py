import torch

from nailseg.data.manifest import Row
from nailseg.evaluation import report
from nailseg.metrics.image_counts import count_images


def test_summary_table_shows_every_number() -> None:
    text = report.summary_table({"n_images": 3, "classes": ["a", "b"], "dice_b": 0.25, "iou_b": None})
    assert "dice_b    0.2500" in text
    assert "iou_b     class absent" in text
    assert "n_images  3" in text
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


def test_slices_divide_the_images() -> None:
    sides = [4, 40, 120, 0]  # one nail each, of that side
    target = torch.zeros(4, 150, 150, dtype=torch.long)
    for n, side in enumerate(sides):
        target[n, :side, :side] = 1
    logits = 4.0 * torch.stack([1 - target, target], 1)
    counts = count_images(logits, target, torch.arange(4))
    rows = [Row(f"Images/{n % 2}/{n}.jpg", None, "test", "pair" if n < 2 else str(n)) for n in range(4)]
    names = ["background", "nail"]
    found = report.find_slices(counts, names, rows, [(150, 150)] * 4)
    assert found == {
        "folder": {"Images/0": [0, 2], "Images/1": [1, 3]},
        "size of nail": {"small": [0], "medium": [1], "large": [2]},
    }
    many = [Row(f"{n}.jpg", None, "test", "a" if n < 5 else "b" if n < 11 else "c") for n in range(14)]
    counts = counts.select([0, 1, 2, 3] * 3 + [0, 1])
    found = report.find_slices(counts, names, many, [(10 + n, 10) for n in range(14)])
    assert found["group"] == {"a": [0, 1, 2, 3, 4], "b": [5, 6, 7, 8, 9, 10]}, "c is too small"
    assert list(found["image size"]) == ["smallest third", "middle third", "largest third"]
    assert sorted(n for part in found["image size"].values() for n in part) == list(range(14))
    numbers = report.summarize_slices(counts, names, {"group": {"a": [0, 1], "empty": [3]}})["group"]
    assert numbers["a"]["n_images"] == 2
    assert numbers["a"]["dice_nail"] == 1.0
    assert numbers["empty"]["dice_nail"] is None


def test_a_folder_called_small_is_sorted_among_the_folders() -> None:
    target = torch.zeros(4, 8, 8, dtype=torch.long)
    counts = count_images(torch.stack([1.0 - target, target], 1), target, torch.arange(4))
    rows = [Row(f"{'small' if n % 2 else 'alice'}/{n}.jpg", None, "test", "") for n in range(4)]
    found = report.find_slices(counts, ["background", "nail"], rows, [(8, 8)] * 4)
    assert found["folder"] == {"alice": [0, 2], "small": [1, 3]}


def test_evaluation_imports_no_training() -> None:
    """The report takes results and a segmenter; only the command line knows the task."""
    import subprocess
    import sys

    code = "import sys, nailseg.evaluation.report, nailseg.evaluation.wandb; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "nailseg.evaluation.html" in loaded
    assert "nailseg.training" not in loaded
