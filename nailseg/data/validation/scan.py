"""Decodes both files of a row once, and keeps the little that the checks need of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from nailseg.data.io.headers import IMAGE_SUFFIXES, Header, read_header
from nailseg.data.io.images import decode_image, read_bytes
from nailseg.data.io.masks import decode_mask_values
from nailseg.data.issues import Issue, IssueError
from nailseg.data.manifest import Manifest, Row
from nailseg.data.mask_encoding import THRESHOLD, Value, pack_colors
from nailseg.data.mask_inference import MaskContent, count_values
from nailseg.data.splitting.duplicates import Signature, compute_signature

MAX_PARTS = 16
"""Masks of more values are grey-edged; their parts are counted above the threshold."""


@dataclass(frozen=True)
class ScanResult:
    """What one row's files gave."""

    row: Row
    faults: tuple[Issue, ...] = ()  # what is wrong with its files, none where they were not needed
    size: tuple[int, int] | None = None  # height and width of the upright image
    content: MaskContent | None = None  # values of the mask
    form: str = "plain"  # how the mask is stored: plain, or jpeg, palette, rgb, alpha, 16-bit
    frame: dict[Value, int] = field(default_factory=dict)  # values on the mask's outermost pixels
    # connected components per mask value; above the threshold for grey-edged masks
    parts: dict[Value, int] = field(default_factory=dict)
    signature: Signature | None = None  # of the image, to find duplicates


def scan_row(manifest: Manifest, row: Row, needed: bool, colors: bool, max_pixels: int) -> ScanResult:
    """Decodes a row's files.

    Args:
        manifest: knows where they lie.
        row: the row.
        needed: False: only the mask's values count, and nothing is wrong with anything.
        colors: the mask's palettes are read as colours.
        max_pixels: limit on an image's height times width.
    """
    faults: list[Issue] = []
    found: dict[str, Any] = {}
    turn = 1
    if needed:
        try:
            data = read_bytes(manifest.path(row.image))
            image = decode_image(data, row.image, max_pixels)
            header = read_header(data, row.image)
            faults.extend(_mis_named(row.image, header))
            turn = header.orientation
            found["size"] = image.shape[:2]
            found["signature"] = compute_signature(data, image)
        except IssueError as error:
            faults.append(_relative(error.issue, row.image, manifest))
    if row.mask is None:
        message = "expected a mask, found none in the CSV"
        faults.append(Issue("no-mask", row.image, message, "Name it, or drop the row."))
        return ScanResult(row, tuple(faults) if needed else (), **found)
    try:
        data = read_bytes(manifest.path(row.mask))
        raw, lossy = decode_mask_values(data, row.mask, max_pixels, colors)
        header = read_header(data, row.mask)
        content = MaskContent(row.mask, count_values(raw), lossy)
        found["content"], found["form"] = content, _form(header)
        if needed:
            faults.extend(_mis_named(row.mask, header))
            edge = np.concatenate([raw[0], raw[-1], raw[:, 0], raw[:, -1]])
            found["frame"] = count_values(edge[None])
            found["parts"] = _count_parts(raw, content)
            if "size" in found:
                faults.extend(_compare(row, found["size"], raw.shape[:2], turn, header.orientation))
    except IssueError as error:
        faults.append(_relative(error.issue, row.mask, manifest))
    return ScanResult(row, tuple(faults) if needed else (), **found)


def _relative(fault: Issue, file: str, manifest: Manifest) -> Issue:
    """The CSV's name for the file: short, and the one a person searches for."""
    fix = fault.fix
    if fault.code == "missing-file":
        fix = _likely_meant(manifest.path(file)) or fix
    return Issue(fault.code, file, fault.message, fix)


def _likely_meant(path: Path) -> str | None:
    """Endings and upper case are what names are mistaken in most often."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return None
    near = sorted(name for name in names if Path(name).stem.lower() == path.stem.lower())
    return f"{near[0]} lies beside it: correct the CSV." if near else None


def _mis_named(file: str, header: Header) -> list[Issue]:
    expected = IMAGE_SUFFIXES.get(PurePosixPath(file).suffix.lower(), header.format)
    if expected == header.format:
        return []
    message = f"expected {expected} as the ending says, found {header.format}"
    return [Issue("extension-mismatch", file, message, "Rename it: other programs will trip over it.")]


def _form(header: Header) -> str:
    if header.lossy:
        return "jpeg"
    if header.bits > 8:
        return "16-bit"
    forms = {"palette": "palette", "color": "rgb", "color+alpha": "alpha", "gray+alpha": "alpha"}
    return forms.get(header.channels, "plain")


def _count_parts(raw: np.ndarray, content: MaskContent) -> dict[Value, int]:
    if raw.ndim == 3:
        values = [value for value in content.counts if isinstance(value, tuple)][:MAX_PARTS]
        codes = pack_colors(raw)
        return {value: _parts(codes == pack_colors(np.array(value))) for value in values}
    if content.lossy or len(content.counts) > MAX_PARTS:
        return {255: _parts(raw > THRESHOLD)}
    return {value: _parts(raw == value) for value in content.counts}


def _parts(region: np.ndarray) -> int:
    return cv2.connectedComponents(region.astype(np.uint8))[0] - 1


def _compare(
    row: Row, size: tuple[int, int], mask_size: tuple[int, ...], turn: int, mask_turn: int
) -> list[Issue]:
    """Size and orientation of the two against each other."""
    mask = row.mask or ""
    if size != mask_size:
        wanted, found = (f"{width} x {height}" for height, width in (size, mask_size))
        message = f"expected {wanted} (width x height) like {row.image}, found {found}"
        fix = "Pair it with the right image, or export the mask at the image's size."
        if size == mask_size[::-1]:
            fix = "One of the two is turned: their EXIF tags differ; remove the tag or turn the mask."
        return [Issue("size-mismatch", mask, message, fix)]
    # a quarter turn of an oblong image would show in the sizes
    if turn == mask_turn or ((turn >= 5) != (mask_turn >= 5) and size[0] != size[1]):
        return []
    message = f"expected the EXIF orientation of {row.image}, {turn}; found {mask_turn}"
    fix = "Look whether they fit; save both upright without the tag."
    return [Issue("orientation-mismatch", mask, message, fix)]
