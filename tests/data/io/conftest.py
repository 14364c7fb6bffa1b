"""A small image and a small mask."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rgb() -> np.ndarray:
    """uint8 (20, 30, 3) without symmetry, smooth enough for JPEG."""
    rows, columns = np.mgrid[0:20, 0:30]
    return np.stack([rows * 12, columns * 8, 255 - rows * 5 - columns * 2], axis=2).astype(np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    """uint8 (20, 30), 0 and 1, without symmetry."""
    drawn = np.zeros((20, 30), np.uint8)
    drawn[3:9, 4:20] = 1
    drawn[12:15, 22:28] = 1
    return drawn
