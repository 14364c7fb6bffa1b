"""Which images files, folders, globs and CSVs stand for, and what their masks are called."""

from __future__ import annotations

import glob
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nailseg.data.io.headers import IMAGE_SUFFIXES
from nailseg.data.manifest import load_manifest
from nailseg.data.pairing import find_side, list_images
from nailseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

log = logging.getLogger("nailseg")


def find_images(
    paths: Sequence[str], out: Path, root: str | Path | None = None, split: str | None = None
) -> dict[Path, Path]:
    """The images that paths stand for.

    Args:
        paths: files, folders (searched to any depth; of one with Images/ and Masks/ only Images/), globs
            (`**` included) and CSVs with a column image.
        out: where masks go; it is not searched.
        root: the folder that a CSV's paths start from; its own by default.
        split: train, val or test: only these rows of a CSV.

    Returns:
        Each file with its path relative to what named it: a folder, the fixed part of a glob, a CSV's root.

    Raises:
        ConfigError: a path that names nothing, or no image at all; `root` or `split` without a CSV.
        DataError: a CSV that cannot be trusted.
    """
    given = [name for name, value in (("--root", root), ("--split", split)) if value is not None]
    if given and not any(map(_is_csv, paths)):
        raise ConfigError(
            f"{' and '.join(given)}: expected a CSV among the paths, found {', '.join(paths)}. Leave it out."
        )
    found: dict[Path, Path] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            members = _in_folder(path, out)
        elif _is_csv(text):
            members = _in_csv(path, root, split)
        elif path.exists():
            members = {path: Path(path.name)}
        else:
            base = _fixed_part(text)
            matches = map(Path, sorted(glob.glob(text, recursive=True)))
            members = {
                file: file.relative_to(base)
                for file in matches
                if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file() and not _inside(file, out)
            }
        if not members:
            raise ConfigError(
                f"{text}: expected an image, a folder with images, a glob that matches some or a CSV with "
                f"rows of the split, found none. Images end in {', '.join(sorted(IMAGE_SUFFIXES))}."
            )
        found |= members
    for file, relative in found.items():
        if (out / relative).parent.resolve() == file.parent.resolve():
            raise ConfigError(
                f"--out {out}: expected a folder apart from the images, found that {file} lies where its "
                f"mask would. Choose another."
            )
    return found


def mask_names(found: dict[Path, Path]) -> dict[Path, Path]:
    """The mask's relative path for each image: its own with the suffix .png.

    Two images with one stem keep their suffix inside the name (a.jpg.png and a.png.png).

    Raises:
        ConfigError: two images have the same relative path.
    """
    stems: dict[Path, list[Path]] = {}
    for file, relative in found.items():
        stems.setdefault(relative.with_suffix(""), []).append(file)
    names: dict[Path, Path] = {}
    shared = 0
    for stem, files in stems.items():
        if len(files) == 1:
            names[files[0]] = stem.with_name(f"{stem.name}.png")
            continue
        shared += 1
        names |= {file: found[file].with_name(f"{found[file].name}.png") for file in files}
    refuse_doubles(names.items())
    if shared:
        log.info(
            "%d stems belong to several images: their masks keep the suffix (a.jpg.png, a.png.png)", shared
        )
    return names


def refuse_doubles(writers: Iterable[tuple[Path, Path]]) -> None:
    """Raises a ConfigError if two images (first of each pair) would write one file (second)."""
    first: dict[Path, Path] = {}
    for file, name in writers:
        if (other := first.setdefault(name, file)) != file:
            raise ConfigError(
                f"{other} and {file} would both write {name}. Give the folder above them, or rename one, so "
                f"that their masks stay apart."
            )


def _in_folder(folder: Path, out: Path) -> dict[Path, Path]:
    if _inside(folder, out) or folder.resolve() == out.resolve():
        raise ConfigError(
            f"--out {out}: expected a folder apart from the images, found that {folder} is in it."
        )
    members = {folder / p: Path(p) for p in list_images(folder) if not _inside(folder / p, out)}
    others = [file for file in folder.rglob("*") if file.suffix and file.is_file() and not _inside(file, out)]
    others = [file for file in others if file.suffix.lower() not in IMAGE_SUFFIXES and file.name[0] != "."]
    if others:
        kinds = ", ".join(sorted({file.suffix.lower() for file in others})[:8])
        log.info("%s: %d files are no images by their names and left out (%s)", folder, len(others), kinds)
    sides = {file: (find_side(relative.parent.parts) or [None])[0] for file, relative in members.items()}
    if {"images", "masks"} <= set(sides.values()):
        images = {file: relative for file, relative in members.items() if sides[file] == "images"}
        log.info(
            "%s: has Images/ and Masks/; %d images below Images/ are taken, %d others are not",
            folder,
            len(images),
            len(members) - len(images),
        )
        return images
    return members


def _in_csv(path: Path, root: str | Path | None, split: str | None) -> dict[Path, Path]:
    manifest = load_manifest(path, root, masks=False)
    if split is not None:  # without, it does not matter that splits were derived
        for note in manifest.notes:
            log.info("%s: %s", path, note)
    rows = manifest.rows if split is None else manifest.select(split)
    return {manifest.path(row.image): Path(row.image) for row in rows}


def _is_csv(text: str) -> bool:
    return text.lower().endswith(".csv") and Path(text).is_file()


def _inside(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def _fixed_part(pattern: str) -> Path:
    fixed: list[str] = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)
