"""`--auto_config true`: run length, learning rate, crop and batch from the data set and the machine.

For 20 to 200 images and trained weights. What a config or an option gives is kept; the others are logged.
"""

import contextlib
import logging
import math
import statistics
from dataclasses import replace
from pathlib import Path

import torch

from nailseg.cli.arguments import CommandLine
from nailseg.data.io.images import read_image_size
from nailseg.data.issues import IssueError
from nailseg.data.manifest import load_manifest
from nailseg.errors import ConfigError
from nailseg.imaging.geometry import MULTIPLE
from nailseg.inference.backends.as_module import read_module_info

log = logging.getLogger("nailseg")


def auto_configure(line: CommandLine) -> CommandLine:
    """Adds the options that follow from the data set and the machine, if `auto_config` is true.

    ConfigError if there is no data set, or no training image in it; DataError if the CSV cannot be read.
    """
    if line.parsed("auto_config") is not True:
        return line
    if (table := line.value("data.csv")) is None:
        raise ConfigError("--auto_config: expected --data.csv, found none. Make one with: nailseg index DIR")
    manifest = load_manifest(table, line.value("data.root"), strict=False)  # the data module validates it
    images = [manifest.path(row.image) for row in manifest.select("train")]
    if not images:
        raise ConfigError(f"{table}: expected rows with the split train, found none.")
    longer = typical_side(images)
    weights, batch = line.value("model.weights"), str(line.value("data.batch_size"))
    info = read_module_info(weights) if weights else None
    on_gpu = torch.cuda.is_available() and line.value("trainer.accelerator") != "cpu"
    trained_at, batch_size = info and info.image_size, int(batch) if batch.isdecimal() else None
    options = choose_options(len(images), longer, trained_at, on_gpu, batch_size)
    added = [f"--{name}={value}" for name, value in options.items() if line.value(name) is None]
    found = f"{len(images)} training images of about {longer} pixels on a {'GPU' if on_gpu else 'CPU'}"
    shown = " ".join(added).replace("=", " ")
    log.info("auto-configuration for %s (give any to override):\n  %s", found, shown)
    return replace(line, defaults=tuple(added))


def choose_options(
    images: int, longer: int, trained_at: int | None, on_gpu: bool, batch: int | None = None
) -> dict[str, float | int]:
    """The options for a set of a size; found on subsets of 20, 50 and 200 photographs (experiments/LOG.md).

    Args:
        images: number of training images.
        longer: their longer side in pixels, typically.
        trained_at: longer side the weights were trained at; None if unknown.
        on_gpu: a CPU gets smaller crops, smaller batches and fewer steps.
        batch: images per step, if that is given; the other values follow from it.

    Returns:
        Option names, as on the command line, with their values.

    >>> choose_options(20, 432, 320, on_gpu=False)["data.batch_size"]
    8
    """
    limit = 512 if on_gpu else trained_at or 512
    eval_size = max(MULTIPLE, min(limit, round(longer / MULTIPLE) * MULTIPLE))
    size = eval_size if on_gpu else max(MULTIPLE, round(0.8 * eval_size / MULTIPLE) * MULTIPLE)
    batch = min(images, batch or (16 if on_gpu else 8))
    # ten times the images need three times the steps: each is used less often, and there is more to learn
    steps = round(35 * math.sqrt(images)) * (2 if on_gpu else 1)
    per_epoch = images // batch
    epochs = math.ceil(steps / per_epoch)
    return {
        "data.size": size,
        "data.eval_size": eval_size,
        "data.batch_size": batch,
        "trainer.max_epochs": epochs,
        "trainer.check_val_every_n_epoch": max(1, epochs // 8),  # eight validations in the whole run
        "model.lr": float(f"{3e-4 * math.sqrt(batch / 8):.1e}"),
        "ema_decay": round(1 - 10 / max(150, epochs * per_epoch), 4),  # averages over a tenth of the run
    }


def typical_side(images: list[Path]) -> int:
    """The median longer side of about 50 of the images, in pixels; 512 if none can be read."""
    sides = []
    for path in images[:: max(1, len(images) // 50)]:
        with contextlib.suppress(IssueError):  # the validation reports it
            sides.append(max(read_image_size(path)))
    return round(statistics.median(sides or [512]))
