"""Format, size and EXIF orientation of an image file, from its header: no pixel is decoded here.

The first bytes decide the format, and Pillow's plugin of that format reads the header. `PIL.Image.open` is
not used: it tries every format that Pillow knows, and its pixel limit applies to the whole process.
"""

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ExifTags import Base
from PIL.Image import Exif, Image
from PIL.ImageFile import ImageFile

from nailseg.data.issues import IssueError

IMAGE_SUFFIXES = {
    **{".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"},
    **{".bmp": "bmp", ".tif": "tiff", ".tiff": "tiff", ".gif": "gif"},
    **{".avif": "avif", ".heic": "heif", ".heif": "heif"},
}
"""Lower-case suffix -> format of the images that are read. A folder is searched by suffix; the format of a
file is decided by its first bytes."""

FORMATS = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC"
_SIGNATURES: dict[bytes, type[ImageFile] | str] = {
    rb"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    rb"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    rb"RIFF....WEBP": WebPImagePlugin.WebPImageFile,
    rb"BM": BmpImagePlugin.BmpImageFile,
    rb"II[*+]\0|MM\0[*+]": TiffImagePlugin.TiffImageFile,
    rb"GIF8": GifImagePlugin.GifImageFile,
    rb"....ftypavi[fs]": AvifImagePlugin.AvifImageFile,
    rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)": "HEIC",
    rb"%PDF": "a PDF",
    rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b": "an archive (unpack it)",
    rb"(?i)\s*<(!doctype|html)": "a web page",
    rb"....ftyp": "a video, as phones write it",
}
"""First bytes -> Pillow's plugin, or the name of a format that is not read."""
_CHANNELS = {
    **dict.fromkeys(("1", "L", "I;16", "I;16B", "I;16L"), "gray"),
    **{"P": "palette", "RGB": "color", "LA": "gray+alpha", "RGBA": "color+alpha"},
}
TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")
"""Pillow's modes with an alpha channel, of 8 bits per channel."""
EXTRA_SAMPLES = 338  # the TIFF tag that says what bands beyond the colors are
_WARNINGS_LOCK = threading.Lock()  # `warnings.catch_warnings` is not safe in threads


