"""Resizing as products of small matrices, for exported graphs: in their runtimes it is the fast way.

What is computed is what `geometry` and the networks compute with `torch.nn.functional.interpolate` (bilinear,
align_corners=False), to float32's rounding. Every weight is a ratio of whole numbers: sizes may be unknown
when the graph is made, and a runtime that computes in bfloat16 rounds weights but no positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nailseg.imaging.geometry import symbolic_max

TILE = 16
"""Rows of a result that are made together. Most of a whole image's matrix is zero; of the matrix that makes
16 rows from the stretch of pixels they need, about a tenth is not."""


def bilinear_matrix(reached: int, size: int, device: torch.device) -> Tensor:
    """One axis of a bilinear resize without antialiasing: `bilinear_matrix(...) @ pixels`.

    Args:
        reached: pixels to reach.
        size: pixels there are.
        device: where to make it.

    Returns:
        float32 (reached, size), rows that sum to one.
    """
    rows = torch.arange(reached, device=device)[:, None]
    pixels = torch.arange(size, device=device)[None]
    return _triangle(rows, pixels, reached, size, 2 * reached)


def resize_antialiased(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Both axes of a bilinear resize with antialiasing; where it enlarges, the plain one.

    Args:
        image: float (N, C, H, W).
        size: height and width to reach.

    Returns:
        float (N, C, *size).
    """
    height, width = size
    pixels, weights = _stretches(height, image.shape[-2], image.device)
    stretches = image.index_select(2, pixels.flatten()).unflatten(
        2, pixels.shape
    )  # (N, C, tiles, stretch, W)
    image = (weights @ stretches).flatten(2, 3)[:, :, :height]
    pixels, weights = _stretches(width, image.shape[-1], image.device)
    stretches = image.index_select(3, pixels.flatten()).unflatten(
        3, pixels.shape
    )  # (N, C, h, tiles, stretch)
    image = (stretches.transpose(2, 3) @ weights.transpose(1, 2)).transpose(2, 3)
    return image.flatten(3)[..., :width]


def _stretches(reached: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of what each tile is made, int64 (tiles, stretch), and how, float32 (tiles, TILE, stretch)."""
    reach = 2 * symbolic_max(reached, size)
    first = TILE * torch.arange((reached + TILE - 1) // TILE, device=device)[:, None]
    # where the first row's triangle begins, and pixels to where the last row's ends
    start = ((2 * first + 1) * size - reach).clamp(min=0) // (2 * reached)
    stretch = ((TILE - 1) * size + reach) // reached + 2
    pixels = start + torch.arange(stretch, device=device)
    rows = first + torch.arange(TILE, device=device)
    return pixels.clamp(max=size - 1), _triangle(rows[..., None], pixels[:, None], reached, size, reach)


def _triangle(rows: Tensor, pixels: Tensor, reached: int, size: int, reach: int) -> Tensor:
    """Weights that fall linearly from each row's centre to 0 at `reach`; float32, a row's sum is one.

    Distances are counted in units of 1 / (2 * size * reached) of the axis: there the centres of rows and of
    pixels, which begin at 0, are whole numbers.
    """
    distance = ((2 * pixels + 1) * reached - (2 * rows + 1) * size).abs()
    weights = (reach - distance).clamp(min=0) * (pixels < size)
    return weights.float() / weights.sum(-1, keepdim=True).clamp(min=1).float()
