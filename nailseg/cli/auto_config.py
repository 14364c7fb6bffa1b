"""`--adapt true`: length, learning rate, crop and batch from the size of the set and from the machine.

For somebody with 20 to 200 own images, who starts from trained weights. Every value is printed, and every
one that a config or an option gives stands.
"""

from __future__ import annotations

import logging
import math
import statistics
from pathlib import Path
from typing import Any

import torch
import yaml

from nailseg.cli import arguments
from nailseg.data.io.images import read_image_size
from nailseg.data.issues import IssueError
from nailseg.data.manifest import load_manifest
from nailseg.errors import ConfigError
from nailseg.imaging.geometry import MULTIPLE
from nailseg.inference.backends.as_module import read_module_info

log = logging.getLogger("nailseg")

LOOKED_AT = 50  # headers read to know how large the images are
VALIDATIONS = 8  # in the whole run


def adapted_arguments(args: list[str]) -> list[str]:
    """Puts the options of a fit before the user's own, so that his count.

    Args:
        args: options of fit, with config paths resolved; with `--adapt true`, or a config that says so.

    Returns:
        The same, completed; as they are where nothing is to be adapted.

    Raises:
        ConfigError: there is no data or nobody's weights to adapt to.
        DataError: the CSV is at fault.
    """
    configs = [Path(path) for path in arguments.options(args, "--config", "-c")]

    def value(part: str | None, name: str) -> Any:
        given = arguments.option(args, f"--{part}.{name}" if part else f"--{name}")
        found = (arguments.value_in(config, name, part) for config in reversed(configs))
        return given if given is not None else next((v for v in found if v is not None), None)

    if yaml.safe_load(str(value(None, "adapt"))) is not True:
        return args
    if (table := value("data", "csv")) is None:
        raise ConfigError("--adapt: expected --data.csv, found none. Make one with: nailseg index DIR")
    manifest = load_manifest(table, value("data", "root"), strict=False)  # the data module is the judge
    rows = manifest.select("train")
    if not rows:
        raise ConfigError(f"{table}: expected rows with the split train, found none.")
    longer = typical_side([manifest.path(row.image) for row in rows])
    weights = value("model", "weights")
    info = read_module_info(weights) if weights else None
    on_gpu = torch.cuda.is_available() and value("trainer", "accelerator") != "cpu"
    batch = value("data", "batch_size")  # the rest follows from it
    batch = int(batch) if str(batch).isdecimal() and int(batch) > 0 else None
    chosen = recipe(len(rows), longer, info.image_size if info else None, on_gpu, batch)
    own = {name: choice for name, choice in chosen.items() if value(*_split(name)) is None}
    log.info(
        "recipe for %d training images of about %d pixels on a %s (give any of it to override):\n  %s",
        len(rows),
        longer,
        "GPU" if on_gpu else "CPU",
        " ".join(f"--{name} {choice}" for name, choice in own.items()),
    )
    # configs first: jsonargparse takes the last word on everything, and the user's own stands at the end
    rest = arguments.without_option(args, "--config", "-c")
    return [*(f"--config={c}" for c in configs), *(f"--{name}={v}" for name, v in own.items()), *rest]


def recipe(
    images: int, longer: int, trained_at: int | None, on_gpu: bool, batch: int | None = None
) -> dict[str, float | int]:
    """The options for a set of a size; found on subsets of 20, 50 and 200 photographs (experiments/LOG.md).

    Args:
        images: number of training images.
        longer: their longer side in pixels, typically.
        trained_at: longer side the weights were made for; None if unknown.
        on_gpu: a CPU gets smaller crops, smaller batches and fewer steps.
        batch: images of a step, if that is settled.

    Returns:
        Option names, as the command line has them, with their values.
    """
    limit = trained_at or 512 if not on_gpu else 512
    eval_size = max(MULTIPLE, min(limit, round(longer / MULTIPLE) * MULTIPLE))
    size = eval_size if on_gpu else max(MULTIPLE, round(0.8 * eval_size / MULTIPLE) * MULTIPLE)
    batch = min(images, batch or (16 if on_gpu else 8))
    # ten times the images want three times the steps: each is seen less often, and there is more to learn
    steps = round(35 * math.sqrt(images)) * (2 if on_gpu else 1)
    per_epoch = images // batch
    epochs = math.ceil(steps / per_epoch)
    return {
        "data.size": size,
        "data.eval_size": eval_size,
        "data.batch_size": batch,
        "trainer.max_epochs": epochs,
        "trainer.check_val_every_n_epoch": max(1, epochs // VALIDATIONS),
        "model.lr": float(f"{3e-4 * math.sqrt(batch / 8):.1e}"),
        # the average spans a tenth of the run
        "ema_decay": round(1 - 10 / max(150, epochs * per_epoch), 4),
    }


def typical_side(images: list[Path]) -> int:
    """The median longer side of some of the images, in pixels; unreadable ones are the checks' business."""
    sides = []
    for path in images[:: max(1, len(images) // LOOKED_AT)]:
        try:
            sides.append(max(read_image_size(path)))
        except IssueError:
            continue
    return round(statistics.median(sides)) if sides else 512


def _split(name: str) -> tuple[str | None, str]:
    part, _, rest = name.rpartition(".")
    return part or None, rest
