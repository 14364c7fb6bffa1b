"""A clean copy of a data set: sound rows only, plain masks, endings that say what the files are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from nailseg.data.io.headers import IMAGE_SUFFIXES, read_header
from nailseg.data.io.images import MAX_PIXELS, read_bytes
from nailseg.data.io.masks import read_mask
from nailseg.data.manifest import write_manifest
from nailseg.data.validation.validate import ValidationResult
from nailseg.errors import DataError, OutputError
from nailseg.imaging.overlay import encode_image


def write_clean(seen: ValidationResult, folder: str | Path, max_pixels: int = MAX_PIXELS) -> Path:
    """Copies the checked rows that no fault names; the old files stay as they are.

    Images are copied byte for byte, under an ending that fits. Masks become upright 8-bit PNGs of class
    indices, 255 where nothing counts.

    Returns:
        The CSV of the copy, in `folder`, which must be new or empty.

    Raises:
        OutputError: the folder is not empty, or cannot be written.
        DataError: no reading of the masks, so that there are no class indices.
    """
    folder = Path(folder)
    if seen.values is None:
        raise DataError(
            f"{seen.manifest.csv}: expected masks of one reading, found several; a copy would be a guess. "
            "Name what the values mean with --mask-values, or add --skip-bad."
        )
    faulty = {fault.file for fault in seen.faults}
    rows, taken = [], set[str]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(f"{folder}: expected a new or empty folder, found files. Choose another one.")
        for finding in seen.findings:
            row = finding.row
            if row.mask is None or {row.image, row.mask} & faulty:
                continue
            data = read_bytes(seen.manifest.path(row.image))
            kind, ending = read_header(data, row.image).format, PurePosixPath(row.image).suffix.lower()
            image = _free(row.image, None if IMAGE_SUFFIXES.get(ending) == kind else f".{kind}", taken)
            mask = _free(row.mask, ".png", taken)
            classes = read_mask(seen.manifest.path(row.mask), seen.values, max_pixels)
            for name, content in ((image, data), (mask, encode_image(classes, ".png"))):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            rows.append(replace(row, image=image, mask=mask))
        write_manifest(folder / "nails.csv", rows)
    except OSError as error:
        raise OutputError(
            f"{folder}: expected to write a copy, found {error.strerror}. Choose another folder."
        ) from None
    return folder / "nails.csv"


def _free(name: str, ending: str | None, taken: set[str]) -> str:
    """The name with another ending; a.jpg and a.png do not become one file."""
    path = PurePosixPath(name)
    new = path.with_suffix(ending).as_posix() if ending else name
    if new in taken:
        new = f"{name}{ending or path.suffix}"
    taken.add(new)
    return new
