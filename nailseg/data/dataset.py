"""SegmentationDataset: one row of the CSV to one `Sample`."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from nailseg.data.augmentation import TrainingTransform
from nailseg.data.cache import PixelCache
from nailseg.data.downscale import downscale, downscaled_size
from nailseg.data.io.images import MAX_PIXELS, read_image, read_image_size
from nailseg.data.io.levels import ImageRange
from nailseg.data.io.masks import read_mask
from nailseg.data.manifest import Row
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.errors import ConfigError, DataError
from nailseg.imaging.geometry import MULTIPLE, Resize, fit_image, network_size
from nailseg.types import STOP_SIGNALS, Batch, Sample

Mode = Literal["train", "val", "test"]
"""`train` augments; `val` evaluates at the network's size, which is cheap; `test` at the mask file's size."""


@dataclass(eq=False, repr=False)
class SegmentationDataset(Dataset):
    """The rows of one split, decoded and resized for the network.

    A training sample depends on (seed, epoch, row) alone, not on worker, process or order.

    Args:
        rows: The split's rows; each must have a mask. Files are read when a sample is.
        root: Folder the rows' paths start from.
        mask_encoding: How a mask file's values become classes.
        size: Pixels of the longer side (`keep`) or of both (`squash`); 0 leaves images as they are.
        resize: How evaluation reaches that size; in training the transform decides. `crop` leaves images as
            they are, because evaluation tiles them.
        mode: What a sample contains, see `Mode`.
        seed: Seed of the augmentation.
        transform: The augmentation, for `train` only.
        max_pixels: Limit on an image's height times width.
        image_range: The 16-bit values that become 0 and 255, as `io.levels.ImageRange`.

    Raises:
        ConfigError: `train` without a transform, or another mode with one.
    """

    rows: Sequence[Row]
    root: str | Path
    mask_encoding: MaskEncoding
    size: int
    resize: Resize = "keep"
    mode: Mode = "train"
    seed: int = 0
    transform: TrainingTransform | None = None
    max_pixels: int = MAX_PIXELS
    image_range: ImageRange | None = None
    # of results of `preprocess`; samples are the same without it
    cache: PixelCache | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if (self.transform is not None) != (self.mode == "train"):
            expected = "expected a transform for mode 'train' and none for any other"
            raise ConfigError(f"SegmentationDataset: {expected}, found {self.mode!r} and {self.transform!r}.")
        self.rows, self.root = list(self.rows), Path(self.root)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int] | list[int]) -> Sample | list[Sample]:
        """Reads the sample of a row, or a list of samples for a list of rows; raises as `read`.

        Args:
            key: A row, an (epoch, row) pair from `EpochSampler` (a row alone means epoch 0), or rows.
        """
        if isinstance(key, list):
            return [self[row] for row in key]
        epoch, row = key if isinstance(key, tuple) else (0, int(key))
        preprocess = partial(self.preprocess, row)
        image, mask = self.cache.get(self.files(row), preprocess) if self.cache else preprocess()
        valid_size = mask.shape
        if self.mode == "train":
            seed = int(np.random.SeedSequence((self.seed, epoch, row)).generate_state(1)[0])
            image, mask = self.transform(image, mask, seed)
            image, valid_size = np.ascontiguousarray(image.transpose(2, 0, 1)), mask.shape
        elif self.mode == "test" and self.size:
            valid_size = network_size(*mask.shape, self.size, self.resize)
        return Sample(
            image=torch.from_numpy(image),
            mask=torch.from_numpy(mask).long(),
            valid_size=torch.tensor(valid_size),
            row=torch.tensor(row),
        )

    def preprocess(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The part of reading a row that is the same in every epoch; what the cache keeps. Raises as `read`.

        Returns:
            `train`: image uint8 (H, W, 3) and mask uint8 (H, W), downscaled to what the transform needs.
            `val`: the padded image uint8 (3, H', W'), rounded because the cache keeps it, and the mask uint8
            at the network's size. `test`: that image as float32, as in prediction, and the mask at its own
            size; the image unchanged if `size` is 0, and both with `crop`.
        """
        image, mask = self.read(row)
        if self.mode == "train":
            return downscale(image, mask, self.size, self.resize, self.transform.max_scale)
        image = image.transpose(2, 0, 1)
        if not self.size or self.resize == "crop":
            return image, mask
        fitted, (height, width) = fit_image(torch.from_numpy(image)[None], self.size, self.resize)
        if self.mode == "val":
            # the exact variant: plain INTER_NEAREST shifts masks by up to half a pixel of the result
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            fitted = fitted.round().to(torch.uint8)
        return fitted[0].numpy(), mask

    def preprocessed_bytes(self, row: int) -> int:
        """Bytes of the result of `preprocess` in `train` and `val`, from the image's header."""
        height, width = read_image_size(self.root / self.rows[row].image, self.max_pixels)
        if self.mode == "train":
            height, width = downscaled_size(height, width, self.size, self.resize, self.transform.max_scale)
        if self.mode == "train" or self.resize == "crop":
            return 4 * height * width
        height, width = network_size(height, width, self.size, self.resize)
        padded = (height + -height % MULTIPLE) * (width + -width % MULTIPLE)
        return 3 * padded + height * width

    def files(self, row: int) -> tuple[Path, Path]:
        """Paths of the row's image and mask."""
        return self.root / self.rows[row].image, self.root / self.rows[row].mask

    def settings(self) -> dict[str, Any]:
        """What decides the result of `preprocess` besides the two files."""
        encoding = self.mask_encoding
        return {
            "mode": self.mode,
            "size": self.size,
            "resize": self.resize,
            "max_scale": self.transform.max_scale if self.transform else None,
            "image_range": self.image_range,
            "mask_encoding": [sorted(map(str, encoding.mapping)), encoding.antialiased],
        }

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Decodes one row at its original size.

        Returns:
            Image uint8 (H, W, 3), RGB, and mask uint8 (H, W), class index or 255.

        Raises:
            DataError: A file cannot be read, or mask and image differ in size.
        """
        image_file, mask_file = self.files(row)
        image = read_image(image_file, self.max_pixels, self.image_range)
        mask = read_mask(mask_file, self.mask_encoding, self.max_pixels)
        if mask.shape != image.shape[:2]:
            expected, found = (f"{array.shape[1]}x{array.shape[0]}" for array in (image, mask))
            raise DataError(
                f"{self.rows[row].mask}: expected the width x height of its image {self.rows[row].image}, "
                f"{expected}, found {found}. Export the mask again at the image's size."
            )
        return image, mask


GRACE = 10
"""Seconds after SIGTERM in which the main process can finish its step before a worker ends."""


def start_worker(worker: int) -> None:
    """Prepares a worker process: one thread for OpenCV, and the main process decides what signals mean."""
    cv2.setNumThreads(0)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        # SIGTERM also comes from a main process that ends, which waits for this one
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
        # SIGALRM's own action would be an error to the main process, and hide one that it is to report
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))


def collate(samples: list[Sample] | Sample) -> Batch:
    """Stacks evaluation samples of one size."""
    # Trainer(overfit_batches=...) replaces the sampler, and then gives a single sample instead of a list
    return default_collate(samples if isinstance(samples, list) else [samples])
