"""The test's report: metrics.json for programs, per_image.csv for spreadsheets, report.html for people."""

from __future__ import annotations

import base64
import csv
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from nailseg import overlay
from nailseg.metrics import dice, iou
from nailseg.predictor import Segmenter
from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from nailseg.data.datamodule import SegmentationDataModule
    from nailseg.data.dataset import SegmentationDataset
    from nailseg.task import SegmentationTask

GALLERY = 8  # pictures in each of worst, median, best
PICTURE_SIDE = 360  # pixels of the longer side in the gallery
# Okabe & Ito: hit bluish green, false alarm vermillion, miss sky blue
HIT, FALSE_ALARM, MISS = (0, 158, 115), (213, 94, 0), (86, 180, 233)

EXPLANATIONS = {
    "iou": "intersection over union, over all pixels of the set",
    "dice": "Dice (F1), over all pixels of the set",
    "dice_per_image": "mean Dice of the images that contain the class",
    "boundary_iou": "IoU of bands along the outlines, 2 % of the diagonal wide (Cheng et al. 2021)",
    "n_images_with": "images that contain the class",
    "n_false_alarms": "images without the class in which it was predicted",
    "miou": "mean IoU over all classes that occur, background included",
    "pixel_accuracy": "share of pixels with the right class",
    "n_images": "images",
}


def write_report(folder: Path, task: SegmentationTask, data: SegmentationDataModule, split: str) -> None:
    """Writes metrics.json, per_image.csv and report.html of the test that the task has just run.

    Args:
        folder: is created.
        task: with `summary` and `image_counts`, and the weights that were tested.
        data: whose split was tested.
        split: `val` or `test`.
    """
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(task.summary, indent=2) + "\n")
    table = per_image_table(task, data, split)
    with (folder / "per_image.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    (folder / "report.html").write_text(_page(task, data.dataset(split), table, split))


def per_image_table(task: SegmentationTask, data: SegmentationDataModule, split: str) -> list[dict[str, Any]]:
    """One row per image: its paths and group, and each foreground class's Dice, IoU and pixel counts.

    Dice and IoU are None where neither truth nor prediction has the class.
    """
    rows, counts = data.rows(split), task.image_counts
    dices, ious = dice(counts.matrix), iou(counts.matrix)
    table = []
    for position, row in enumerate(counts.row.tolist()):
        entry: dict[str, Any] = {"image": rows[row].image, "mask": rows[row].mask, "group": rows[row].group}
        for c, name in enumerate(task.class_names):
            if c == 0:
                continue
            matrix = counts.matrix[position]
            hit = int(matrix[c, c])
            entry |= {
                f"dice_{name}": _rounded(dices[position, c].item()),
                f"iou_{name}": _rounded(ious[position, c].item()),
                f"hits_{name}": hit,
                f"false_alarms_{name}": int(matrix[:, c].sum()) - hit,
                f"misses_{name}": int(matrix[c, :].sum()) - hit,
            }
        table.append(entry)
    return table


def summary_table(summary: dict[str, Any]) -> str:
    """The summary as aligned lines of text, counts last."""
    lines = [(k, f"{v:.4f}") for k, v in summary.items() if isinstance(v, float)]
    lines += [(k, "class absent") for k, v in summary.items() if v is None]
    lines += [(k, str(v)) for k, v in summary.items() if isinstance(v, int)]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)


