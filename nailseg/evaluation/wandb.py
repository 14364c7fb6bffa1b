"""The report's part of a W&B run: the summary, the confusion matrix and, if asked, the worst images."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import WandbLogger

from nailseg.data.dataset import SegmentationDataset
from nailseg.evaluation.html import GALLERY, rank_images
from nailseg.imaging import overlay
from nailseg.inference.segmenter import Segmenter


def report_to_wandb(
    loggers: Sequence[object],
    segmenter: Segmenter,
    dataset: SegmentationDataset,
    metrics: dict[str, Any],
    table: pd.DataFrame,
    split: str,
    images: bool,
) -> None:
    """Sends a test's numbers to the W&B run, if there is one, under names that begin with the split.

    `metrics` and `table` are as `write_report` returns them. With `images` a table of the worst images and
    their masks is sent too; photographs leave the machine then.
    """
    runs = [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]
    if not runs:
        return
    import wandb

    names, matrix = metrics["classes"], metrics["confusion_matrix"]
    cells = [[names[t], names[p], matrix[t][p]] for t in range(len(names)) for p in range(len(names))]
    logged = {f"{split}/confusion_matrix": wandb.Table(["truth", "predicted", "pixels"], cells)}
    if images:
        worst = table.iloc[rank_images(table, names)[:GALLERY]]
        columns = ["image", *(f"dice_{name}" for name in names[1:])]
        cells = worst[columns].astype(object).where(worst[columns].notna(), None).to_numpy().tolist()
        logged[f"{split}/worst"] = wandb.Table(columns, cells)
        # not inside the table: W&B keeps a table's images outside the run's folder until they are uploaded
        logged[f"{split}/worst_images"] = drawings = []
        for row, caption in worst["image"].items():
            image, truth = dataset.read(int(row))
            masks = overlay.wandb_masks(names, truth=truth, prediction=segmenter(image).mask)
            drawings.append(wandb.Image(image, masks=masks, caption=caption))
    for run in runs:
        run.summary.update({f"{split}/{k}": v for k, v in metrics.items() if isinstance(v, int | float)})
        run.log(logged)
