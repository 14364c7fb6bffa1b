"""Segmenter: an image goes in, a mask of its own size comes out; the only inference path."""

import itertools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nailseg.data.io.images import decode_image, decode_pillow_image, read_bytes
from nailseg.data.io.levels import find_lost_levels
from nailseg.data.mask_encoding import encode_mask
from nailseg.errors import ConfigError, DataError, WeightsError
from nailseg.imaging.overlay import draw_overlay
from nailseg.inference.backends import find_exported_file, open_exported
from nailseg.inference.backends.base import Backend
from nailseg.inference.tiling import predict_tiled
from nailseg.model_info import DEFAULT_MODEL, SHIPPED, locate

log = logging.getLogger("nailseg")

MAX_BATCH_PIXELS = 16_000_000
"""Maximum number of pixels of the images that go through the network together, unless it is one image."""


@dataclass(frozen=True)
class Result:
    """The segmentation of one image, at the image's own size.

    Attributes:
        image: uint8 (H, W, 3), RGB, the image itself.
        mask: uint8 (H, W), class index.
        probability: float32 (C, H, W), 0..1, sums to one over the classes.
        class_names: C names in index order.
    """

    image: np.ndarray
    mask: np.ndarray
    probability: np.ndarray
    class_names: list[str]

    def foreground_probability(self) -> np.ndarray:
        """Returns the probability of any class but the background; float32 (H, W), 0..1."""
        return np.clip(1 - self.probability[0], 0, 1)

    def uncertainty(self) -> float:
        """Estimates 1 - Dice of the foreground, 0..1, from the probabilities alone: what to label next.

        1 - (2 * sum(p * m) + s) / (sum(p) + sum(m) + s), with foreground probability p, predicted mask m
        and s, 0.1 % of the pixels, so that images without any object are certain. Mehrtash et al. 2020
        ("Confidence Calibration and Predictive Uncertainty Estimation for Deep Medical Image Segmentation")
        predict Dice from such sums too. What a model is wrong and sure about stays certain.

        >>> probability = np.stack([np.full((4, 4), 0.25), np.full((4, 4), 0.75)])
        >>> image, names = np.zeros((4, 4, 3), np.uint8), ["background", "nail"]
        >>> round(Result(image, np.ones((4, 4), np.uint8), probability, names).uncertainty(), 2)
        0.14
        """
        probability, mask = self.foreground_probability(), self.mask > 0
        smooth = 0.001 * mask.size
        overlap, total = float((probability * mask).sum()), float(probability.sum() + mask.sum())
        return 1 - (2 * overlap + smooth) / (total + smooth)

    def encode_mask(self, as_index: bool = False) -> np.ndarray:
        """Returns the mask as in files, uint8 (H, W): 0/255 for two classes, otherwise class indices."""
        return encode_mask(self.mask, len(self.class_names), as_index)

    def encode_probability(self, index: int | None = None) -> np.ndarray:
        """Returns a class's or the foreground's probability as in files: uint16 (H, W), 0..65535 for 0..1."""
        probability = self.foreground_probability() if index is None else self.probability[index]
        return np.rint(probability * 65535).astype(np.uint16)

    def overlay(self, opacity: float = 0.5) -> np.ndarray:
        """Draws the classes over the image; uint8 (H, W, 3), RGB."""
        return draw_overlay(self.image, self.mask, opacity)


