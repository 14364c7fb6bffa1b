"""The report's part of a W&B run: the summary, the confusion matrix and, if asked, the worst images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger

from nailseg.evaluation.html import GALLERY, rank_images
from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from nailseg.data.dataset import SegmentationDataset
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
    """Sends a test's numbers to the W&B run, if there is one.

    Args:
        loggers: the trainer's.
        segmenter: the model that was tested.
        dataset: of the split that was tested.
        metrics: content of metrics.json.
        table: rows of per_image.csv, as `per_image.image_table`.
        split: its name, the prefix of all that is logged.
        images: also a table of the worst images with masks; photographs leave the machine then.
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
        logged[f"{split}/worst_images"] = [
            _with_masks(segmenter, *dataset.read(int(row)), names, caption)
            for row, caption in zip(worst.index, worst["image"], strict=True)
        ]
    for run in runs:
        run.summary.update({f"{split}/{k}": v for k, v in metrics.items() if isinstance(v, int | float)})
        run.log(logged)


def _with_masks(segmenter: Segmenter, image: Any, truth: Any, names: Sequence[str], caption: str) -> Any:
    import wandb

    labels = dict(enumerate(names)) | {IGNORE_INDEX: "ignored"}
    masks = {
        name: {"mask_data": mask.astype("int64"), "class_labels": labels}
        for name, mask in (("truth", truth), ("prediction", segmenter(image).mask))
    }
    return wandb.Image(image, masks=masks, caption=caption)
