"""The report's share of a W&B run: the summary, the confusion matrix and, when asked, the worst images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger

from nailseg.evaluation.html import GALLERY, rank
from nailseg.inference.backends.torch import backend_of
from nailseg.inference.segmenter import Segmenter
from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nailseg.data.datamodule import SegmentationDataModule
    from nailseg.training.task import SegmentationTask


def report_to_wandb(
    loggers: Sequence[object],
    task: SegmentationTask,
    data: SegmentationDataModule,
    metrics: dict[str, Any],
    table: list[dict[str, Any]],
    split: str,
    images: bool,
) -> None:
    """Sends a test's numbers to the W&B run, if there is one; nothing else happens without it.

    Args:
        loggers: the trainer's.
        task: the network that was tested, with its counts.
        data: whose split was tested.
        metrics: content of metrics.json.
        table: rows of per_image.csv.
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
        worst = rank(table, names)[:GALLERY]
        columns = ["image", *(f"dice_{name}" for name in names[1:])]
        logged[f"{split}/worst"] = wandb.Table(columns, [[table[n][key] for key in columns] for n in worst])
        # not inside the table: W&B keeps a table's images outside the run's folder until they are uploaded
        logged[f"{split}/worst_images"] = [_with_masks(task, data, table, split, n) for n in worst]
    for run in runs:
        run.summary.update({f"{split}/{k}": v for k, v in metrics.items() if isinstance(v, int | float)})
        run.log(logged)


def _with_masks(
    task: SegmentationTask, data: SegmentationDataModule, table: list[dict[str, Any]], split: str, n: int
) -> Any:
    import wandb

    image, truth = data.dataset(split).read(int(task.image_counts.row[n]))
    prediction = Segmenter(backend_of(task.network, task.info(), task.device))(image).mask
    labels = dict(enumerate(task.class_names)) | {IGNORE_INDEX: "ignored"}
    masks = {
        name: {"mask_data": mask.astype("int64"), "class_labels": labels}
        for name, mask in (("truth", truth), ("prediction", prediction))
    }
    return wandb.Image(image, masks=masks, caption=table[n]["image"])
