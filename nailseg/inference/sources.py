"""Lists the images that files, folders, globs and CSVs stand for, and names their masks."""

import glob
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from nailseg.data import pairing
from nailseg.data.io.headers import IMAGE_SUFFIXES, is_image
from nailseg.data.layouts import LAYOUTS
from nailseg.data.manifest import load_manifest
from nailseg.errors import ConfigError, shorten_list

log = logging.getLogger("nailseg")

TEXT_SUFFIXES = {".csv", ".bak", ".txt", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".db", ".ini"}
"""Files beside images that are expected to be none."""


def find_images(
    paths: Sequence[str],
    out: Path,
    root: str | Path | None = None,
    split: str | None = None,
    skipped: list[Path] | None = None,
) -> dict[Path, Path]:
    """Lists the images that paths stand for; the arguments and errors are those of `predict_files`.

    Folders are searched recursively, except for `out`; globs may contain `**`; a CSV has a column image.
    Files of folders and globs that are no images are named in the log, and added to `skipped`.

    Returns:
        Each file with its path relative to the folder, the fixed part of the glob, or the CSV's root.
    """
    csv_options = [name for name, value in (("--root", root), ("--split", split)) if value is not None]
    if csv_options and not any(map(_is_csv, paths)):
        names, found = " and ".join(csv_options), ", ".join(paths)
        raise ConfigError(f"{names}: expected a CSV among the paths, found {found}. Leave it out.")
    images: dict[Path, Path] = {}
    skipped = [] if skipped is None else skipped
    for path in paths:
        if Path(path).is_dir():
            members = _list_folder(Path(path), out, skipped)
        elif _is_csv(path):
            members = _list_csv(path, root, split)
        elif Path(path).exists():
            members = {Path(path): Path(Path(path).name)}
        else:
            members = _list_glob(path, out, skipped)
        if not members:
            expected = "an image, a folder or glob with images, or a CSV with rows of the split"
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ConfigError(f"{path}: expected {expected}, found none. Images end in {suffixes}.")
        images |= members
    for file, relative in images.items():
        if (out / relative).parent.resolve() == file.parent.resolve():
            beside = f"but the mask of {file} would be written beside it. Choose another folder."
            raise ConfigError(f"--out {out}: expected a folder apart from the images, {beside}")
    return images


def name_masks(images: dict[Path, Path]) -> dict[Path, Path]:
    """Returns the relative path of the mask of each image of `find_images`, as `pairing.name_masks` does.

    Raises:
        ConfigError: Two masks would have the same path.
    """
    masks = pairing.name_masks(list(images.values()))
    names = {file: masks[relative] for file, relative in images.items()}
    refuse_collisions(names.items())
    if shared := [mask for image, mask in masks.items() if image.suffix and mask.stem == image.name]:
        log.info("%d images share a stem with others: their masks keep the suffix (a.jpg.png)", len(shared))
    return names


def refuse_collisions(outputs: Iterable[tuple[Path, Path]]) -> None:
    """Raises a ConfigError if two images (first of each pair) would write the same file (second)."""
    writers: dict[Path, Path] = {}
    for file, name in outputs:
        if (other := writers.setdefault(name, file)) != file:
            advice = "Give the folder above them, or rename one, so that their masks have different paths."
            raise ConfigError(f"{other} and {file} would both write {name}. {advice}")


def _list_folder(folder: Path, out: Path, skipped: list[Path]) -> dict[Path, Path]:
    if _is_inside(folder, out):
        raise ConfigError(f"--out {out}: expected a folder apart from the images, but {folder} is in it.")
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file() and not _is_inside(path, out))
    images = {file: file.relative_to(folder) for file in _select(files, str(folder), skipped)}
    sides = {file: LAYOUTS[0].classify(relative) for file, relative in images.items()}
    if not {"images", "masks"} <= {found[0] for found in sides.values() if found}:
        return images
    selected = {file: relative for file, relative in images.items() if (sides[file] or "")[:1] == ("images",)}
    others = len(images) - len(selected)
    log.info("%s: takes the %d images in Images/ and skips %d others", folder, len(selected), others)
    return selected


def _select(files: Sequence[Path], place: str, skipped: list[Path]) -> list[Path]:
    """The files that may be images; the others are named and added to `skipped`."""
    images = [file for file in files if _may_be_image(file)]
    others = sorted(set(files) - set(images))
    if others:
        names = shorten_list([file.name for file in others])
        log.info("%s: skips %d files that are no images: %s", place, len(others), names)
    skipped += others
    return images


def _may_be_image(file: Path) -> bool:
    """Whether a file of a folder is to be predicted; one that is no image after all is an error then."""
    suffix = file.suffix.lower()
    if suffix:
        return suffix not in TEXT_SUFFIXES
    with file.open("rb") as opened:
        return is_image(opened.read(12))


def _list_csv(path: str, root: str | Path | None, split: str | None) -> dict[Path, Path]:
    manifest = load_manifest(path, root, masks=False)
    rows = manifest.rows
    if split:
        rows = manifest.select(split)
        for note in manifest.notes:  # derived splits matter only here
            log.info("%s: %s", path, note)
    return {manifest.path(row.image): Path(row.image) for row in rows}


def _list_glob(pattern: str, out: Path, skipped: list[Path]) -> dict[Path, Path]:
    base = Path(pattern).parent
    while glob.has_magic(str(base)):
        base = base.parent
    found = map(Path, sorted(glob.glob(pattern, recursive=True)))
    files = [file for file in found if file.is_file() and not _is_inside(file, out)]
    return {file: file.relative_to(base) for file in _select(files, pattern, skipped)}


def _is_csv(path: str) -> bool:
    return path.lower().endswith(".csv") and Path(path).is_file()


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
