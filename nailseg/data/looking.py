"""Decodes both files of a row once, and keeps the little that the checks need of them."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from tqdm import tqdm

from nailseg.data.faults import Fault, FaultError
from nailseg.data.headers import Header, read_header
from nailseg.data.manifest import Manifest, Row
from nailseg.data.mask_resolve import MaskContent, count_values
from nailseg.data.mask_values import THRESHOLD, Value, pack_colours
from nailseg.data.reading import decode_image, decode_mask_values, read_bytes
from nailseg.data.twins import thumbnail

ENDINGS = {".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff"}
FORMATS = ("jpeg", "png", "webp", "bmp", "tiff")
MAX_PARTS = 16
"""Masks of more values are grey-edged; their parts are counted above the threshold."""


@dataclass(frozen=True)
class Finding:
    """What one row's files gave.

    Attributes:
        row: the row.
        faults: what is wrong with its files, none where they were not needed.
        size: height and width of the upright image.
        content: values of the mask.
        form: how the mask is stored: plain, or jpeg, palette, rgb, alpha, 16-bit.
        frame: values on the mask's outermost pixels.
        parts: connected components per mask value; above the threshold for grey-edged masks.
        thumbnail: uint8 (96, 96) grey, for the search for twins.
        digest: of the image file's bytes.
    """

    row: Row
    faults: tuple[Fault, ...] = ()
    size: tuple[int, int] | None = None
    content: MaskContent | None = None
    form: str = "plain"
    frame: dict[Value, int] = field(default_factory=dict)
    parts: dict[Value, int] = field(default_factory=dict)
    thumbnail: np.ndarray | None = None
    digest: bytes | None = None


def in_threads(work: Callable, jobs: Sequence, what: str, progress: bool, workers: int | None) -> Iterator:
    """Does the jobs in threads (decoding runs outside Python's lock) and gives the results in their order.

    Args:
        work: called with each job.
        jobs: what to do.
        what: title of the bar on stderr.
        progress: show the bar.
        workers: number of threads; the number of cores by default, 8 at most.
    """
    bar = {"desc": what, "unit": " rows", "file": sys.stderr, "disable": not progress, "leave": False}
    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 8)) as pool:
        yield from tqdm(pool.map(work, jobs), total=len(jobs), **bar)


def look_at(manifest: Manifest, row: Row, needed: bool, colours: bool, max_pixels: int) -> Finding:
    """Decodes a row's files.

    Args:
        manifest: knows where they lie.
        row: the row.
        needed: False: only the mask's values count, and nothing is wrong with anything.
        colours: the mask's palettes are read as colours.
        max_pixels: limit on a picture's height times width.
    """
    faults: list[Fault] = []
    found: dict[str, object] = {}
    turns: dict[str, int] = {}
    if needed:
        try:
            data = read_bytes(manifest.path(row.image))
            image = decode_image(data, row.image, max_pixels)
            header = read_header(data, row.image)
            faults.extend(_mis_named(row.image, header))
            turns["image"] = header.orientation
            found["size"] = (image.shape[0], image.shape[1])
            found["digest"] = hashlib.blake2b(data, digest_size=16).digest()
            found["thumbnail"] = thumbnail(image)
        except FaultError as error:
            faults.append(_relative(error.fault, row.image, manifest))
    if row.mask is None:
        faults.append(
            Fault("no-mask", row.image, "expected a mask, found none in the CSV", "Name it, or drop the row.")
        )
        return Finding(row, tuple(faults) if needed else (), **found)  # type: ignore[arg-type]
    try:
        data = read_bytes(manifest.path(row.mask))
        raw, lossy = decode_mask_values(data, row.mask, max_pixels, colours)
        header = read_header(data, row.mask)
        content = MaskContent(row.mask, count_values(raw), lossy)
        found["content"], found["form"] = content, _form(header)
        if needed:
            faults.extend(_mis_named(row.mask, header))
            turns["mask"] = header.orientation
            edge = np.concatenate([raw[0], raw[-1], raw[:, 0], raw[:, -1]])
            found["frame"] = count_values(edge[None])
            found["parts"] = _count_parts(raw, content)
            faults.extend(_compare(row, found.get("size"), raw.shape[:2], turns))  # type: ignore[arg-type]
    except FaultError as error:
        faults.append(_relative(error.fault, row.mask, manifest))
    return Finding(row, tuple(faults) if needed else (), **found)  # type: ignore[arg-type]


def _relative(fault: Fault, file: str, manifest: Manifest) -> Fault:
    """The CSV's name for the file: short, and the one a person searches for."""
    fix = fault.fix
    if fault.code == "missing-file":
        fix = _likely_meant(manifest.path(file)) or fix
    return Fault(fault.code, file, fault.message, fix)


def _likely_meant(path: Path) -> str | None:
    """Endings and upper case are what names are mistaken in most often."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return None
    near = sorted(name for name in names if Path(name).stem.lower() == path.stem.lower())
    return f"{near[0]} lies beside it: correct the CSV." if near else None


def _mis_named(file: str, header: Header) -> list[Fault]:
    ending = PurePosixPath(file).suffix.lower()
    said = ENDINGS.get(ending, ending[1:])
    if said not in FORMATS or said == header.kind:
        return []
    message = f"expected {said} as the ending says, found {header.kind}"
    return [Fault("mis-named", file, message, "Rename it: other programs will trip over it.")]


def _form(header: Header) -> str:
    if header.lossy:
        return "jpeg"
    if header.bits > 8:
        return "16-bit"
    forms = {"palette": "palette", "colour": "rgb", "colour+alpha": "alpha", "grey+alpha": "alpha"}
    return forms.get(header.channels, "plain")


def _count_parts(raw: np.ndarray, content: MaskContent) -> dict[Value, int]:
    if raw.ndim == 3:
        values = [value for value in content.counts if isinstance(value, tuple)][:MAX_PARTS]
        codes = pack_colours(raw)
        return {v: _parts(codes == (v[0] << 16 | v[1] << 8 | v[2])) for v in values}
    if content.lossy or len(content.counts) > MAX_PARTS:
        return {255: _parts(raw > THRESHOLD)}
    return {value: _parts(raw == value) for value in content.counts}


def _parts(region: np.ndarray) -> int:
    return cv2.connectedComponents(region.astype(np.uint8))[0] - 1


def _compare(
    row: Row, size: tuple[int, int] | None, mask_size: tuple[int, int], turns: dict[str, int]
) -> list[Fault]:
    """Size and orientation of the two against each other."""
    if size is None:
        return []
    if size != mask_size:
        fix = "Pair it with the right image, or export the mask at the image's size."
        if size == mask_size[::-1]:
            fix = "One of the two is turned: their EXIF tags differ; remove the tag or turn the mask."
        return [
            Fault(
                "size-mismatch",
                row.mask or "",
                f"expected {size[1]} x {size[0]} (width x height) like {row.image}, "
                f"found {mask_size[1]} x {mask_size[0]}",
                fix,
            )
        ]
    image, mask = turns["image"], turns["mask"]
    # a quarter turn of an oblong picture would show in the sizes
    if image == mask or ((image >= 5) != (mask >= 5) and size[0] != size[1]):
        return []
    return [
        Fault(
            "orientation-mismatch",
            row.mask or "",
            f"expected the EXIF orientation of {row.image}, {image}; found {mask}",
            "Look whether they fit; save both upright without the tag.",
        )
    ]