@dataclass(frozen=True)
class Header:
    """What the header of an image file states."""

    format: str  # a value of `IMAGE_SUFFIXES`
    height: int  # stored rows and columns, before the orientation is applied
    width: int
    orientation: int  # EXIF orientation 1..8 that the decoders used here leave to be applied
    channels: str  # gray, color or palette, the first two also with +alpha; or other (CMYK, float, ...)
    bits: int  # per channel; 8 where a PNG has fewer
    lossy: bool = False  # the stored values are approximate (JPEG, lossy WebP, AVIF, HEIC)
    frames: int = 1
    transparent: bool = False  # PNG only: a tRNS chunk makes one value (or palette entries) transparent
    profile: bytes | None = None  # the ICC profile

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_header(data: bytes | BinaryIO, name: str, verify: bool = False) -> Header:
    """Reads the header of an image.

    Args:
        data: the file's bytes, or the open file, of which only the needed parts are read then.
        name: what errors call the file.
        verify: check a PNG's checksums to its end, which cv2 does not do.

    Raises:
        IssueError: `empty-file`, or `unreadable` for damaged headers and unknown formats.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    image = open_image(file, name)
    with reported_damage(name):
        format_, form, bits, exif = image.format.lower(), image.mode, 8, image.info.get("exif", b"")
        lossy = format_ in ("jpeg", "avif", "heif") or (format_ == "webp" and _is_lossy_webp(file))
        if format_ == "png":
            form, _, depth = image.tile[0].args.partition(";")  # the mode is RGB for RGB;16B, too
            form, bits = ("L" if form == "I" else form), (16 if depth == "16B" else 8)
            exif = _read_png_to_end(file, verify)
        elif format_ == "heif":
            exif = b""  # pillow_heif applies the rotation, and gives the upright size
        elif format_ == "tiff":
            bits = max(image.tag_v2.get(Base.BitsPerSample, (8,)))
            lossy = image.info.get("compression") == "jpeg"
            exif = b""  # both decoders apply the orientation of a TIFF, and this size is the upright one
            form = form if has_alpha(image) else form.removesuffix("A")
        channels, orientation = _CHANNELS.get(form, "other"), _read_orientation(exif)
        frames, transparent = getattr(image, "n_frames", 1), format_ == "png" and "transparency" in image.info
        size, profile = (image.height, image.width), image.info.get("icc_profile") or None
        return Header(format_, *size, orientation, channels, bits, lossy, frames, transparent, profile)


def is_image(start: bytes) -> bool:
    """Whether a file with these first 12 bytes is of a format that is read."""
    found = (plugin for signature, plugin in _SIGNATURES.items() if re.match(signature, start, re.DOTALL))
    plugin = next(found, "")
    return plugin == "HEIC" or not isinstance(plugin, str)


def open_image(file: BinaryIO, name: str) -> ImageFile:
    """Opens a file with Pillow, which reads the header only; raises as `read_header`."""
    start = file.read(12)
    file.seek(0)
    if not start:
        raise IssueError("empty-file", name, "expected an image, found 0 bytes", "Copy the file again.")
    matches = [found for signature, found in _SIGNATURES.items() if re.match(signature, start, re.DOTALL)]
    plugin = matches[0] if matches else f"none of them by its first bytes {start[:4].hex(' ')}"
    if plugin == "HEIC":
        try:
            from pillow_heif import HeifImageFile as plugin
        except ImportError:
            message = "expected a format that is installed, found HEIC, as iPhones write it"
            fix = "Run: pip install 'nailseg[heif]', or save it as JPEG."
            raise IssueError("unreadable", name, message, fix) from None
    if isinstance(plugin, str):
        message = f"expected {FORMATS}, found {plugin}"
        raise IssueError("unreadable", name, message, "Save it as PNG or JPEG.")
    with reported_damage(name), _no_warnings():
        return plugin(file)


@contextlib.contextmanager
def reported_damage(name: str) -> Iterator[None]:
    """Turns errors into an `IssueError`: damaged bytes can break parsers and decoders in many ways."""
    try:
        yield
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:
        text = str(getattr(error, "err", error)).strip().rstrip(".") or type(error).__name__
        if deep := re.fullmatch(r"cannot handle (\d+-bit) layers", text):  # Pillow's words
            raise unsupported_format(f"a {deep[1]} JPEG", name) from error
        message = f"expected a whole image, found a truncated or damaged file ({text})"
        fix = "Copy or export it again, or take its row out of the CSV."
        raise IssueError("unreadable", name, message, fix) from error


def unsupported_format(found: str, name: str) -> IssueError:
    """The error of a whole file whose values cannot be read as colors."""
    message = f"expected 8- or 16-bit gray or color, found {found}"
    return IssueError("image-format", name, message, "Convert it to 8 bits the way you want it seen.")


def apply_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    """Applies EXIF orientation 1..8 to (H, W[, C]): the result is upright.

    Examples:
        >>> apply_orientation(np.array([[1, 2, 3]]), 6).tolist()  # stored rotated by 90 degrees
        [[1], [2], [3]]
    """
    if orientation == 1:
        return array
    turned = array.swapaxes(0, 1) if orientation >= 5 else array  # then 5..8 differ by flips alone
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(turned[::rows, ::columns])


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Silences Pillow's warnings about EXIF blocks that it cannot parse: they do not matter here."""
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def has_alpha(image: Image) -> bool:
    """Whether an image that Pillow has open has transparency; a TIFF's fourth band if its tags say so."""
    # Pillow takes an untagged band for alpha; in TIFFs of cameras and satellites it is infrared
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    if is_tiff and EXTRA_SAMPLES not in image.tag_v2:
        return False
    return image.mode in TRANSPARENT or "transparency" in image.info


def _read_orientation(exif: bytes) -> int:
    """EXIF orientation 1..8; 1 where the block is missing or damaged, or where it holds another value."""
    block = Exif()  # not image.getexif(): it falls back to XMP, which browsers and cv2 do not use
    try:
        with _no_warnings():
            block.load(exif)
            value = block.get(Base.Orientation)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _read_png_to_end(file: BinaryIO, verify: bool) -> bytes:
    """Reads a PNG's chunks to the last, which must exist; returns the EXIF block, even behind pixels.

    Damaged texts and EXIF blocks behind the pixels are passed over; Pillow raises for others.
    """
    file.seek(8)
    chunks, exif, name, has_pixels = PngImagePlugin.ChunkStream(file), b"", b"", False
    while name != b"IEND":
        name, _, length = chunks.read()
        has_pixels |= name == b"IDAT"
        if not verify and name not in (b"eXIf", b"IEND"):
            file.seek(length + 4, io.SEEK_CUR)
            continue
        content = file.read(length)
        is_optional = name[:1].islower()  # by PNG's rule for the names of chunks
        try:
            chunks.crc(name, content)
        except SyntaxError:
            if not (is_optional and has_pixels):
                raise
        else:
            exif = content if name == b"eXIf" else exif
    return exif


def _is_lossy_webp(file: BinaryIO) -> bool:
    file.seek(12)
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8 "
        length = int.from_bytes(head[4:], "little")
        file.seek(length + length % 2, io.SEEK_CUR)
    return True
