"""Size, form and EXIF orientation of an image from its header: nothing is decoded here.

The format is told by the first bytes, never by the file's name. JPEG and PNG, which nearly every data set
consists of, are walked by hand: microseconds, no warnings on odd EXIF blocks, and PNG's checksums come along.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from nailseg.data.io.exif import exif_orientation
from nailseg.data.issues import IssueError

IMAGE_SUFFIXES = {
    **{".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"},
    **{".bmp": "bmp", ".tif": "tiff", ".tiff": "tiff"},
}
"""Lower-case suffix -> format of the images that are read. A folder is searched by suffix; the format of a
file is decided by its first bytes."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself."""

    kind: Literal["jpeg", "png", "webp", "bmp", "tiff"]
    height: int  # stored rows and columns, before the orientation is applied
    width: int
    orientation: int  # EXIF orientation 1..8 that is still to be applied after decoding
    channels: str  # grey, colour or palette, the first two also with +alpha; or other (CMYK, float, ...)
    bits: int  # per channel
    lossy: bool = False  # the stored values are approximate (JPEG, lossy WebP)
    frames: int = 1
    transparent: bool = False  # PNG only: a tRNS chunk makes one value (or palette entries) transparent

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_header(data: bytes, name: str, verify: bool = False) -> Header:
    """Reads the header of an image, bytes or a memory map (only the pages that are needed are touched).

    With `verify`, a PNG's chunks are walked to its end with their checksums. `name` is what errors say.

    Raises:
        IssueError: `empty-file`, or `unreadable` for damaged headers and unknown formats.
    """
    if len(data) == 0:
        raise IssueError("empty-file", name, "expected an image, found 0 bytes", "Copy the file again.")
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png(data, verify)
        if _pillow_class(data):
            return _by_pillow(open_by_pillow(data), data)
    # a damaged header may break a parser anywhere; all of it means the same to the user
    except Exception as error:
        raise damaged(name, error) from error
    message = f"expected JPEG, PNG, WebP, BMP or TIFF, found {_guess(data)}"
    raise IssueError("unreadable", name, message, "Save it as PNG or JPEG.")


def damaged(name: str, error: object) -> IssueError:
    """The fault of a file that breaks off or does not decode."""
    text = str(error).strip().rstrip(".") or type(error).__name__
    message = f"expected a whole image, found a truncated or damaged file ({text})"
    return IssueError("unreadable", name, message, "Copy or export it again, or take its row out of the CSV.")


def open_by_pillow(data: bytes) -> ImageFile:
    """Opens WebP, BMP or TIFF bytes lazily.

    The plugin's class and not `PIL.Image.open`: that one guesses among fifty formats and has its own pixel
    limit, lower than ours, which can only be moved for the whole process.
    """
    factory = _pillow_class(data)
    if factory is None:
        raise ValueError("no WebP, BMP or TIFF file")
    return factory(io.BytesIO(data))


def _pillow_class(data: bytes) -> type[ImageFile] | None:
    start = bytes(data[:12])
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return WebPImageFile
    if start[:2] == b"BM":
        return BmpImageFile
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return TiffImageFile
    return None


def _guess(data: bytes) -> str:
    start = bytes(data[:8])
    known = {b"GIF8": "GIF", b"%PDF-": "PDF", b"PK\3\4": "an archive", b"Rar!": "an archive"}
    if start[4:] == b"ftyp":
        return "HEIC, AVIF or a video, as phones write them"
    shown = " ".join(f"{byte:02x}" for byte in start[:4])
    found = (name for mark, name in known.items() if start.startswith(mark))
    return next(found, f"none of them by its first bytes {shown}")


def _jpeg(data: bytes) -> Header:
    """Walks the segments up to the frame header; what follows (MPO, motion photos) is left alone."""
    position, orientation = 2, 1
    while True:
        if data[position] != 0xFF:
            raise ValueError("no JPEG marker where one belongs")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xD9 or marker == 0xDA:
            raise ValueError("no frame header")
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:  # markers without a length
            position += 2
            continue
        (length,) = struct.unpack(">H", data[position + 2 : position + 4])
        body = position + 4
        if marker == 0xE1 and data[body : body + 6] == b"Exif\0\0":
            orientation = exif_orientation(data[body + 6 : position + 2 + length]) or orientation
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, components = struct.unpack(">BHHB", data[body : body + 6])
            channels = {1: "grey", 3: "colour"}.get(components, "other")
            return Header("jpeg", height, width, orientation, channels, bits, lossy=True)
        position += 2 + length


def _png(data: bytes, verify: bool) -> Header:
    """Walks all chunks: EXIF may stand behind the pixels, and a file without its end is truncated."""
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    position, orientation, frames, transparent = 8, 1, 1, False
    while True:
        length, name = struct.unpack(">I4s", data[position : position + 8])
        end = position + 8 + length
        critical = name[0] < 0x60  # upper case: the image depends on it
        if verify and critical:
            (expected,) = struct.unpack(">I", data[end : end + 4])
            if zlib.crc32(data[position + 4 : end]) != expected:
                raise ValueError(f"checksum of PNG chunk {name.decode('latin-1')} does not fit")
        if name == b"eXIf":
            orientation = exif_orientation(data[position + 8 : end]) or orientation
        elif name == b"acTL":
            frames = struct.unpack(">I", data[position + 8 : position + 12])[0]
        elif name == b"tRNS":
            transparent = True
        elif name == b"IEND":
            break
        position = end + 4
    channels = {0: "grey", 2: "colour", 3: "palette", 4: "grey+alpha", 6: "colour+alpha"}[colour]
    return Header("png", height, width, orientation, channels, bits, False, max(frames, 1), transparent)


def _by_pillow(image: ImageFile, data: bytes) -> Header:
    forms = {"P": "palette", "RGB": "colour", "LA": "grey+alpha", "RGBA": "colour+alpha"}
    forms |= dict.fromkeys(("1", "L", "I;16", "I;16B", "I;16L"), "grey")
    kind, orientation, lossy, bits = "bmp", 1, False, 8
    if isinstance(image, WebPImageFile):
        kind, lossy = "webp", _webp_lossy(data)
        exif = image.info.get("exif", b"")
        orientation = exif_orientation(exif.removeprefix(b"Exif\0\0")) or 1
    elif isinstance(image, TiffImageFile):
        kind = "tiff"  # Pillow and cv2 turn it while they decode, and the size here says so already
        bits = max(image.tag_v2.get(258, (8,)))
        lossy = image.info.get("compression") == "jpeg"
    channels, frames = forms.get(image.mode, "other"), getattr(image, "n_frames", 1)
    return Header(kind, image.height, image.width, orientation, channels, bits, lossy, frames)


def _webp_lossy(data: bytes) -> bool:
    position = 12
    while position + 8 <= len(data):
        name, length = struct.unpack("<4sI", data[position : position + 8])
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8 "
        position += 8 + length + length % 2
    return True
