"""What is recorded about a model besides its weights, and where models are; does not import torch."""

import json
import zipfile
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Len, Lt

from nailseg import __version__
from nailseg.errors import ConfigError, WeightsError
from nailseg.schema import FIX, validate
from nailseg.types import check_class_names

INFO_FILE = "nailseg.json"
ONNX_FILE, OPENVINO_FILE = "model.onnx", "model.xml"
OVERLAP = 1 / 4
"""Share of a tile that its neighbour covers too; near a tile's edge, context is missing."""
RUNS = Path("runs")
"""The folder of the run folders, unless an option names another."""
SHIPPED = ("nailseg-lite0", "nailseg-b0")
"""The names of the models that ship with the package."""
DEFAULT_MODEL = SHIPPED[0]

MAX_SIDE = 8192
"""A larger size of the network's input, in pixels, is taken for an error."""

Side = Annotated[int, Ge(1), Le(MAX_SIDE)]
Channels = Annotated[list[Annotated[float, Ge(-1e4), Le(1e4)]], Len(3, 3)]
Deviations = Annotated[list[Annotated[float, Gt(0), Le(1e4)]], Len(3, 3)]
Level = Annotated[int, Ge(0), Le(65535)]


@dataclass
class ModelInfo:
    """The information about a model besides its weights; the content of nailseg.json.

    The types and limits are checked where it is read (`from_dict`), not where a program creates it.
    """

    class_names: list[str]  # in index order, the first is the background
    # pixels of the side of the network's input that `resize` names, with `crop` of a tile; [height, width] in
    # some folders of others
    image_size: Side | Annotated[list[Side], Len(2, 2)] = 512
    resize: Literal["keep", "squash", "shortest", "crop", "none"] = "keep"  # as `geometry.Resize`
    # share of a tile that its neighbour covers too, in tiled inference
    overlap: Annotated[float, Ge(0), Lt(1)] = OVERLAP
    mean: Channels = field(default_factory=list)  # of RGB images in 0..1, applied inside the network
    std: Deviations = field(default_factory=list)  # as `mean`, standard deviation
    origin: dict[str, str] = field(default_factory=dict)  # `weights` at the start, and their `licence`
    # the 16-bit values that become 0 and 255; None: 0 and 65535
    image_range: Annotated[list[Level], Len(2, 2)] | None = None
    # foreground probability with the best validation Dice; None if not chosen
    threshold: Annotated[float, Ge(0), Le(1)] | None = None
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
    def from_dict(cls, content: Any, place: str | Path) -> Self:
        """Creates it from the content of a nailseg.json; fields of later versions are ignored.

        Args:
            content: What JSON or a checkpoint gave.
            place: The file, for the message.

        Raises:
            WeightsError: A field that is missing, of another type, or outside of its limits.
        """
        if not isinstance(content, dict):
            raise WeightsError(f"{place}: expected an object, found a {type(content).__name__}. {FIX}")
        known = {key: value for key, value in content.items() if key in cls.__dataclass_fields__}
        for key in ("mean", "std"):
            if known.get(key) == []:  # unknown, as the default is
                del known[key]
        info = validate(cls, known, place)
        try:
            check_class_names(info.class_names)
        except ConfigError as error:
            raise WeightsError(f"{place}: {error}") from None
        if info.image_range and info.image_range[0] >= info.image_range[1]:
            expected = "expected the lower value first, and another one"
            raise WeightsError(f"{place}: image_range: {expected}, found {info.image_range}. {FIX}")
        return info


def read_info(folder: str | Path) -> ModelInfo | None:
    """Reads the nailseg.json of a model folder; None without one, as in folders that transformers wrote."""
    path = Path(folder) / INFO_FILE
    return parse_info(path.read_bytes(), path) if path.is_file() else None


def parse_info(text: str | bytes, place: str | Path) -> ModelInfo:
    """Parses the text of a nailseg.json; raises `WeightsError` with the place where it stands."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{place}: expected the JSON that nailseg writes, found {error}.") from error
    return ModelInfo.from_dict(content, place)


def is_checkpoint(source: str | Path) -> bool:
    """Whether a model source names a training checkpoint."""
    return str(source).endswith(".ckpt")


def locate(source: str | Path) -> str:
    """Returns the model folder of a run or of a shipped model; any other `source` unchanged.

    Raises:
        WeightsError: an interrupted run, which has no model folder yet.
    """
    if str(source) in SHIPPED and not Path(source).exists():
        return str(resources.files("nailseg") / "weights" / str(source))
    inside = Path(source) / "model"
    checkpoints = [Path(source) / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    if any(path.exists() for path in checkpoints) and not inside.exists():
        # torch's format is zip, whose end tells whether the file is complete
        complete = next((path for path in checkpoints if path.is_file() and zipfile.is_zipfile(path)), None)
        advice = f"Give {complete}, or continue" if complete else "Continue"
        raise WeightsError(
            f"{source}: expected a run with the folder model, found an interrupted one. {advice} the "
            f"training: python -m nailseg.train --resume {source}"
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
