"""Segmenter: model in, mask at the original size out. The one inference path, whoever asks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nailseg.data.io.images import convert_pillow_image, decode_image, read_image
from nailseg.errors import ConfigError, DataError, WeightsError
from nailseg.imaging.overlay import draw_overlay
from nailseg.inference import tiling
from nailseg.inference.backends.exported import find_exported_file, open_exported
from nailseg.model_info import SHIPPED, ModelInfo, locate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nailseg.inference.backends.base import Backend

MAX_BATCH_PIXELS = 16_000_000
"""Images that go through a network together have at most so many pixels (or there is only one of them)."""


@dataclass(frozen=True)
class Result:
    """What the model found in one image, at the image's own size.

    Attributes:
        image: uint8 (H, W, 3), RGB, the image itself.
        mask: uint8 (H, W), class index.
        probability: float32 (C, H, W), 0..1, summing to one over the classes.
        class_names: C names in index order.
    """

    image: np.ndarray
    mask: np.ndarray
    probability: np.ndarray
    class_names: list[str]

    def foreground(self) -> np.ndarray:
        """Probability of any class but the background; float32 (H, W), 0..1."""
        return np.clip(1 - self.probability[0], 0, 1)

    def mask_pixels(self, as_index: bool = False) -> np.ndarray:
        """The mask as files hold it; uint8 (H, W): 0 and 255 of two classes, else, or if asked, the index."""
        return self.mask * np.uint8(255 if len(self.class_names) == 2 and not as_index else 1)

    def overlay(self, opacity: float = 0.5) -> np.ndarray:
        """The image with the classes painted over it; uint8 (H, W, 3), RGB."""
        return draw_overlay(self.image, self.mask, opacity)


def in_16_bits(probability: np.ndarray) -> np.ndarray:
    """Probabilities as files hold them: uint16, 65535 is certain."""
    return np.rint(probability * 65535).astype(np.uint16)


class Segmenter:
    """A model behind one call: image in, mask at the image's own size out.

    Args:
        backend: what runs the network.
        threshold: probability (0..1) from which on a pixel is foreground, for two classes; None takes the
            more probable class, as 0.5 does.

    Raises:
        ConfigError: a threshold outside 0..1, or for a model of more than two classes.
    """

    def __init__(self, backend: Backend, threshold: float | None = None) -> None:
        self.backend = backend
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"--threshold {threshold}: expected a probability from 0 to 1.")
        if threshold is not None and len(self.class_names) != 2:
            raise ConfigError(
                f"--threshold {threshold}: expected a model of two classes, found {self.class_names}. Leave "
                f"it out to take the most probable class."
            )
        self.threshold = threshold

    @property
    def info(self) -> ModelInfo:
        """What is known of the model besides its weights."""
        return self.backend.info

    @property
    def class_names(self) -> list[str]:
        """Names in index order; the first is the background."""
        return self.info.class_names

    def __call__(self, picture: Any, tta: bool = False, tile: int | Literal["auto"] | None = None) -> Result:
        """Segments one image; from any number of threads at once.

        Args:
            picture: a file's path or its bytes, a PIL image, or uint8 (H, W, 3) RGB. For a list see `batch`.
            tta: test-time augmentation, as `views.look` takes it.
            tile: for photographs far larger than the training's, as `views.look` takes it.

        Raises:
            DataError: a file that cannot be trusted, or an array of another form.
            ConfigError: a tile too small to be of use.
        """
        image = as_array(picture)
        return self._result(image, *tiling.look(self.backend, image, tta, tile))

    def batch(self, pictures: Sequence[Any]) -> list[Result]:
        """Segments many images, those of one size together.

        Args:
            pictures: each as `__call__` takes it.

        Returns:
            One result for each, in their order.

        Raises:
            DataError: one that cannot be trusted; none is segmented then.
        """
        if isinstance(pictures, str | Path | bytes | bytearray | memoryview):
            raise DataError("segment.batch: expected a list of images, found one. Call segment(image).")
        images = [as_array(picture) for picture in pictures]
        by_size: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(number)
        results: dict[int, Result] = {}
        for (height, width, _), numbers in by_size.items():
            step = max(1, MAX_BATCH_PIXELS // (height * width))
            for start in range(0, len(numbers), step):
                some = numbers[start : start + step]
                masks, probabilities = self.backend(np.stack([images[number] for number in some]))
                for number, mask, probability in zip(some, masks, probabilities, strict=True):
                    results[number] = self._result(images[number], mask, probability)
        return [results[number] for number in range(len(images))]

    def _result(self, image: np.ndarray, mask: np.ndarray, probability: np.ndarray) -> Result:
        if self.threshold is not None:
            mask = (probability[1] >= self.threshold).astype(np.uint8)
        return Result(image, mask, probability, self.class_names)


def as_array(picture: Any) -> np.ndarray:
    """A path, bytes, PIL image or array as uint8 (H, W, 3) RGB; see `Segmenter.__call__`."""
    if isinstance(picture, str | Path):
        return read_image(picture)
    if isinstance(picture, bytes | bytearray | memoryview):
        return decode_image(bytes(picture), "the bytes given")
    if hasattr(picture, "convert"):  # a PIL image
        return convert_pillow_image(picture)
    if (
        not isinstance(picture, np.ndarray)
        or picture.dtype != np.uint8
        or picture.shape[2:] != (3,)
        or not picture.size
    ):
        found = (
            f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        )
        raise DataError(
            f"expected a path, a file's bytes, a PIL image or a uint8 array (H, W, 3) in RGB order, found "
            f"{found}. Several images at once: segment.batch(images)."
        )
    return picture


def load(
    model: str | Path = SHIPPED,
    device: str | None = None,
    threshold: float | Literal["model"] | None = None,
    threads: int | None = None,
) -> Segmenter:
    """Opens a model for prediction.

    Args:
        model: a model folder, a training checkpoint, a run folder, a segmentation checkpoint of the hub, an
            exported file or its folder, or `nailseg-b0`, the nail model that comes with the package.
        device: "cpu", "cuda", …; None takes a GPU if there is one. Exported files run on the CPU.
        threshold: as `Segmenter` takes it; "model" is the one in the model folder, chosen on its validation
            part.
        threads: of an exported file's runtime; None takes OMP_NUM_THREADS, else the runtime chooses. Torch
            has one number for the whole process: torch.set_num_threads.

    Returns:
        A `Segmenter`: call it with an image.

    Raises:
        WeightsError: not found, does not fit, or has a classifier that nobody has trained.
        ConfigError: no such device, or a threshold that the model does not have or cannot use; an exported
            file's runtime is not installed.
    """
    if file := find_exported_file(model):
        backend: Backend = open_exported(file, device, threads)
    else:
        place = locate(model)
        elsewhere = re.fullmatch(r"[^/]+/[^/]+|b[0-5]", place)  # on the hub, or nobody has trained it
        if not elsewhere and not Path(place).exists():
            raise WeightsError(
                f"--model {model}: expected {SHIPPED}, a model folder, a run folder, a checkpoint, an export "
                f"or a model of the hub (owner/name); found nothing there (looked from {Path.cwd()})."
            )
        from nailseg.inference.backends.torch import open_torch  # an exported model needs no torch

        backend = open_torch(place, device)
    if threshold == "model":
        threshold = backend.info.threshold
        if threshold is None:
            raise ConfigError(
                f"--threshold model: expected one in {model}, found none. A run's model folder has one, if "
                "it has two classes; give a number, or leave the option out."
            )
    return Segmenter(backend, threshold)
