"""Masks drawn over images, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from nailseg.errors import OutputError
from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence

# Okabe & Ito 2008; index 0 is the background, which is never painted
PALETTE = np.array(
    [
        (0, 0, 0),
        (0, 158, 115),
        (230, 159, 0),
        (86, 180, 233),
        (204, 121, 167),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
    ],
    np.uint8,
)
OUTLINE = (255, 255, 255)


def class_color(index: int) -> tuple[int, int, int]:
    """RGB of a class; the palette repeats after seven foreground classes."""
    color = PALETTE[0] if index == 0 else PALETTE[1 + (index - 1) % (len(PALETTE) - 1)]
    return int(color[0]), int(color[1]), int(color[2])


def overlay(image: np.ndarray, mask: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Paints the classes of a mask over an image and draws their outlines.

    Args:
        image: uint8 (H, W, 3), RGB.
        mask: integer (H, W), class index; 0 and 255 stay unpainted.
        opacity: of the paint, 0..1.

    Returns:
        uint8 (H, W, 3), RGB; a new array.
    """
    painted = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 400))
    for index in np.unique(mask):
        if index in (0, IGNORE_INDEX):
            continue
        region = mask == index
        color = np.array(class_color(int(index)), np.float32)
        painted[region] = np.rint((1 - opacity) * image[region] + opacity * color).astype(np.uint8)
        outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(painted, outlines, -1, OUTLINE, thickness, cv2.LINE_AA)
    return painted


def side_by_side(images: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Puts images of one height in a row, white gaps between them; uint8 (H, W, 3) each, RGB."""
    height = images[0].shape[0]
    white = np.full((height, gap, 3), 255, np.uint8)
    row = [part for picture in images for part in (picture, white)][:-1]
    return np.concatenate(row, axis=1)


def contact_sheet(rows: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Stacks images (uint8 (H, W, 3), RGB) of any size below each other, padded with white on the right."""
    width = max(row.shape[1] for row in rows)
    sheet = []
    for row in rows:
        sheet.append(np.pad(row, ((0, gap), (0, width - row.shape[1]), (0, 0)), constant_values=255))
    return np.concatenate(sheet)[:-gap]


def encoded(image: np.ndarray, suffix: str) -> bytes:
    """An image file's bytes; cv2 is told the colour order once, here.

    Args:
        image: uint8 (H, W, 3) RGB, or uint8 or uint16 (H, W) grey.
        suffix: its kind: .png, .jpg, .webp, …

    Raises:
        OutputError: the format takes no image so large.
    """
    pixels = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    try:
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix in (".jpg", ".jpeg") else []
        done, content = cv2.imencode(suffix, pixels, quality)
    except cv2.error:
        done = False
    if not done:
        height, width = image.shape[:2]
        raise OutputError(
            f"expected an image that fits into {suffix}, found {width} x {height} pixels. JPEG takes "
            "sides of up to 65,500, WebP of up to 16,383; PNG takes more."
        )
    return content.tobytes()


def write_png(path: str, picture: np.ndarray) -> None:
    """Writes uint8 (H, W, 3) RGB or (H, W) grey as PNG."""
    with open(path, "wb") as file:
        file.write(encoded(picture, ".png"))
