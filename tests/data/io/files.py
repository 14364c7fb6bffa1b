"""Writes image files for tests."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from nailseg.data.io.images import read_bytes
from nailseg.data.io.masks import decode_mask_values


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def read_mask_values(path: Path, colors: bool = False) -> np.ndarray:
    return decode_mask_values(read_bytes(path), str(path), colors=colors)[0]
