"""report.html: one file that opens offline, for the person who asks how good the model is."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from nailseg.evaluation import plots
from nailseg.evaluation import report_tables as tables
from nailseg.imaging import overlay
from nailseg.inference.backends.torch import backend_of
from nailseg.inference.segmenter import Segmenter
from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nailseg.data.dataset import SegmentationDataset
    from nailseg.training.task import SegmentationTask

GALLERY = 8  # images in each of worst, median, best
PICTURE_SIDE = 360  # pixels of the longer side in the gallery
# Okabe & Ito: hit bluish green, false alarm vermillion, miss sky blue
HIT, FALSE_ALARM, MISS = (0, 158, 115), (213, 94, 0), (86, 180, 233)


def page(
    task: SegmentationTask,
    dataset: SegmentationDataset,
    metrics: dict[str, Any],
    table: list[dict[str, Any]],
    split: str,
    curves: Path,
) -> str:
    """The whole report as HTML.

    Args:
        task: the network that was tested, with its counts.
        dataset: of the split; the gallery's images are read and predicted again.
        metrics: content of metrics.json.
        table: rows of per_image.csv.
        split: its name.
        curves: the run's metrics.csv, left out where there is none.
    """
    names = metrics["classes"]
    ranked = rank(table, names)
    segmenter = Segmenter(backend_of(task.network, task.info(), task.device))
    drawn: dict[int, str] = {}
    gallery = ""
    for title, positions in galleries(ranked).items():
        for n in positions:
            if n not in drawn:
                drawn[n] = _figure(segmenter, dataset, table[n], int(task.image_counts.row[n]), names)
        gallery += f"<h3>{title}</h3>\n<div class=gallery>\n{''.join(drawn[n] for n in positions)}</div>\n"
    legend = "".join(
        f"<span class=key style='background:rgb{color}'></span>{text} "
        for text, color in (("hit", HIT), ("false alarm", FALSE_ALARM), ("miss", MISS))
    )
    training = plots.training_curves(curves) if curves.is_file() else ""
    return PAGE.format(
        title=f"nailseg: {html.escape(split)}",
        intro=f"{len(table)} images of the split <b>{html.escape(split)}</b>, at the masks' original size. "
        "In brackets: bootstrap 95 % intervals over images.",
        tested=tables.tested(metrics["tested"]),
        headlines="".join(tables.headlines(metrics, name) for name in names[1:]),
        rows="".join(tables.number_row(name, value, metrics) for name, value in metrics.items()),
        training=f"<h2>Training</h2>\n<div class=plot>{training}</div>" if training else "",
        reliability=plots.reliability_diagram(metrics["calibration"]),
        decisions=tables.decisions(metrics),
        confusion=tables.confusion(metrics["confusion_matrix"], names),
        slices="".join(tables.slice_tables(kind, parts, names) for kind, parts in metrics["slices"].items())
        or "<p>The images do not differ in folder, group or size.</p>",
        fewest=tables.FEWEST,
        legend=legend,
        galleries=gallery,
    )


def galleries(ranked: list[int]) -> dict[str, list[int]]:
    """Which images are shown as worst, median and best; none twice where there are three or more."""
    size = max(1, min(GALLERY, len(ranked) // 3))
    middle = max(0, (len(ranked) - size) // 2)
    return {
        "Worst": ranked[:size],
        "Median": ranked[middle : middle + size],
        "Best": ranked[::-1][:size],
    }


def rank(table: list[dict[str, Any]], class_names: Sequence[str]) -> list[int]:
    """Positions of the images by mean Dice of the classes, worst first.

    Images where nothing was to be found and nothing was found have no Dice and are left out.
    """
    scores = []
    for entry in table:
        values = [entry[f"dice_{name}"] for name in class_names[1:] if entry[f"dice_{name}"] is not None]
        scores.append(sum(values) / len(values) if values else np.inf)
    return [int(n) for n in np.argsort(scores, kind="stable") if scores[n] < np.inf]


def compare_masks(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The image in grey with hits, false alarms and misses painted over it.

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


def _figure(
    segmenter: Segmenter, dataset: SegmentationDataset, entry: dict[str, Any], row: int, names: list[str]
) -> str:
    image, truth = dataset.read(row)
    painted = compare_masks(image, truth, segmenter(image).mask)
    pair = overlay.side_by_side([_small(image), _small(painted)])
    encoded = cv2.imencode(".jpg", pair[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    source = base64.b64encode(encoded.tobytes()).decode()
    numbers = [
        f"{html.escape(name)}: Dice {tables.number(entry[f'dice_{name}'], 3)}, "
        f"found {entry[f'objects_found_{name}']} of {entry[f'objects_{name}']}, "
        f"wrong {entry[f'objects_wrong_{name}']}"
        for name in names[1:]
    ]
    caption = "<br>".join([html.escape(entry["image"]), *numbers])
    return (
        f"<figure><img loading=lazy src='data:image/jpeg;base64,{source}' alt='photograph, and what was "
        f"found in it'><figcaption>{caption}</figcaption></figure>\n"
    )


def _small(image: np.ndarray) -> np.ndarray:
    scale = min(1.0, PICTURE_SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #222; }}
h2 {{ margin-top: 2.5rem; }} table {{ border-collapse: collapse; margin: .5rem 0 1.5rem; }}
td, th {{ padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; text-align: left;
  vertical-align: top; }}
.n {{ font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }}
.meaning {{ display: block; line-height: 1.3; }} .wide {{ overflow-x: auto; }}
small {{ color: #666; }} .few td {{ color: #767676; }}
.plot {{ display: flex; flex-wrap: wrap; gap: 1rem; }} .plot svg {{ max-width: 100%; height: auto; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; }}
.tiles div {{ background: #f4f6f8; border-radius: 8px; padding: .8rem 1rem; }}
.tiles b {{ display: block; font-size: 1.7rem; line-height: 1.2; }} .tiles small {{ display: block; }}
.gallery {{ display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }}
figure {{ margin: 0; }} img {{ width: 100%; border-radius: 4px; }}
figcaption {{ font-size: .85rem; overflow-wrap: anywhere; }}
.key {{ display: inline-block; width: 1em; height: 1em; margin: 0 .3em 0 1em; vertical-align: -.1em; }}
</style>
<h1>{title}</h1>
<p>{intro}<br><small>{tested}</small></p>
{headlines}
<h2>Numbers</h2>
<div class=wide><table>{rows}</table></div>
{training}
<h2>Can the probabilities be believed?</h2>
<div class=plot>{reliability}</div>
{decisions}
<h2>Confusion, in pixels</h2>
{confusion}
<h2>Parts of the set</h2>
<p><small>In grey: parts of fewer than {fewest} images, which say little.</small></p>
{slices}
<h2>Images</h2>
<p>{legend}</p>
{galleries}
</html>
"""
