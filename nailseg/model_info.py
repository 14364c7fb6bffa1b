"""What is recorded about a model besides its weights, and where models are; does not import torch."""

import dataclasses
import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Self

from nailseg import __version__
from nailseg.errors import WeightsError

INFO_FILE = "nailseg.json"
ONNX_FILE, OPENVINO_FILE = "model.onnx", "model.xml"
OVERLAP = 1 / 4
"""Share of a tile that its neighbour covers too; near a tile's edge, context is missing."""
RUNS = Path("runs")
"""The folder of the run folders, unless an option names another."""
SHIPPED = "nailseg-b0"
"""The name of the model that ships with the package."""


@dataclass
class ModelInfo:
    """The information about a model besides its weights; the content of nailseg.json."""

    class_names: list[str]  # in index order, the first is the background
    # pixels of the side of the network's input that `resize` names, with `crop` of a tile; [height, width] in
    # some folders of others
    image_size: int | list[int] = 512
    resize: str = "keep"  # as `geometry.Resize`
    overlap: float = OVERLAP  # share of a tile that its neighbour covers too, in tiled inference
    mean: list[float] = field(default_factory=list)  # of RGB images in 0..1, applied inside the network
    std: list[float] = field(default_factory=list)  # as `mean`, standard deviation
    origin: dict[str, str] = field(default_factory=dict)  # `weights` at the start, and their `licence`
    image_range: list[int] | None = None  # the 16-bit values that become 0 and 255; None: 0 and 65535
    threshold: float | None = None  # foreground probability with the best validation Dice; None if not chosen
    mask_values: dict[str, Any] = field(default_factory=dict)  # mask encoding of the data, as its `to_dict`
    metrics: dict[str, Any] = field(default_factory=dict)  # metrics.json of the test, empty without one
    data: dict[str, Any] = field(default_factory=dict)  # statistics of the training data, empty if unknown
    version: str = __version__  # of the nailseg that wrote it
    architecture: str = "segformer"  # as `--model.name` takes it

    @property
    def longest_side(self) -> int:
        """`image_size`, or the larger of its two."""
        return self.image_size if isinstance(self.image_size, int) else max(self.image_size)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Creates it from the content of a nailseg.json; fields of later versions are ignored."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})


def read_info(folder: str | Path) -> ModelInfo | None:
    """Reads the nailseg.json of a model folder; None without one, as in folders that transformers wrote."""
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        return None
    try:
        return ModelInfo.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: expected the content that nailseg writes, found {error}.") from error


def is_checkpoint(source: str | Path) -> bool:
    """Whether a model source names a training checkpoint."""
    return str(source).endswith(".ckpt")


def locate(source: str | Path) -> str:
    """Returns the model folder of a run or of the shipped model; any other `source` unchanged.

    Raises:
        WeightsError: an interrupted run, which has no model folder yet.
    """
    if str(source) == SHIPPED and not Path(SHIPPED).exists():
        return str(resources.files("nailseg") / "weights" / SHIPPED)
    inside = Path(source) / "model"
    best = Path(source) / "checkpoints" / "best.ckpt"
    if best.is_file() and not inside.exists():
        raise WeightsError(
            f"{source}: expected a run with the folder model, found an interrupted one. Give {best}, or "
            f"continue the training: python -m nailseg.train --resume {source}"
        )
    return str(inside if (inside / INFO_FILE).is_file() else source)


def model_name(source: str | Path) -> str:
    """Returns a model's name for file names: the run's name for a model in a run, else its own.

    Example:
        >>> model_name("runs/b0/checkpoints/best.ckpt")
        'b0'
    """
    path = Path(source).absolute()
    if path.parent.name == "checkpoints":
        return path.parent.parent.name
    if path.name in ("model", ONNX_FILE, OPENVINO_FILE):
        return path.parent.name
    return path.name.removesuffix(".ckpt")
