"""report.html: one file that opens offline, with numbers, intervals, drawings and a gallery of images."""

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from nailseg.data.dataset import SegmentationDataset
from nailseg.evaluation import plots
from nailseg.imaging import overlay
from nailseg.imaging.figures import GREEN, SKY_BLUE, VERMILLION
from nailseg.inference.segmenter import Segmenter
from nailseg.metrics.image_counts import LEVEL_TEXT
from nailseg.types import IGNORE_INDEX

FEW_IMAGES = 5  # a slice of fewer images is grey; a group of fewer is no slice
GALLERY = 8  # images in each of worst, median, best
GALLERY_SIDE = 360  # pixels of the longer side in the gallery
HIT, FALSE_ALARM, MISS = GREEN, VERMILLION, SKY_BLUE
ERROR_OPACITY = 0.65
TILE_NUMBERS = ("dice", "iou", "dice_per_image", "boundary_iou", "surface_dice", "ap50")
"""The numbers at the top of the page."""
SLICE_NUMBERS = (*TILE_NUMBERS, "instance_recall")


def render_report(
    metrics: dict[str, Any],
    table: pd.DataFrame,
    segmenter: Segmenter,
    dataset: SegmentationDataset,
    curves: Path,
) -> str:
    """The whole report as HTML, from the content of metrics.json and the rows of per_image.csv.

    The segmenter predicts the gallery's images again; `curves` is the run's metrics.csv, if it exists.
    """
    loader, blocks = PackageLoader("nailseg.evaluation"), {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, **blocks)
    environment.filters |= {"number": format_number, "explain": explain, "explain_none": explain_none}
    entries = table.to_dict("records")
    chosen = galleries(rank_images(table, metrics["classes"]))
    for n in set().union(*chosen.values()):
        entries[n]["jpeg"] = draw_comparison(segmenter, *dataset.read(int(table.index[n])))
    return environment.get_template("report.html.j2").render(
        split=metrics["tested"]["split"],
        metrics=metrics,
        foreground=metrics["classes"][1:],
        tile_numbers=TILE_NUMBERS,
        slice_numbers=SLICE_NUMBERS,
        interval_level=LEVEL_TEXT,
        few_images=FEW_IMAGES,
        curves=plots.plot_training_curves(curves) if curves.is_file() else "",
        reliability=plots.plot_reliability(metrics["calibration"]),
        legend={"hit": HIT, "false alarm": FALSE_ALARM, "miss": MISS},
        galleries={title: [entries[n] for n in positions] for title, positions in chosen.items()},
    )


def explain(name: str, meanings: dict[str, str]) -> str:
    """The meaning of a number: that of its longest prefix, because dice_per_image_nail is not a dice."""
    return meanings[max((key for key in meanings if name.startswith(key)), key=len)]


def explain_none(name: str) -> str:
    """Why a number is null in metrics.json; docs/evaluation.md has the rules."""
    if name.startswith(("precision_", "instance_precision_")):
        return "nothing predicted"
    return "undefined" if name in ("miou", "pixel_accuracy") else "class absent"


def format_number(value: float | str | None, digits: int = 4, missing: str = "absent") -> str:
    """A value as text; `missing` stands for None and nan.

    >>> format_number(0.91234), format_number(3), format_number(None)
    ('0.9123', '3', 'absent')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return missing
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def galleries(ranked: list[int]) -> dict[str, list[int]]:
    """The images shown as worst, median and best; none twice where there are three or more."""
    size = max(1, min(GALLERY, len(ranked) // 3))
    median = ranked[max(0, (len(ranked) - size) // 2) :][:size]
    return {"Worst": ranked[:size], "Median": median, "Best": ranked[::-1][:size]}


def rank_images(table: pd.DataFrame, class_names: Sequence[str]) -> list[int]:
    """Positions of the images by mean Dice of the classes, worst first; without a Dice they are left out."""
    scores = table[[f"dice_{name}" for name in class_names[1:]]].mean(axis=1).reset_index(drop=True)
    return scores.dropna().sort_values(kind="stable").index.tolist()


def paint_errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The image (uint8 (H, W, 3), RGB) in grey with hits, false alarms and misses painted over it.

    Both masks are uint8 (H, W), class index; 255 in the truth stays unpainted. A wrong foreground class is a
    false alarm.
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    counted = truth != IGNORE_INDEX
    regions = {
        HIT: counted & (truth == prediction) & (truth > 0),
        FALSE_ALARM: counted & (truth != prediction) & (prediction > 0),
        MISS: counted & (truth > 0) & (prediction == 0),
    }
    for color, region in regions.items():
        grey[region] = overlay.blend(grey[region], color, ERROR_OPACITY)
    return grey


def draw_comparison(segmenter: Segmenter, image: np.ndarray, truth: np.ndarray) -> str:
    """The image beside its painted errors, as a base64 JPEG."""
    pair = image, paint_errors(image, truth, segmenter(image).mask)
    scale = min(1.0, GALLERY_SIDE / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = overlay.concat_horizontal([cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in pair])
    return base64.b64encode(overlay.encode_image(small, ".jpg", quality=85)).decode()
