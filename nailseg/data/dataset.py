"""Row -> Sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from nailseg.data.cache import PixelCache
from nailseg.data.downscale import downscaled_size, shrink
from nailseg.data.io.images import MAX_PIXELS, MaskEncoding, read_image, read_image_size, read_mask
from nailseg.data.manifest import Row
from nailseg.errors import ConfigError, DataError
from nailseg.imaging.geometry import MULTIPLE, Resize, fit_image, network_size
from nailseg.types import Batch, Sample

Mode = Literal["train", "val", "test"]
"""`train` varies the image; `val` compares at the network's size (cheap), `test` at the mask's own."""


class Transform(Protocol):
    """What varies a training image, see `TrainingTransform`.

    Attributes:
        largest: Largest factor on the network's size by which it enlarges.
    """

    largest: float

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask of the network's size."""


class SegmentationDataset(Dataset):
    """The rows of one split, decoded and brought to the network's size.

    A training sample is a function of (seed, epoch, row): never of the worker, the process or the order.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        root: str | Path,
        mask_values: MaskEncoding,
        size: int,
        resize: Resize = "keep",
        mode: Mode = "train",
        seed: int = 0,
        transform: Transform | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Remembers where everything is; nothing is read yet.

        Args:
            rows: The split's rows; each must have a mask.
            root: Folder the rows' paths start from.
            mask_values: How a mask file's values become classes.
            size: Pixels of the longer side (`keep`) or of both (`squash`); 0 leaves images as they are.
            resize: How evaluation gets to that size; in training the transform decides.
            mode: What a sample looks like, see `Mode`.
            seed: Seed of the augmentation.
            transform: `transform(image, mask, seed) -> (image, mask)`, for `train` only.
            max_pixels: limit on an image's height times width.

        Raises:
            ConfigError: `train` without a transform, or a transform elsewhere.
        """
        if (transform is not None) != (mode == "train"):
            raise ConfigError(
                f"SegmentationDataset: expected a transform for mode 'train' and none for any other, found "
                f"mode {mode!r} and transform {transform!r}. data.transforms.TrainingTransform is one."
            )
        self.rows = list(rows)
        self.root = Path(root)
        self.mask_values = mask_values
        self.size = size
        self.resize: Resize = resize
        self.mode: Mode = mode
        self.seed = seed
        self.transform = transform
        self.cache: PixelCache | None = None
        """Keeps what `fixed` gives; the pixels are the same with and without."""
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int] | list[int]) -> Sample | list[Sample]:
        """Reads one row, or a list of them.

        Args:
            key: A row, an (epoch, row) pair from `EpochSampler` (a row alone means epoch 0), or rows.

        Returns:
            One sample, or a list of samples for a list.

        Raises:
            DataError: A file cannot be read, or mask and image differ in size.
        """
        if isinstance(key, list):
            return [self[row] for row in key]
        epoch, row = key if isinstance(key, tuple) else (0, int(key))
        if self.cache is None:
            image, mask = self.fixed(row)
        else:
            image, mask = self.cache.get(self.files(row), lambda: self.fixed(row))
        if self.mode == "train":
            return self._training_sample(image, mask, epoch, row)
        as_it_is = self.mode == "val" or not self.size
        valid = mask.shape if as_it_is else network_size(*mask.shape, self.size, self.resize)
        return Sample(
            image=torch.from_numpy(image),
            mask=torch.from_numpy(mask).long(),
            valid_size=torch.tensor(valid),
            row=torch.tensor(row),
        )

    def fixed(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """What is the same of a sample in every epoch.

        Args:
            row: Position in `rows`.

        Returns:
            `train`: image uint8 (H, W, 3) and mask uint8 (H, W), reduced to what the transform needs.
            `val`: the padded image uint8 (3, H', W'), rounded because it is kept from epoch to epoch, and the
            mask uint8 at the network's size. `test`: that image as float32, which prediction sees, and the
            mask at its own size; of size 0 the image as it is.

        Raises:
            DataError: A file cannot be read, or mask and image differ in size.
        """
        image, mask = self.read(row)
        if self.mode == "train":
            return shrink(image, mask, self.size, self.resize, self.transform.largest)
        if not self.size:
            return image.transpose(2, 0, 1), mask
        fitted, (height, width) = fit_image(
            torch.from_numpy(image).permute(2, 0, 1)[None], self.size, self.resize
        )
        if self.mode == "val":
            # the exact variant: plain INTER_NEAREST shifts masks by up to half a pixel of the result
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            fitted = fitted.round().to(torch.uint8)
        return fitted[0].numpy(), mask

    def fixed_bytes(self, row: int) -> int:
        """Size of what `fixed` gives in `train` and `val`, which caches keep, from the image's header."""
        height, width = read_image_size(self.root / self.rows[row].image, self.max_pixels)
        if self.mode == "train":
            height, width = downscaled_size(height, width, self.size, self.resize, self.transform.largest)
            return 4 * height * width
        valid_height, valid_width = network_size(height, width, self.size, self.resize)
        padded = (valid_height + -valid_height % MULTIPLE) * (valid_width + -valid_width % MULTIPLE)
        return 3 * padded + valid_height * valid_width

    def files(self, row: int) -> tuple[Path, Path]:
        """The row's image and mask."""
        return self.root / self.rows[row].image, self.root / self.rows[row].mask

    def settings(self) -> dict[str, Any]:
        """What decides about `fixed` besides the two files."""
        values = self.mask_values
        return {
            "mode": self.mode,
            "size": self.size,
            "resize": self.resize,
            "largest": self.transform.largest if self.transform else None,
            "mask_values": [sorted(map(str, values.mapping)), values.antialiased],
        }

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Decodes one row at its original size.

        Args:
            row: Position in `rows`.

        Returns:
            Image uint8 (H, W, 3), RGB, and mask uint8 (H, W), class index or 255.

        Raises:
            DataError: A file cannot be read, or mask and image differ in size.
        """
        entry = self.rows[row]
        image = read_image(self.root / entry.image, self.max_pixels)
        mask = read_mask(self.root / entry.mask, self.mask_values, self.max_pixels)
        if mask.shape != image.shape[:2]:
            raise DataError(
                f"{entry.mask}: expected the width x height of its image {entry.image}, "
                f"{image.shape[1]}x{image.shape[0]}, found {mask.shape[1]}x{mask.shape[0]}. "
                "Export the mask again at the image's size."
            )
        return image, mask

    def _training_sample(self, image: np.ndarray, mask: np.ndarray, epoch: int, row: int) -> Sample:
        """Varies one image by its own seed."""
        seed = int(np.random.SeedSequence((self.seed, epoch, row)).generate_state(1)[0])
        image, mask = self.transform(image, mask, seed)
        return Sample(
            image=torch.from_numpy(image).permute(2, 0, 1).contiguous(),
            mask=torch.from_numpy(mask).long(),
            valid_size=torch.tensor(mask.shape),
            row=torch.tensor(row),
        )


def start_worker(worker: int) -> None:
    """Keeps OpenCV from starting a thread per core in each of many worker processes.

    Args:
        worker: The worker's number, which nothing may depend on.
    """
    cv2.setNumThreads(0)


def collate(samples: list[Sample] | Sample) -> Batch:
    """Stacks the samples of an evaluation batch.

    Args:
        samples: Samples of one size; or a single one, when Trainer(overfit_batches=...) replaced the sampler.

    Returns:
        The batch.
    """
    return default_collate(samples if isinstance(samples, list) else [samples])
