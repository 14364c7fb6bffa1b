"""What is known of a model besides its weights, and where it lies; free of torch, for exported models."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from nailseg import __version__
from nailseg.errors import WeightsError

INFO_FILE = "nailseg.json"
ONNX_FILE, OPENVINO_FILE = "model.onnx", "model.xml"
SHIPPED = "nailseg-b0"
"""The name of the model that comes with the package."""


@dataclass
class ModelInfo:
    """What is known of a model besides its weights; the content of nailseg.json.

    Attributes:
        class_names: in index order, the first is the background.
        image_size: pixels of the longer side the network was trained at.
        resize: `keep` or `squash`, as in `geometry.network_size`.
        mean: RGB mean of images in 0..1, applied inside the network.
        std: as `mean`, standard deviation.
        origin: `weights` (what the training started from) and `licence` (of those weights).
        threshold: foreground probability from which on a pixel is foreground; None is the largest class.
        mask_values: how the training masks' file values were read.
        metrics: content of metrics.json of the held-out test, empty if there was none.
        data: fingerprint of the training data, empty if unknown.
        version: of nailseg, that wrote it.
        architecture: as `--model.name` takes it.
    """

    class_names: list[str]
    image_size: int = 512
    resize: str = "keep"
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)
    threshold: float | None = None
    mask_values: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    version: str = __version__
    architecture: str = "segformer"

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ModelInfo:
        """Reads a nailseg.json's content; fields of later versions are passed over."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})


def read_info(folder: str | Path) -> ModelInfo | None:
    """The nailseg.json of a model folder; None if the folder has none (one that transformers wrote)."""
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        return None
    try:
        return ModelInfo.from_dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: expected what nailseg writes, found {error}.") from error


def is_checkpoint(source: str | Path) -> bool:
    """Whether a model source names a training checkpoint."""
    return str(source).endswith(".ckpt")


def locate(source: str | Path) -> str:
    """Where a model lies that is given by the shipped model's name or by its run's folder.

    Args:
        source: anything that names a model; what is neither of the two is returned as it is.

    Returns:
        A path, or whatever else `source` was (a hub name, `b0`).

    Raises:
        WeightsError: a run that was broken off before it wrote its model.
    """
    if str(source) == SHIPPED and not Path(SHIPPED).exists():
        return str(resources.files("nailseg") / "weights" / SHIPPED)
    inside = Path(source) / "model"
    begun = Path(source) / "checkpoints" / "best.ckpt"
    if begun.is_file() and not inside.exists():
        raise WeightsError(
            f"{source}: expected a run with its folder model, found one that was broken off. Give {begun}, "
            f"or go on with the training: python -m nailseg.train --resume {source}"
        )
    return str(inside if (inside / INFO_FILE).is_file() else source)