class Segmenter:
    """Segments images with one model.

    Args:
        backend: Runs the network.
        threshold: For two classes, the probability (0..1) from which on a pixel is foreground; None takes
            the more probable class, as 0.5 does. A `ConfigError` refuses it for other numbers of classes.

    Attributes:
        info: What is known of the model besides its weights.
        class_names: Names in index order; the first is the background.
    """

    def __init__(self, backend: Backend, threshold: float | None = None) -> None:
        self.backend, self.threshold = backend, threshold
        self.info, self.class_names = backend.info, backend.info.class_names
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"--threshold {threshold}: expected a probability from 0 to 1.")
        if threshold is not None and len(self.class_names) != 2:
            expected = f"expected a model of two classes, found {self.class_names}. Leave it out."
            raise ConfigError(f"--threshold {threshold}: {expected}")

    def __call__(self, image: Any, tta: bool = False, tile: int | Literal["auto"] | None = None) -> Result:
        """Segments one image; thread-safe.

        Args:
            image: A file's path or its bytes, a PIL image, or uint8 (H, W, 3) RGB. For a list see `batch`.
            tta: Test-time augmentation, as in `tiling.predict_tiled`.
            tile: Tiled inference for images far larger than in training, as there; models trained with `crop`
                use it by themselves.

        Raises:
            DataError: The file is damaged, or the array has another shape or dtype.
            ConfigError: The tile is too small.
            WeightsError: The network's output is nan.
        """
        pixels = self.read(image)
        return self._make_result(pixels, *predict_tiled(self.backend, pixels, tta, tile))

    def batch(self, images: Sequence[Any]) -> list[Result]:
        """Segments images, each as in `__call__`, in the same order.

        Images of one size go through the network together. If one cannot be read, none is segmented.
        """
        if isinstance(images, str | Path | bytes | bytearray | memoryview):
            raise DataError("segment.batch: expected a list of images, found one. Call segment(image).")
        arrays = [self.read(image) for image in images]
        if self.info.resize == "crop":
            return [self(image) for image in arrays]
        results: dict[int, Result] = {}
        order = sorted(range(len(arrays)), key=lambda index: arrays[index].shape)
        for (height, width, _), group in itertools.groupby(order, lambda index: arrays[index].shape):
            indices, length = list(group), max(1, MAX_BATCH_PIXELS // (height * width))
            for start in range(0, len(indices), length):
                chunk = indices[start : start + length]
                masks, probabilities = self.backend(np.stack([arrays[index] for index in chunk]))
                for index, mask, probability in zip(chunk, masks, probabilities, strict=True):
                    results[index] = self._make_result(arrays[index], mask, probability)
        return [results[index] for index in range(len(arrays))]

    def read(self, image: Any) -> np.ndarray:
        """Reads an image as `__call__` does; returns uint8 (H, W, 3) RGB, and raises the same."""
        image_range, name = self.info.image_range, "the given bytes"
        if isinstance(image, str | Path):
            name, image = str(image), read_bytes(image)
        if isinstance(image, bytes | bytearray | memoryview):
            decoded = decode_image(bytes(image), name, image_range=image_range)
        elif hasattr(image, "convert"):  # a PIL image
            decoded = decode_pillow_image(image, image_range)
        else:
            is_array = isinstance(image, np.ndarray)
            if is_array and image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size:
                return image
            found = f"{image.dtype} {image.shape}" if is_array else type(image).__name__
            expected = "a path, a file's bytes, a PIL image or a uint8 array (H, W, 3) in RGB order"
            raise DataError(f"expected {expected}, found {found}. For several images: segment.batch(images).")
        for warning in decoded.issues:
            log.warning("%s", warning)
        if decoded.values is not None and (lost := find_lost_levels([decoded.values], image_range)):
            log.warning("%s: %s. A model trained with --data.image_range scales them itself.", name, lost)
        return decoded.pixels

    def _make_result(self, image: np.ndarray, mask: np.ndarray, probability: np.ndarray) -> Result:
        if np.isnan(probability.sum()):
            advice = "Its weights hold nan or infinite values: take another checkpoint, or train again."
            raise WeightsError(f"expected probabilities from the network, found nan. {advice}")
        if self.threshold is not None:
            mask = (probability[1] >= self.threshold).astype(np.uint8)
        return Result(image, mask, probability, self.class_names)


def load(
    model: str | Path = DEFAULT_MODEL,
    device: str | None = None,
    threshold: float | Literal["model"] | None = None,
    threads: int | None = None,
) -> Segmenter:
    """Opens a model for inference; call the returned `Segmenter` with an image.

    Args:
        model: A model folder, a checkpoint, a run folder, a segmentation model of the hub, an exported file
            or its folder, or `nailseg-lite0` or `nailseg-b0`, the nail models in the package.
        device: "cpu", "cuda", …; None uses a GPU if there is one. Exported files run on the CPU.
        threshold: As in `Segmenter`; "model" is the one in the model folder, chosen on its validation split.
        threads: Threads of an exported file's runtime; None takes OMP_NUM_THREADS, else the runtime chooses.
            Torch has one number for the whole process: torch.set_num_threads.

    Raises:
        WeightsError: The model is not found, does not fit, or its classifier is untrained.
        ConfigError: The device does not exist, the model has no threshold or cannot use one, or an exported
            file's runtime is not installed.

    >>> segment = load("nailseg-b0", device="cpu")
    >>> result = segment(np.zeros((48, 64, 3), np.uint8))
    >>> result.mask.shape, result.probability.shape, result.class_names
    ((48, 64), (2, 48, 64), ['background', 'nail'])
    """
    if file := find_exported_file(model):
        backend: Backend = open_exported(file, device, threads)
    else:
        place = locate(model)
        if not re.fullmatch(r"[^/]+/[^/]+", place) and not Path(place).exists():
            raise WeightsError(
                f"--model {model}: expected {', '.join(SHIPPED)}, a model folder, a run folder, a "
                f"checkpoint, an export or a model of the hub (owner/name); found nothing (in {Path.cwd()})."
            )
        from nailseg.inference.backends.torch import open_torch  # exported models do not need torch

        backend = open_torch(place, device)
    if threshold == "model" and backend.info.threshold is None:
        advice = "The model folder of a run has one if there are two classes; give a number, or leave it out."
        raise ConfigError(f"--threshold model: expected a threshold in {model}, found none. {advice}")
    return Segmenter(backend, backend.info.threshold if threshold == "model" else threshold)
