"""The one place that turns files into images and masks.

Rules, the same for both files of a pair:

- Bytes are read, then decoded: `cv2.imread` of a truncated JPEG gives an array of rubbish, `imdecode` gives
  none.
- The header comes first; more than `MAX_PIXELS` is refused before anything is decoded.
- Images are turned upright by their own EXIF tag (JPEG, PNG, WebP, TIFF); `cv2` is told to leave it alone.
- Images: grey becomes RGB; 16 bits are scaled by 1/257; CMYK JPEG is converted; transparent parts are laid
  over white, as nearly every viewer shows them. Colour profiles are not applied. Of a JPEG that carries more
  images (MPO, motion photos) the first one is taken.
- Masks: values stay what the file says. 1-bit is 0/255; a palette gives its indices unless it is a grey ramp
  (then it stands for the greys); three equal channels are one; opaque alpha is dropped; where alpha alone
  varies, alpha is the mask.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from nailseg.data.io import decoding, masks
from nailseg.data.io.exif import apply_orientation
from nailseg.data.io.headers import Header, damaged, read_header
from nailseg.data.issues import IssueError
from nailseg.data.mask_encoding import MaskEncoding

MAX_PIXELS = 200_000_000
"""Default limit on height times width: above any camera, below what a 2-core machine's memory stands."""

PILLOW_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa")


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a JPEG, PNG, WebP, BMP or TIFF of at most `max_pixels`, height times width.

    Returns:
        uint8 (H, W, 3), RGB, upright.

    Raises:
        IssueError: (a `DataError`) for whatever cannot be trusted; its message says the way out.
    """
    return decode_image(read_bytes(path), str(path), max_pixels)


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """`read_image` for bytes at hand; `name` is what errors call them."""
    header = _header(data, name, max_pixels, verify=True)
    if header.bits > 8:
        image = decoding.scale_to_8_bits(decoding.decode_deep(data, header, name), name)
    elif (header.kind == "jpeg" and header.channels != "other") or _plain_png(header):
        image = decoding.decode_by_cv2(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION, name)
    else:
        image = _image_by_pillow(data, header, name)
    return apply_orientation(image, header.orientation)


def read_mask_values(path: str | Path, max_pixels: int = MAX_PIXELS, colors: bool = False) -> np.ndarray:
    """Reads a mask as the file has it; `colors` expands palettes to their colours instead of their indices.

    Returns:
        uint8 (H, W) values, greys or palette indices; uint16 (H, W) where a 16-bit file needs more than 255;
        or uint8 (H, W, 3) for colour masks. Upright.

    Raises:
        IssueError: for whatever cannot be trusted.
    """
    return decode_mask_values(read_bytes(path), str(path), max_pixels, colors)[0]


def read_mask(path: str | Path, values: MaskEncoding, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a mask as classes: `read_mask_values`, given the meaning that `values` says.

    Returns:
        uint8 (H, W), class index, 255 where no class counts. Upright.

    Raises:
        IssueError: for whatever cannot be trusted, values without a class included.
    """
    raw, lossy = decode_mask_values(read_bytes(path), str(path), max_pixels, values.has_colors)
    return values.apply(raw, lossy, str(path))


def read_image_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of the upright image, from the header: nothing is decoded.

    Raises:
        IssueError: `missing-file`, `empty-file`, `unreadable`, `multi-frame` or `too-large`.
    """
    name = str(path)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _header(view, name, max_pixels, verify=False).size
    except (OSError, ValueError):  # missing, a folder, empty, or a file that cannot be mapped
        return _header(read_bytes(path), name, max_pixels, verify=False).size


def decode_mask_values(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS, colors: bool = False
) -> tuple[np.ndarray, bool]:
    """`read_mask_values` for bytes at hand, and whether the file is lossy."""
    header = _header(data, name, max_pixels, verify=True)
    if header.bits > 8:
        raw = decoding.decode_deep(data, header, name)
    elif header.channels == "palette":
        raw = masks.palette_values(data, header, name, colors)
    elif header.kind == "png" or (header.kind == "jpeg" and header.channels != "other"):
        # GRAYSCALE for grey: it expands 1, 2 and 4 bits to 0..255 and ignores tRNS; UNCHANGED keeps alpha
        flag = cv2.IMREAD_GRAYSCALE if header.channels == "grey" else cv2.IMREAD_UNCHANGED
        raw = decoding.to_rgb(decoding.decode_by_cv2(data, flag | cv2.IMREAD_IGNORE_ORIENTATION, name))
    else:
        raw = masks.values_by_pillow(data, header, name)
    return apply_orientation(masks.one_channel(raw, header, name), header.orientation), header.lossy


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes, or the fault that says why not."""
    try:
        return Path(path).read_bytes()
    except IsADirectoryError:
        problem = "not-a-file", "expected a file, found a folder", "Name the file inside it."
    except FileNotFoundError:
        fix = "Put it there, or correct the CSV or the data root."
        problem = "missing-file", "expected a file, found nothing", fix
    except OSError as error:
        message = f"expected a file that opens, found {error.strerror or error}"
        problem = "missing-file", message, "Check its permissions and the disk."
    code, message, fix = problem
    raise IssueError(code, path, message, fix)


def _header(data: bytes | mmap.mmap, name: str, max_pixels: int, verify: bool) -> Header:
    header = read_header(data, name, verify)  # type: ignore[arg-type]  # a memory map slices like bytes
    if header.height * header.width > max_pixels:
        message = f"expected at most {max_pixels:,} pixels, found {header.width} x {header.height}"
        fix = "Make it smaller; for training and check, --data.max_pixels and --max-pixels raise the limit."
        raise IssueError("too-large", name, message, fix)
    if header.height * header.width == 0:
        raise damaged(name, f"{header.width} x {header.height} pixels")
    if header.frames > 1:
        message = f"expected one image, found {header.frames} frames or pages"
        raise IssueError("multi-frame", name, message, "Save the one you mean as PNG or JPEG.")
    return header


def _plain_png(header: Header) -> bool:
    return header.kind == "png" and header.channels in ("grey", "colour") and not header.transparent


def convert_pillow_image(picture: Image.Image, name: str = "the PIL image") -> np.ndarray:
    """An image that Pillow has open, as `read_image` gives the same file.

    Returns:
        uint8 (H, W, 3), RGB, upright.

    Raises:
        IssueError: `image-format` for forms that files may not have either, such as 32 bits.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        return decoding.scale_to_8_bits(np.asarray(picture).astype(np.uint16), name)
    if picture.mode not in PILLOW_MODES:
        message = f"expected 8- or 16-bit grey or colour, found Pillow's mode {picture.mode}"
        raise IssueError("image-format", name, message, "Turn it into 8 bits the way you want it seen.")
    return _in_8_bits(picture)


def _image_by_pillow(data: bytes, header: Header, name: str) -> np.ndarray:
    picture = decoding.load_by_pillow(data, name)
    if picture.mode not in PILLOW_MODES:
        raise decoding.unsupported_format(header, name)
    return _in_8_bits(picture)


def _in_8_bits(picture: Image.Image) -> np.ndarray:
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        return decoding.over_white(np.array(picture.convert("RGBA")))
    return np.array(picture.convert("RGB"))
