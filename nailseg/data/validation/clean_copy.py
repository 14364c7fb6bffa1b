"""A clean copy of a data set: valid rows only, plain masks, and extensions that match the files' formats."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from nailseg.data.io.headers import IMAGE_SUFFIXES, read_header
from nailseg.data.io.images import read_bytes
from nailseg.data.io.masks import read_mask
from nailseg.data.manifest import write_manifest
from nailseg.data.validation.validate import ValidationResult
from nailseg.errors import DataError, OutputError
from nailseg.imaging.overlay import encode_image


def write_clean_copy(result: ValidationResult, folder: str | Path, max_pixels: int) -> Path:
    """Copies the checked rows without errors; the original files are not changed.

    Images are copied byte for byte, with the extension of their format. Masks become upright 8-bit PNGs of
    class indices, 255 for ignored pixels.

    Returns:
        The CSV of the copy, in `folder`, which must be new or empty.

    Raises:
        OutputError: the folder is not empty, or cannot be written.
        DataError: no mask encoding, so that there are no class indices.
    """
    folder = Path(folder)
    if result.mask_encoding is None:
        message = f"{result.manifest.csv}: expected masks of one encoding, found several. "
        raise DataError(message + "Name what the values mean with --mask-values, or add --skip-bad.")
    wrong, used = {issue.file for issue in result.errors}, set[str]()
    rows = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(f"{folder}: expected a new or empty folder, found files. Choose another one.")
        for row in (scan.row for scan in result.scans):
            if row.mask is None or {row.image, row.mask} & wrong:
                continue
            data = read_bytes(result.manifest.path(row.image))
            format_, suffix = read_header(data, row.image).format, PurePosixPath(row.image).suffix
            if IMAGE_SUFFIXES.get(suffix.lower()) != format_:
                suffix = f".{format_}"
            classes = read_mask(result.manifest.path(row.mask), result.mask_encoding, max_pixels)
            image, mask = _choose_name(row.image, suffix, used), _choose_name(row.mask, ".png", used)
            for name, content in ((image, data), (mask, encode_image(classes, ".png"))):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            rows.append(replace(row, image=image, mask=mask))
        write_manifest(folder / "dataset.csv", rows)
    except OSError as error:
        message = f"{folder}: expected to write a copy, found {error.strerror}. Choose another folder."
        raise OutputError(message) from None
    return folder / "dataset.csv"


def _choose_name(name: str, suffix: str, used: set[str]) -> str:
    """Changes the suffix, or appends it if the name is used: a.jpg and a.png do not become one file."""
    new = PurePosixPath(name).with_suffix(suffix).as_posix()
    new = f"{name}{suffix}" if new in used else new
    used.add(new)
    return new
