"""The report's share of a W&B run: the summary, the confusion matrix and, when asked, the worst pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger

from nailseg.predictor import Segmenter
from nailseg.report_page import GALLERY, rank
from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nailseg.data.datamodule import SegmentationDataModule
    from nailseg.task import SegmentationTask


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
        images: also a table of the worst pictures with masks; photographs leave the machine then.
    """
    runs = [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]
    if not runs:
        return
    import wandb

    names, matrix = metrics["classes"], metrics["confusion_matrix"]
    cells = [[names[t], names[p], matrix[t][p]] for t in range(len(names)) for p in range(len(names))]
    logged = {f"{split}/confusion_matrix": wandb.Table(["truth", "predicted", "pixels"], cells)}
    if images:
        logged[f"{split}/worst"] = _worst(task, data, table, split)
    for run in runs:
        run.summary.update({f"{split}/{k}": v for k, v in metrics.items() if isinstance(v, int | float)})
        run.log(logged)


def _worst(
    task: SegmentationTask, data: SegmentationDataModule, table: list[dict[str, Any]], split: str
) -> Any:
    import wandb

    segmenter, dataset = Segmenter(task.network, task.info(), task.device), data.dataset(split)
    labels = dict(enumerate(task.class_names)) | {IGNORE_INDEX: "ignored"}
    scores = [f"dice_{name}" for name in task.class_names[1:]]
    found = wandb.Table(["image", "path", *scores])
    for n in rank(table, task.class_names)[:GALLERY]:
        image, truth = dataset.read(int(task.image_counts.row[n]))
        masks = {
            name: {"mask_data": mask.astype("int64"), "class_labels": labels}
            for name, mask in (("truth", truth), ("prediction", segmenter(image).mask))
        }
        found.add_data(wandb.Image(image, masks=masks), table[n]["image"], *(table[n][key] for key in scores))
    return found