def compare_masks(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The picture in grey with hits, false alarms and misses painted over it.

    Args:
        image: uint8 (H, W, 3), RGB.
        truth: uint8 (H, W), class index or 255, which stays unpainted.
        prediction: uint8 (H, W), class index.

    Returns:
        uint8 (H, W, 3), RGB. A wrong foreground class counts as a false alarm.
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    counted = truth != IGNORE_INDEX
    kinds = {
        HIT: (truth == prediction) & (truth > 0),
        FALSE_ALARM: (truth != prediction) & (prediction > 0),
        MISS: (truth > 0) & (prediction == 0),
    }
    for color, region in kinds.items():
        painted = region & counted
        grey[painted] = np.rint(0.35 * grey[painted] + 0.65 * np.array(color)).astype(np.uint8)
    return grey


def _page(
    task: SegmentationTask, dataset: SegmentationDataset, table: list[dict[str, Any]], split: str
) -> str:
    segmenter = Segmenter(task.network, task.info(), task.device)
    score = [_mean_dice(entry, task.class_names) for entry in table]
    # images where nothing was to be found and nothing was found have no score; they say nothing here
    ranked = [
        p
        for p in np.argsort([np.inf if s is None else s for s in score], kind="stable")
        if score[p] is not None
    ]
    middle = max(0, len(ranked) // 2 - GALLERY // 2)
    galleries = {
        "Worst": ranked[:GALLERY],
        "Median": ranked[middle : middle + GALLERY],
        "Best": ranked[-GALLERY:][::-1],
    }
    sections = []
    for title, positions in galleries.items():
        figures = [
            _figure(segmenter, dataset, table[p], int(task.image_counts.row[p]), score[p]) for p in positions
        ]
        sections.append(f"<h2>{title}</h2>\n<div class=gallery>\n{''.join(figures)}</div>")
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td class=number>{_shown(value)}<td>{html.escape(_explained(name))}"
        for name, value in task.summary.items()
        if name != "classes"
    )
    legend = "".join(
        f"<span class=key style='background:rgb{color}'></span>{text} "
        for text, color in (("hit", HIT), ("false alarm", FALSE_ALARM), ("miss", MISS))
    )
    return PAGE.format(
        title=f"nailseg: {split}",
        intro=f"{len(table)} images of the split <b>{split}</b>, at the masks' original size.",
        rows=rows,
        legend=legend,
        galleries="\n".join(sections),
    )


def _mean_dice(entry: dict[str, Any], class_names: list[str]) -> float | None:
    values = [entry[f"dice_{name}"] for name in class_names[1:] if entry[f"dice_{name}"] is not None]
    return sum(values) / len(values) if values else None


def _figure(
    segmenter: Segmenter, dataset: SegmentationDataset, entry: dict[str, Any], row: int, score: float | None
) -> str:
    image, truth = dataset.read(row)
    painted = compare_masks(image, truth, segmenter(image).mask)
    pair = overlay.side_by_side([_small(image), _small(painted)])
    encoded = cv2.imencode(".jpg", pair[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    source = base64.b64encode(encoded.tobytes()).decode()
    return (
        f"<figure><img loading=lazy src='data:image/jpeg;base64,{source}' alt=''>"
        f"<figcaption>{html.escape(entry['image'])}<br>Dice {score:.3f}</figcaption></figure>\n"
    )


def _small(image: np.ndarray) -> np.ndarray:
    scale = min(1.0, PICTURE_SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _shown(value: Any) -> str:
    if value is None:
        return "class absent"
    return f"{value:.4f}" if isinstance(value, float) else html.escape(str(value))


def _explained(name: str) -> str:
    # the longest prefix: dice_per_image before dice
    return next(
        (EXPLANATIONS[k] for k in sorted(EXPLANATIONS, key=len, reverse=True) if name.startswith(k)), ""
    )


PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color:
#222; }} table {{ border-collapse: collapse; }} td {{ padding: .2rem .8rem .2rem 0; border-bottom: 1px solid
#ddd; }} .number {{ font-variant-numeric: tabular-nums; text-align: right; }}
.gallery {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }} img {{ width: 100%; border-radius: 4px; }}
figcaption {{ font-size: .85rem; overflow-wrap: anywhere; }}
.key {{ display: inline-block; width: 1em; height: 1em; margin: 0 .3em 0 1em; vertical-align: -.1em; }}
</style>
<h1>{title}</h1>
<p>{intro}</p>
<table>{rows}</table>
<p>In the pictures: {legend}</p>
{galleries}
</html>
"""
