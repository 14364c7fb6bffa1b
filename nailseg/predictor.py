"""Segmenter: model in, mask at the original size out. The one inference path, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from nailseg import artifact, geometry
from nailseg import overlay as drawing
from nailseg.data.reading import read_image
from nailseg.errors import ConfigError, DataError
from nailseg.metrics import class_index

if TYPE_CHECKING:
    from nailseg.artifact import ModelInfo
    from nailseg.models.segformer import SegFormer

DEFAULT_SIZE = 512  # longer side for models that do not say what they were trained at


@dataclass(frozen=True)
class Result:
    """What the model found in one picture, at the picture's own size.

    Attributes:
        image: uint8 (H, W, 3), RGB, the picture itself.
        mask: uint8 (H, W), class index.
        probability: float32 (C, H, W), 0..1, summing to one over the classes.
        class_names: C names in index order.
    """

    image: np.ndarray
    mask: np.ndarray
    probability: np.ndarray
    class_names: list[str]

    def overlay(self, opacity: float = 0.5) -> np.ndarray:
        """The picture with the classes painted over it; uint8 (H, W, 3), RGB."""
        return drawing.overlay(self.image, self.mask, opacity)


class Segmenter:
    """A network with the preprocessing it was trained with.

    Args:
        network: any network from uint8 (N, 3, H, W) to logits (N, C, H, W).
        info: its image size and resize rule.
        device: where it runs; None takes a GPU if there is one.
        threshold: probability (0..1) from which on a pixel is foreground, for two classes; None takes the
            more probable class, as 0.5 does.
    """

    def __init__(
        self,
        network: SegFormer,
        info: ModelInfo,
        device: str | torch.device | None = None,
        threshold: float | None = None,
    ) -> None:
        if threshold is not None and (len(info.class_names) != 2 or not 0 <= threshold <= 1):
            raise ConfigError(
                f"--threshold {threshold}: expected a probability from 0 to 1 and a model of two classes, "
                f"found the classes {info.class_names}. Leave it out to take the most probable class."
            )
        self.threshold = threshold
        self.device = _usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.to(self.device).eval()
        self.info = info

    @property
    def class_names(self) -> list[str]:
        """Names in index order; the first is the background."""
        return self.info.class_names

    @torch.inference_mode()
    def __call__(self, picture: str | Path | np.ndarray | object) -> Result:
        """Segments one picture.

        Args:
            picture: a file's path, a PIL image, or uint8 (H, W, 3) RGB.

        Raises:
            DataError: a file that cannot be trusted, or an array of another form.
        """
        image = as_array(picture)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.device)
        fitted, valid = geometry.fit_image(pixels, self.info.image_size, self.info.resize)
        logits = geometry.restore_logits(self.network(fitted), valid, image.shape[:2])
        probability = logits.float().softmax(1)[0].cpu().numpy()
        if self.threshold is None:
            mask = class_index(logits)[0].cpu().numpy()
        else:
            mask = (probability[1] >= self.threshold).astype(np.uint8)
        return Result(image, mask, probability, self.class_names)


def _usable(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch raises the latter for a build without CUDA
        raise ConfigError(
            f"--device: expected a device of this machine, found {device!r}. {error}"
        ) from error


def as_array(picture: str | Path | np.ndarray | object) -> np.ndarray:
    """A path, PIL image or array as uint8 (H, W, 3) RGB; see `Segmenter.__call__`."""
    if isinstance(picture, str | Path):
        return read_image(picture)
    if hasattr(picture, "convert"):  # a PIL image
        from PIL import ImageOps

        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
        found = (
            f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        )
        raise DataError(
            f"expected a path, a PIL image or a uint8 array (H, W, 3) in RGB order, found {found}."
        )
    return picture


def load(
    model: str | Path, device: str | None = None, threshold: float | Literal["model"] | None = None
) -> Segmenter:
    """Opens a model for prediction.

    Args:
        model: a model folder, a training checkpoint, a run folder, or a segmentation checkpoint of the hub.
        device: "cpu", "cuda", …; None takes a GPU if there is one.
        threshold: as `Segmenter` takes it; "model" is the one in the model folder, chosen on its validation
            part.

    Returns:
        A `Segmenter`: call it with a picture.

    Raises:
        WeightsError: not found, does not fit, or has a classifier that nobody has trained.
        ConfigError: no such device, or a threshold that the model does not have or cannot use.
    """
    source = Path(model)
    if (source / "model" / artifact.INFO_FILE).is_file():  # a run folder: its model is meant
        source = source / "model"
    name = str(source) if source.exists() or artifact.is_checkpoint(model) else str(model)
    network = artifact.open_network(name)
    artifact.require_trained(network, model)
    info = artifact.info_of(name) or artifact.describe(network, image_size=DEFAULT_SIZE)
    if threshold == "model":
        threshold = info.threshold
        if threshold is None:
            raise ConfigError(
                f"--threshold model: expected one in {model}, found none. A run's model folder has one, if "
                "it has two classes; give a number, or leave the option out."
            )
    return Segmenter(network, info, device, threshold)
