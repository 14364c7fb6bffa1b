"""Thousands of damaged files: an error, or the array that was written; never another exception or a hang."""

from __future__ import annotations

import io
import signal
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from nailseg.data.io.headers import read_header
from nailseg.data.io.images import decode_image
from nailseg.data.io.masks import decode_mask_values
from nailseg.errors import DataError
from tests.data.planted import draw_image, nail_mask

FORMATS = {
    "jpeg": (draw_image(0), {"format": "JPEG"}),
    "png": (draw_image(0), {"format": "PNG"}),
    "webp": (draw_image(0), {"format": "WEBP"}),
    "bmp": (draw_image(0), {"format": "BMP"}),
    "tiff": (draw_image(0), {"format": "TIFF", "compression": "tiff_deflate"}),
    "mask": (nail_mask(), {"format": "PNG"}),
    "palette": (nail_mask() // 255, {"format": "PNG", "mode": "P"}),
    "one bit": (nail_mask(), {"format": "PNG", "mode": "1"}),
}


def mutant(data: bytes, rng: np.random.Generator) -> bytes:
    """Changed bytes, a cut, a repeated or a lost stretch, or a large number in the header."""
    changed = bytearray(data)
    kind = rng.integers(5)
    start, stop = np.sort(rng.integers(0, len(data), 2))
    if kind == 0:
        for position in rng.integers(0, len(data), rng.integers(1, 9)):
            changed[position] = rng.integers(256)
    elif kind == 1:
        del changed[start:]
    elif kind == 2:
        del changed[start:stop]
    elif kind == 3:
        changed[start:start] = data[start : min(stop, start + 2000)]
    else:
        position = int(rng.integers(0, min(len(data), 200) - 4))
        changed[position : position + 4] = struct.pack(">I", int(rng.integers(2**32)))
    return bytes(changed)


def try_to_read(data: bytes, form: str, original: np.ndarray) -> str:
    """`read`, or the message of the error."""
    try:
        if original.ndim == 2:
            array, *_ = decode_mask_values(data, "x", 10**6)
        else:
            array = decode_image(data, "x", 10**6).pixels
    except DataError as error:
        return str(error)
    assert array.dtype in (np.uint8, np.uint16)
    assert array.shape[:2] == read_header(data, "x").size
    if form in ("png", "mask", "one bit"):
        # checksums guard every byte that matters: what is read is what was written
        assert np.array_equal(array, EXPECTED[form])
    return "read"


EXPECTED: dict[str, np.ndarray] = {}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_mutants(form: str) -> None:
    original, options = FORMATS[form]
    options = dict(options)
    image = Image.fromarray(original)
    mode = options.pop("mode", None)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, **options)
    data = buffer.getvalue()
    is_mask = original.ndim == 2
    EXPECTED[form] = decode_mask_values(data, "x").values if is_mask else decode_image(data, "x").pixels
    rng, outcomes = np.random.default_rng(0), []
    with warnings.catch_warnings():
        # the test's own warning filter would turn a decoder's warning into an error
        warnings.simplefilter("ignore")
        for _ in range(400):
            signal.alarm(20)  # a hang ends the test run
            outcomes.append(try_to_read(mutant(data, rng), form, original))
            signal.alarm(0)
    errors = [outcome for outcome in outcomes if outcome != "read"]
    assert len(errors) > 100
    assert all(outcome.startswith("x: expected ") for outcome in errors)
