"""Decodes both files of a row once, and keeps the small part of them that the rules need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from nailseg.data.io.headers import IMAGE_SUFFIXES, Header, read_header
from nailseg.data.io.images import decode_image, read_bytes
from nailseg.data.io.masks import decode_mask_values
from nailseg.data.issues import Issue, IssueError
from nailseg.data.manifest import Manifest, Row
from nailseg.data.mask_content import MaskContent, count_values
from nailseg.data.mask_encoding import THRESHOLD, Value, pack_colors
from nailseg.data.splitting.near_duplicates import Signature, compute_signature

MAX_VALUES = 16  # masks with more values are antialiased; their components are counted above the threshold
# Header.channels -> ScanResult.storage
STORAGE = {"palette": "palette", "color": "rgb", "color+alpha": "alpha", "gray+alpha": "alpha"}


@dataclass
class ScanResult:
    """What one row's files contain."""

    row: Row
    issues: list[Issue] = field(default_factory=list)
    size: tuple[int, int] | None = None  # height and width of the upright image
    content: MaskContent | None = None  # values of the mask
    storage: str = "plain"  # how the mask is stored: plain, or jpeg, palette, rgb, alpha, 16-bit
    border: dict[Value, int] = field(default_factory=dict)  # values on the mask's outermost pixels
    # connected components per mask value; above the threshold for antialiased masks
    components: dict[Value, int] = field(default_factory=dict)
    signature: Signature | None = None  # of the image, to find duplicates
    values: np.ndarray | None = None  # of a 16-bit image, by `levels.sample_values`


def scan_row(
    manifest: Manifest, splits_needed: Sequence[str], has_colors: bool, max_pixels: int, row: Row
) -> ScanResult:
    """Decodes both files of a row, or only its mask if its split is not needed.

    With `has_colors`, palettes are read as colors; `max_pixels` limits an image's height times width.
    """
    result = ScanResult(row)
    needed, orientation = row.split in splits_needed, 1
    if needed:
        try:
            data = read_bytes(manifest.path(row.image))
            image = decode_image(data, row.image, max_pixels)
            header = read_header(data, row.image)
            result.issues += [*image.issues, *_check_extension(row.image, header)]
            result.size, result.values = image.pixels.shape[:2], image.values
            result.signature = compute_signature(data, image.pixels)
            orientation = header.orientation
        except IssueError as error:
            result.issues.append(_name_as_in_csv(error.issue, row.image, manifest.path(row.image)))
    if row.mask is None:
        message = "expected a mask, found none in the CSV"
        result.issues.append(Issue("no-mask", row.image, message, "Name it, or remove the row."))
        return result
    try:
        data = read_bytes(manifest.path(row.mask))
        mask = decode_mask_values(data, row.mask, max_pixels, has_colors)
        raw = mask.values
        header = read_header(data, row.mask)
        result.content = MaskContent.from_values(row.mask, *mask)
        result.storage = "16-bit" if header.bits > 8 else STORAGE.get(header.channels, "plain")
        if header.lossy:
            result.storage = "jpeg"
        if needed:
            result.issues += _check_extension(row.mask, header)
            border = np.concatenate([raw[0], raw[-1], raw[:, 0], raw[:, -1]])
            result.border = count_values(border[None])
            result.components = _count_components(raw, result.content)
        if result.size:
            result.issues += _compare(row, result.size, raw.shape[:2], orientation, header.orientation)
    except IssueError as error:
        result.issues.append(_name_as_in_csv(error.issue, row.mask, manifest.path(row.mask)))
    return result


def _name_as_in_csv(issue: Issue, file: str, path: Path) -> Issue:
    """Replaces the path by the name in the CSV; suggests a file that differs in extension or upper case."""
    similar = []
    if issue.code == "missing-file":
        similar = sorted(p.name for p in path.parent.glob("*") if p.stem.lower() == path.stem.lower())
    fix = f"The folder contains {similar[0]}: correct the CSV." if similar else issue.fix
    return replace(issue, file=file, fix=fix)


def _check_extension(file: str, header: Header) -> Iterator[Issue]:
    expected = IMAGE_SUFFIXES.get(PurePosixPath(file).suffix.lower(), header.format)
    if expected != header.format:
        message = f"expected {expected} by its extension, found {header.format}"
        yield Issue("extension-mismatch", file, message, "Rename it: other programs may not open it.")


def _count_components(raw: np.ndarray, content: MaskContent) -> dict[Value, int]:
    if raw.ndim == 3:
        values = [value for value in content.counts if isinstance(value, tuple)][:MAX_VALUES]
        codes = pack_colors(raw)
        regions = {value: codes == pack_colors(np.array(value)) for value in values}
    elif content.lossy or len(content.counts) > MAX_VALUES:
        regions = {255: raw > THRESHOLD}
    else:
        regions = {value: raw == value for value in content.counts}
    return {v: cv2.connectedComponents(region.astype(np.uint8))[0] - 1 for v, region in regions.items()}


def _compare(
    row: Row, size: tuple[int, int], mask_size: tuple[int, ...], orientation: int, mask_orientation: int
) -> Iterator[Issue]:
    if size != mask_size:
        expected, found = (f"{width} x {height}" for height, width in (size, mask_size))
        message = f"expected {expected} (width x height) like {row.image}, found {found}"
        fix = "Pair it with the right image, or export the mask at the image's size."
        if size == mask_size[::-1]:
            fix = "One of the two is rotated: their EXIF tags differ; remove the tag or rotate the mask."
        yield Issue("size-mismatch", str(row.mask), message, fix)
    # orientations from 5 on exchange height and width, which proves them right if the image is oblong
    elif orientation != mask_orientation and (
        (orientation >= 5) == (mask_orientation >= 5) or size[0] == size[1]
    ):
        message = f"expected the EXIF orientation of {row.image}, {orientation}; found {mask_orientation}"
        fix = "Check whether the two match; save both upright without the tag."
        yield Issue("orientation-mismatch", str(row.mask), message, fix)
