"""Resizing as products of small matrices: the fast form in the runtimes of exported graphs.

It computes what `imaging.geometry` and the networks compute with `torch.nn.functional.interpolate`
(bilinear, align_corners=False), to float32's rounding. Every weight is a ratio of integers: sizes may be
unknown when the graph is made, and a runtime that computes in bfloat16 rounds weights but no positions.

One axis of a resize is a matrix; row r holds a triangle of weights around the centre of output pixel r. With
antialiasing most of it is zero, so the 16 rows of a tile are computed together from the span of input pixels
that they need::

    input pixels     0    1    2    3    4    5    6    7    8    9   10
    row r of tile 0       .    o    O    o    .      0 from `reach` on
    span of tile 0   [---------------------------]   first triangle's start to last triangle's end
    span of tile 1                  [--------------------------  they overlap as the triangles do
"""

import torch
from torch import Tensor

from nailseg.imaging.geometry import symbolic_max

TILE = 16
"""Output rows computed together. A tile's matrix is about nine tenths zero, a whole image's far more."""


def bilinear_matrix(target: int, size: int, device: torch.device) -> Tensor:
    """One axis of a bilinear resize from `size` to `target` pixels without antialiasing.

    Returns:
        float32 (target, size), to be multiplied with the pixels; rows sum to one.

    >>> bilinear_matrix(4, 2, torch.device("cpu")).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    rows = torch.arange(target, device=device)[:, None]
    pixels = torch.arange(size, device=device)[None]
    return _triangle(rows, pixels, target, size, 2 * target)


def resize_antialiased(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes float (N, C, H, W) to float (N, C, *size): bilinear with antialiasing where it reduces."""
    height, width = size
    pixels, weights = _tiles(height, image.shape[-2], image.device)
    # (N, C, tiles, span, W)
    spans = image.index_select(2, pixels.flatten()).unflatten(2, pixels.shape)
    image = (weights @ spans).flatten(2, 3)[:, :, :height]
    pixels, weights = _tiles(width, image.shape[-1], image.device)
    # (N, C, height, tiles, span)
    spans = image.index_select(3, pixels.flatten()).unflatten(3, pixels.shape)
    image = (spans.transpose(2, 3) @ weights.transpose(1, 2)).transpose(2, 3)
    return image.flatten(3)[..., :width]


def _tiles(target: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Input pixels of each tile, int64 (tiles, span), and their weights, float32 (tiles, TILE, span)."""
    reach = 2 * symbolic_max(target, size)
    first = TILE * torch.arange((target + TILE - 1) // TILE, device=device)[:, None]
    # from the start of the first row's triangle to the end of the last row's
    start = ((2 * first + 1) * size - reach).clamp(min=0) // (2 * target)
    span = ((TILE - 1) * size + reach) // target + 2
    pixels = start + torch.arange(span, device=device)
    rows = first + torch.arange(TILE, device=device)
    return pixels.clamp(max=size - 1), _triangle(rows[..., None], pixels[:, None], target, size, reach)


def _triangle(rows: Tensor, pixels: Tensor, target: int, size: int, reach: int) -> Tensor:
    """Weights that fall linearly from each row's centre to 0 at `reach`; float32, a row's sum is one.

    Distances are in units of 1 / (2 * size * target) of the axis, where the centres of rows and of pixels are
    integers.
    """
    distance = ((2 * pixels + 1) * target - (2 * rows + 1) * size).abs()
    weights = (reach - distance).clamp(min=0) * (pixels < size)
    return weights.float() / weights.sum(-1, keepdim=True).clamp(min=1).float()
