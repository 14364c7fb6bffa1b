"""`nailseg tryon`: one photograph with its nails in another colour."""

from pathlib import Path

from nailseg.errors import ConfigError, DataError, OutputError
from nailseg.files import write_atomically
from nailseg.imaging import overlay, recolor
from nailseg.inference import segmenter
from nailseg.model_info import DEFAULT_MODEL

OUTPUT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def recolor_file(
    photo: Path,
    /,
    *,
    color: str,
    model: str = DEFAULT_MODEL,
    out: Path | None = None,
    device: str | None = None,
) -> Path:
    """Writes a photograph, upright and at its own size, with its nails in another colour.

    Args:
        photo: The photograph.
        color: The new colour: '#c2185b', 'rgb(194, 24, 91)' or a CSS name such as crimson.
        model: A model folder, checkpoint, run folder, exported file, or the name of a shipped model.
        out: File to write (PNG, JPEG or WebP); by default NAME.tryon.png in the current folder.
        device: Device such as cpu or cuda; by default a GPU if there is one.

    Raises:
        ConfigError: The colour or the file format is unknown.
        DataError: The photograph cannot be read, or nothing was found in it.
        OutputError: The file exists already, or the image is too large for its format.
    """
    rgb = recolor.parse_color(color)
    path = out or Path(f"{photo.stem}.tryon.png")
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise ConfigError(f"--out {path}: expected a name that ends in {', '.join(OUTPUT_SUFFIXES)}.")
    if path.exists():
        raise OutputError(f"{path} exists already and is not overwritten. Give another --out.")
    result = segmenter.load(model, device)(photo)
    if not result.mask.any():
        raise DataError(f"{photo}: expected {' or '.join(result.class_names[1:])} in it, found none.")
    coverage = recolor.compute_coverage(result.mask, result.foreground_probability())
    recolored = recolor.recolor(result.image, coverage, rgb)
    write_atomically(path, overlay.encode_image(recolored, path.suffix.lower()))
    return path
