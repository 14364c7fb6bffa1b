"""A valid data set, to which tests add issues."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SPLITS = ["train"] * 20 + ["val"] * 5 + ["test"] * 5


def draw_image(seed: int) -> np.ndarray:
    """uint8 (96, 128, 3): smooth enough for JPEG, unrelated to the images of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (128, 96), interpolation=cv2.INTER_CUBIC)


def nail_mask(number: int = 0) -> np.ndarray:
    """uint8 (96, 128), 0 and 255: two nails."""
    mask = np.zeros((96, 128), np.uint8)
    mask[20:40, 10 + number : 50 + number] = 255
    mask[60:70, 80:100] = 255
    return mask


def write_data_set(root: Path) -> Path:
    """Thirty valid pairs and their dataset.csv: rows 0-19 train, 20-24 val, 25-29 test."""
    lines = ["image,mask,split,group"]
    for folder in ("Images", "Masks"):
        (root / folder).mkdir()
    for number, split in enumerate(SPLITS):
        Image.fromarray(draw_image(number)).save(root / f"Images/{number}.jpg", quality=90)
        Image.fromarray(nail_mask(number)).save(root / f"Masks/{number}.png")
        lines.append(f"Images/{number}.jpg,Masks/{number}.png,{split},g{number}")
    (root / "dataset.csv").write_text("\n".join(lines) + "\n")
    return root
