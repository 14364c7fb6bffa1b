"""Resizing and padding as torch operations, shared by evaluation, inference and export.

Sizes may be symbols at export time. Exported graphs use the sizes and the padding of this module, and resize
with `export.resampling`, which is faster in their runtimes: equal to 1e-3 of a grey level, the rounding error
of torch's own float32.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Resize = Literal["keep", "squash", "shortest", "none", "crop"]
"""How images are resized for the network, before padding: `keep` the aspect ratio, with the longer side of a
given size; `squash` into a square; `shortest`, as `keep` with the shorter side; `none`, at their own size.
`crop` resizes nothing either: it trains on crops of a size, and predicts tiles of that size."""

PAD_VALUE = 114
"""Grey level of the padding: close to ImageNet's mean, hence about zero after normalisation."""

MULTIPLE = 32
"""SegFormer halves its input five times; other sizes work, but lose 0.5 to 1 point of mean IoU."""


def network_size(height: int, width: int, size: int | Sequence[int], resize: Resize) -> tuple[int, int]:
    """Computes the height and width that an image is resized to, before padding.

    Args:
        height: The image's height in pixels.
        width: The image's width in pixels.
        size: Pixels of the longer (`keep`, which also enlarges), shorter (`shortest`) or both sides
            (`squash`, which takes height and width, too).
        resize: See `Resize`; `crop` is for tiles, which already have the size.

    Returns:
        Height and width, each at least 1; with `crop` and `none` those of the image.

    >>> network_size(3000, 4000, 512, "keep")
    (384, 512)
    """
    if resize in ("crop", "none"):
        return height, width
    if resize == "squash":
        return (size, size) if isinstance(size, int) else tuple(size)
    # integers only: exact, and traceable when height and width are symbols of an export
    longer = symbolic_max(height, width)
    if resize == "shortest":  # rounded down, as in transformers
        shorter = height + width - longer
        return height * size // shorter, width * size // shorter
    rows, columns = (symbolic_max(1, (2 * side * size + longer) // (2 * longer)) for side in (height, width))
    return rows, columns


def symbolic_max(one: int, other: int) -> int:
    """Returns the larger of two sizes, which are symbols in torch.export and tensors in torch.jit.trace."""
    return other.clamp(min=one) if isinstance(other, Tensor) else torch.sym_max(one, other)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes with antialiasing, without rounding to whole grey levels.

    Values halfway between two levels would be rounded differently in other runtimes: the probabilities of
    exported files differed by 1.6e-3 with rounding, and by 2e-5 without.

    Args:
        image: uint8 or float (N, 3, H, W), RGB, 0..255.
        size: Height and width to reach.

    Returns:
        float32 (N, 3, h, w), 0..255.
    """
    return F.interpolate(image.float(), size=size, mode="bilinear", antialias=True, align_corners=False)


def pad(image: Tensor) -> Tensor:
    """Pads uint8 or float (N, 3, H, W), 0..255, on the right and at the bottom with `PAD_VALUE`.

    Returns:
        The image's type, (N, 3, H', W'); both sides are multiples of `MULTIPLE`.
    """
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % MULTIPLE, 0, -height % MULTIPLE), value=PAD_VALUE)


def fit_image(image: Tensor, size: int, resize: Resize = "keep") -> tuple[Tensor, tuple[int, int]]:
    """Resizes images for the network and pads them to a multiple of `MULTIPLE`.

    The padding depends on the image's own size alone, not on its batch: 64 more pixels of padding change
    logits by half their scale.

    Args:
        image: uint8 (N, 3, H, W), RGB, 0..255.
        size: As `resize`, see `network_size`.
        resize: How to resize.

    Returns:
        The padded float32 (N, 3, H', W'), and height and width of the image inside it.
    """
    valid = network_size(*image.shape[-2:], size, resize)
    return pad(resize_image(image, valid)), valid


def restore_logits(logits: Tensor, valid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Crops and upsamples the logits of a padded input to the original size; argmax comes after, not before.

    Args:
        logits: float (N, C, H', W'), of the padded input.
        valid: Height and width of the image inside the padding, from `fit_image`.
        target: Height and width of the original image.

    Returns:
        float (N, C, H, W).
    """
    cropped = logits[..., : valid[0], : valid[1]]
    return F.interpolate(cropped, size=target, mode="bilinear", align_corners=False)
