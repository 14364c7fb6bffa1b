"""Resize and padding as torch operations: what evaluation and prediction share, and exports agree with.

Sizes are plain arithmetic that may be unknown at export time. Exported graphs take them and the padding from
here, and resize in their runtimes' fast way (`resampling`): the same to 1e-3 of a grey level, which is the
rounding of torch's own float32.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Resize = Literal["keep", "squash"]
"""How an image gets to the network's size: `keep` its aspect ratio and pad, or `squash` it into a square."""

PAD_VALUE = 114
"""Grey level of image padding: close to ImageNet's mean, hence about zero once the model has normalised."""

MULTIPLE = 32
"""SegFormer halves its input five times; other sizes work but cost 0.5 to 1 point of mean IoU."""


def network_size(height: int, width: int, size: int, resize: Resize) -> tuple[int, int]:
    """Height and width an image is resized to, before padding.

    Args:
        height: The image's height in pixels.
        width: The image's width in pixels.
        size: Pixels of the longer side (`keep`, which also enlarges) or of both sides (`squash`).
        resize: `keep` or `squash`.

    Returns:
        Height and width, each at least 1 and at most `size`.
    """
    if resize == "squash":
        return size, size
    # whole numbers only: exact, and traceable when height and width are symbols of an export
    longer = larger(height, width)
    return (
        larger(1, (2 * height * size + longer) // (2 * longer)),
        larger(1, (2 * width * size + longer) // (2 * longer)),
    )


def larger(one: int, other: int) -> int:
    """The larger of two sizes, which an export may not know."""
    # torch.export gives symbols for sizes, torch.jit.trace tensors
    return other.clamp(min=one) if isinstance(other, Tensor) else torch.sym_max(one, other)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes with antialiasing and keeps the fractions of grey levels.

    Rounding would be cheaper to store, but a value between two levels rounds one way here and the other way
    in another runtime: probabilities of an export were off by 1.6e-3, which are off by 2e-5 without.

    Args:
        image: uint8 or float (N, 3, H, W), RGB, 0..255.
        size: Height and width to reach.

    Returns:
        float32 (N, 3, h, w), 0..255.
    """
    return F.interpolate(image.float(), size=size, mode="bilinear", antialias=True, align_corners=False)


def pad(image: Tensor, multiple: int = MULTIPLE) -> Tensor:
    """Pads on the right and at the bottom with `PAD_VALUE`.

    Args:
        image: uint8 or float (N, 3, H, W), 0..255.
        multiple: Both sides become multiples of it.

    Returns:
        The image's type, (N, 3, H', W'), with the image at the top left.
    """
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple), value=PAD_VALUE)


def fit_image(image: Tensor, size: int, resize: Resize = "keep") -> tuple[Tensor, tuple[int, int]]:
    """Turns images into the network's input: resized, then padded to a multiple of 32.

    The padding depends on the image's own size alone, never on its neighbours in a batch: 64 pixels more of
    it move logits by half their scale.

    Args:
        image: uint8 (N, 3, H, W), RGB, 0..255.
        size: Pixels of the longer side (`keep`) or of both sides (`squash`).
        resize: `keep` or `squash`.

    Returns:
        The padded float32 (N, 3, H', W'), and height and width of the image inside it.
    """
    valid = network_size(image.shape[-2], image.shape[-1], size, resize)
    return pad(resize_image(image, valid)), valid


def restore_logits(logits: Tensor, valid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Brings the logits of a padded input back to the original image; argmax comes after it, never before.

    Args:
        logits: float (N, C, H', W'), of the padded input.
        valid: Height and width of the image inside the padding, from `fit_image`.
        target: Height and width of the original image.

    Returns:
        float (N, C, H, W).
    """
    cropped = logits[..., : valid[0], : valid[1]]
    return F.interpolate(cropped, size=target, mode="bilinear", align_corners=False)
