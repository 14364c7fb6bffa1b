"""Many files in, one mask file each out: `nailseg predict`."""

from __future__ import annotations

import glob
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from tqdm import tqdm

from nailseg import predictor
from nailseg.data.reading import IMAGE_SUFFIXES
from nailseg.errors import ConfigError, DataError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("nailseg")


def find_images(paths: Sequence[str], out: Path) -> dict[Path, Path]:
    """The pictures that files, folders and globs stand for.

    Args:
        paths: files, folders (searched to any depth) and globs (`**` included).
        out: where masks go; it is not searched.

    Returns:
        Each file with its path relative to what named it: a folder, or the fixed part of a glob.

    Raises:
        ConfigError: a path that names nothing, or no picture at all.
    """
    found: dict[Path, Path] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir() and out.resolve() in (path.resolve(), *path.resolve().parents):
            raise ConfigError(
                f"--out {out}: expected a folder apart from the pictures, found that {path} is in it."
            )
        if path.is_dir():
            members = {
                file: file.relative_to(path) for file in sorted(path.rglob("*")) if _is_picture(file, out)
            }
        elif path.exists():
            members = {path: Path(path.name)}
        else:
            base = _fixed_part(text)
            matches = sorted(Path(match) for match in glob.glob(text, recursive=True))
            members = {file: file.relative_to(base) for file in matches if _is_picture(file, out)}
        if not members:
            raise ConfigError(
                f"{text}: expected a picture, a folder with pictures or a glob that matches some, found "
                f"none. Pictures end in {', '.join(sorted(IMAGE_SUFFIXES))}."
            )
        found |= members
    return found


def _is_picture(path: Path, out: Path) -> bool:
    return (
        path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and out.resolve() not in path.resolve().parents
    )


def _fixed_part(pattern: str) -> Path:
    fixed: list[str] = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def mask_names(found: dict[Path, Path]) -> dict[Path, Path]:
    """The mask's relative path for each picture: its own with the suffix .png.

    Two pictures with one stem keep their suffix inside the name (a.jpg.png and a.png.png).

    Raises:
        ConfigError: two pictures have the same relative path.
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
    writers: dict[Path, Path] = {}
    for file, name in names.items():
        if (other := writers.setdefault(name, file)) != file:
            raise ConfigError(
                f"{other} and {file} would both write {name}. Give the folder above them, or rename one, so "
                f"that their masks stay apart."
            )
    if shared:
        log.info(
            "%d stems belong to several pictures: their masks keep the suffix (a.jpg.png, a.png.png)", shared
        )
    return names


def predict_files(
    paths: Sequence[str],
    model: str,
    out: str | Path,
    overlays: bool = False,
    as_index: bool = False,
    device: str | None = None,
    threshold: float | Literal["model"] | None = None,
) -> int:
    """Writes an 8-bit single-channel PNG for every picture, at the picture's size.

    Args:
        paths: as `find_images` takes them.
        model: as `predictor.load` takes it.
        out: the folder for masks; 0/255 for two classes, class indices otherwise.
        overlays: also write NAME.overlay.jpg beside each mask.
        as_index: class indices for two classes too.
        device: as `predictor.load` takes it.
        threshold: as `predictor.load` takes it.

    Returns:
        Exit code: 0, or 1 if a picture could not be read; the others are done all the same.

    Raises:
        OutputError: a mask exists already; nothing is overwritten.
        ConfigError: no such device, or the paths name no picture, or two that cannot be kept apart.
        WeightsError: the model cannot be used.
    """
    out = Path(out)
    names = mask_names(find_images(paths, out))
    written = [*names.values(), *(name.with_suffix(".overlay.jpg") for name in names.values() if overlays)]
    if taken := [name for name in written if (out / name).exists()]:
        raise OutputError(
            f"{out}: {len(taken)} of {len(written)} files exist already (the first: {taken[0]}) and are not "
            f"overwritten. Choose another --out or move them away."
        )
    segment = predictor.load(model, device, threshold)
    white = 255 if len(segment.class_names) == 2 and not as_index else 1
    failures: list[DataError] = []
    for file, name in tqdm(names.items(), unit="image", disable=len(names) == 1):
        try:
            result = segment(file)
        except DataError as error:
            failures.append(error)
            continue
        _write(out / name, cv2.imencode(".png", result.mask * np.uint8(white))[1])
        if overlays:
            picture = cv2.imencode(".jpg", result.overlay()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            _write(out / name.with_suffix(".overlay.jpg"), picture)
    log.info("%d masks in %s", len(names) - len(failures), out)
    for failure in failures:
        log.error("not done: %s", failure)
    return 1 if failures else 0


def _write(path: Path, content: np.ndarray) -> None:
    """Writes all of a file or nothing: a mask that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(content.tobytes())
    os.replace(scratch, path)
