"""Finds the mask of every image: by relative path and stem, never by two sorted lists."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nailseg.data.io.headers import IMAGE_SUFFIXES
from nailseg.errors import DataError

FOLDERS = {"images": "images", "image": "images", "masks": "masks", "mask": "masks"}


@dataclass(frozen=True)
class Pairs:
    """Images with their masks, and what found no partner; paths relative to the root, sorted."""

    pairs: tuple[tuple[str, str], ...]  # (image, mask)
    images_alone: tuple[str, ...] = ()
    masks_alone: tuple[str, ...] = ()
    doubled: tuple[tuple[str, ...], ...] = ()  # files of one side that share folder and stem
    not_utf8: tuple[str, ...] = ()  # names that no CSV can hold, with the odd bytes written as \\xe9


def pair_folders(root: str | Path) -> Pairs:
    """Pairs images below a folder `images` with those of the same relative path and stem below `masks`.

    The two folders may lie at the root (`Images/1/a.jpg`, `Masks/1/a.png`) or deeper (`train/images/a.jpg`,
    `train/masks/a.png`), in upper or lower case. Two images, or two masks, of one stem in one folder are left
    out and reported: which belongs to which would be a guess; so are names that are not UTF-8. Hidden files
    are passed over.

    Args:
        root: folder to search; links to folders below it are not followed.

    Raises:
        DataError: no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        message = f"{root}: expected a folder with Images/ and Masks/, found no folder. Check the path."
        raise DataError(message)
    sides: dict[str, dict[tuple[str, ...], list[str]]] = {"images": {}, "masks": {}}
    not_utf8 = []
    for relative in list_images(root):
        found = find_side(relative.parent.parts)
        name = relative.as_posix()
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if found is not None and shown != name:
            not_utf8.append(shown)
        elif found is not None:
            side, rest = found
            sides[side].setdefault((*rest, relative.stem), []).append(name)
    unsure = {key for side in sides.values() for key, files in side.items() if len(files) > 1}
    images, masks = ({k: f[0] for k, f in side.items() if k not in unsure} for side in sides.values())
    return Pairs(
        tuple(sorted((images[key], masks[key]) for key in images.keys() & masks.keys())),
        tuple(sorted(images[key] for key in images.keys() - sides["masks"].keys())),
        tuple(sorted(masks[key] for key in masks.keys() - sides["images"].keys())),
        tuple(sorted(tuple(sorted(f)) for side in sides.values() for f in side.values() if len(f) > 1)),
        tuple(not_utf8),
    )


def list_images(root: Path) -> list[PurePosixPath]:
    """Every file with an image's ending below a folder, relative to it, sorted; hidden ones are left out."""
    found: list[PurePosixPath] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative = PurePosixPath(Path(folder).relative_to(root).as_posix())
        found.extend(
            relative / name
            for name in files
            if not name.startswith(".") and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
        )
    return sorted(found)


def find_mask(root: Path, image: str, listings: dict[PurePosixPath, dict[str, list[str]]]) -> list[str]:
    """The masks (one, if all is well) that belong to an image by its folder and stem.

    `listings` (what folders were found to hold) is filled as needed, so that each is listed once.
    """
    path = PurePosixPath(image)
    folder = mask_folder(root, path.parent)
    if folder is None:
        return []
    if folder not in listings:
        by_stem = listings[folder] = {}
        for name in sorted(os.listdir(root / folder)):
            candidate = folder / name
            if candidate.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                by_stem.setdefault(candidate.stem, []).append(candidate.as_posix())
    return listings[folder].get(path.stem, [])


def mask_folder(root: Path, folder: PurePosixPath) -> PurePosixPath | None:
    """The folder of masks that mirrors a folder of images, None where there is none."""
    found = find_side(folder.parts)
    if found is None or found[0] != "images":
        return None
    place = next(index for index, part in enumerate(folder.parts) if part.lower() in FOLDERS)
    before, after = folder.parts[:place], folder.parts[place + 1 :]
    parent = root.joinpath(*before)
    for name in sorted(os.listdir(parent)) if parent.is_dir() else []:
        if FOLDERS.get(name.lower()) == "masks" and parent.joinpath(name, *after).is_dir():
            return PurePosixPath(*before, name, *after)
    return None


def find_side(parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """`images` or `masks`, and the path without that part."""
    for index, part in enumerate(parts):
        side = FOLDERS.get(part.lower())
        if side is not None:
            return side, (*parts[:index], "", *parts[index + 1 :])
    return None
