"""What travels between the rooms: samples, batches and the one value that means "do not count"."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

IGNORE_INDEX = 255
"""Mask value of pixels that belong to no class: padding, and what the annotator left open."""


class Sample(TypedDict):
    """One row of the data set, ready to be stacked into a `Batch`.

    Attributes:
        image: uint8 (3, H, W), RGB, 0..255. In evaluation resized and padded as `geometry.Resize` says, and
            float32 with fractions of grey levels in validate and test.
        mask: int64 (H', W'), class index or 255. In training H' = H and W' = W; in evaluation the mask is at
            the image's size inside the padding (fit's validation) or at the mask file's own size (validate
            and test).
        valid_size: int64 (2,), height and width of the image inside the padding.
        row: int64 (), position among the split's rows, which names it whatever rank or worker read it.
    """

    image: Tensor
    mask: Tensor
    valid_size: Tensor
    row: Tensor


class Batch(TypedDict):
    """Samples of one shape stacked along a first dimension N.

    Attributes:
        image: uint8 or float32 (N, 3, H, W), 0..255.
        mask: int64 (N, H', W').
        valid_size: int64 (N, 2); in evaluation all rows are equal, because batches hold equal sizes only.
        row: int64 (N,).
    """

    image: Tensor
    mask: Tensor
    valid_size: Tensor
    row: Tensor
