"""Draws masks over images, and encodes images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ImageColor

from nailseg.errors import OutputError
from nailseg.imaging.figures import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION, YELLOW
from nailseg.types import IGNORE_INDEX

PALETTE = (GREEN, ORANGE, SKY_BLUE, PURPLE, YELLOW, BLUE, VERMILLION)


def class_color(index: int) -> str:
    """Returns the colour of a foreground class as "#rrggbb"; `PALETTE` repeats."""
    return PALETTE[(index - 1) % len(PALETTE)]


def blend(pixels: np.ndarray, color: str, opacity: float) -> np.ndarray:
    """Mixes pixels, uint8 (..., 3) RGB, with a colour ("#rrggbb") whose share is `opacity`, 0..1."""
    rgb = np.array(ImageColor.getrgb(color), np.float32)
    return np.rint((1 - opacity) * pixels + opacity * rgb).astype(np.uint8)


def draw_overlay(image: np.ndarray, mask: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Fills the classes of a mask with their colours and draws their outlines.

    Args:
        image: uint8 (H, W, 3), RGB.
        mask: Integer (H, W), class index; 0 and 255 are not drawn.
        opacity: Of the fill, 0..1.

    Returns:
        uint8 (H, W, 3), RGB; a new array.
    """
    drawn = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 400))
    for index in sorted({*np.unique(mask).tolist()} - {0, IGNORE_INDEX}):
        region = mask == index
        drawn[region] = blend(image[region], class_color(index), opacity)
        outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, (255, 255, 255), thickness, cv2.LINE_AA)
    return drawn


def concat_horizontal(images: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Concatenates images of one height (uint8 (H, W, 3), RGB) from left to right, with white gaps."""
    white = np.full((images[0].shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, white)][:-1], axis=1)


def concat_vertical(images: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Concatenates images (uint8 (H, W, 3), RGB) from top to bottom, with white gaps and right padding."""
    width = max(image.shape[1] for image in images)
    padded = [
        np.pad(image, ((0, gap), (0, width - image.shape[1]), (0, 0)), constant_values=255)
        for image in images
    ]
    return np.concatenate(padded)[:-gap]


def wandb_masks(class_names: Sequence[str], **masks: np.ndarray) -> dict[str, dict[str, Any]]:
    """The `masks` of a W&B image: integer (H, W), class index or 255, by title."""
    labels = dict(enumerate(class_names)) | {IGNORE_INDEX: "ignored"}
    return {key: {"mask_data": mask.astype(np.int64), "class_labels": labels} for key, mask in masks.items()}


def encode_image(image: np.ndarray, suffix: str, quality: int = 92) -> bytes:
    """Encodes an image as the bytes of an image file.

    Args:
        image: uint8 (H, W, 3) RGB, or uint8 or uint16 (H, W) grey.
        suffix: File format: .png, .jpg, .webp, …
        quality: Of a JPEG, 0..100.

    Raises:
        OutputError: The format cannot hold an image of this size.
    """
    pixels = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)  # OpenCV expects BGR
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in (".jpg", ".jpeg") else []
    try:
        success, content = cv2.imencode(suffix, pixels, options)
    except cv2.error:
        success = False
    if not success:
        height, width = image.shape[:2]
        raise OutputError(
            f"expected an image that fits into {suffix}, found {width} x {height} pixels. JPEG allows "
            "sides of up to 65,500 pixels, WebP of up to 16,383; PNG allows more."
        )
    return content.tobytes()


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Writes uint8 (H, W, 3) RGB or (H, W) grey as PNG."""
    Path(path).write_bytes(encode_image(image, ".png"))
