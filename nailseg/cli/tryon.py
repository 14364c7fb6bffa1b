"""`nailseg tryon`: one photograph with its nails in another colour."""

from __future__ import annotations

from pathlib import Path

from nailseg.data.io.headers import IMAGE_SUFFIXES
from nailseg.data.io.images import read_image
from nailseg.errors import ConfigError, DataError, OutputError
from nailseg.imaging import recolor
from nailseg.imaging.overlay import encode_image
from nailseg.inference import segmenter
from nailseg.inference.batch import write_atomically
from nailseg.model_info import SHIPPED

OUTPUT_SUFFIXES = tuple(s for s, form in IMAGE_SUFFIXES.items() if form in ("png", "jpeg", "webp"))


def recolor_file(
    photo: str | Path,
    *,
    color: str,
    model: str = SHIPPED,
    out: str | Path | None = None,
    device: str | None = None,
) -> Path:
    """Writes a photograph with its nails in another colour.

    Args:
        photo: The photograph; it is not changed.
        color: '#c2185b', 'rgb(194, 24, 91)' or a CSS name such as crimson.
        model: A model folder, checkpoint, run folder, exported file, or the name of a shipped model. All its
            classes but the background are recoloured.
        out: The file to write; by default NAME.tryon.png in the current folder.
        device: cpu, cuda, …; a GPU by default if there is one.

    Returns:
        The written file, of the photograph's size, upright.

    Raises:
        ConfigError: The colour or the file format is unknown.
        DataError: The photograph cannot be read, or nothing was found in it.
        OutputError: The file exists already, or the image is too large for its format.
    """
    rgb = recolor.parse_color(color)
    path = Path(out or f"{Path(photo).stem}.tryon.png")
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise ConfigError(f"--out {path}: expected a name that ends in {', '.join(OUTPUT_SUFFIXES)}.")
    if path.exists():
        raise OutputError(f"{path} exists already and is not overwritten. Give another --out.")
    image = read_image(photo)
    result = segmenter.load(model, device)(image)
    if not result.mask.any():
        raise DataError(f"{photo}: expected {' or '.join(result.class_names[1:])} in it, found none.")
    coverage = recolor.compute_coverage(result.mask, result.foreground_probability())
    recolored = recolor.recolor(image, coverage, rgb)
    write_atomically(path, encode_image(recolored, path.suffix.lower()))
    return path
