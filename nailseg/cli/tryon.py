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
        photo: the photograph; it stays as it is.
        color: as `tryon.rgb` takes it.
        model: as `predictor.load` takes it; all its classes but the background are painted.
        out: the file to write; by default NAME.tryon.png in the current folder.
        device: as `predictor.load` takes it.

    Returns:
        The file written, of the photograph's size, upright.

    Raises:
        ConfigError: not a colour, or a format that cannot be written.
        DataError: a photograph that cannot be read, or that has nothing to paint.
        OutputError: the file exists already, or its format takes no image so large.
    """
    chosen = recolor.parse_color(color)
    path = Path(out or f"{Path(photo).stem}.tryon.png")
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise ConfigError(f"--out {path}: expected a name that ends in {', '.join(OUTPUT_SUFFIXES)}.")
    if path.exists():
        raise OutputError(f"{path} exists already and is not overwritten. Give another --out.")
    image = read_image(photo)
    result = segmenter.load(model, device)(image)
    if not result.mask.any():
        raise DataError(f"{photo}: expected {' or '.join(result.class_names[1:])} in it, found none.")
    painted = recolor.recolor(
        image, recolor.compute_coverage(result.mask, result.foreground_probability()), chosen
    )
    write_atomically(path, encode_image(painted, path.suffix.lower()))
    return path
