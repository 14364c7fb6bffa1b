"""Finds the mask of every image: by relative path and stem, never by two sorted lists."""

import os
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

from nailseg.data.io.headers import IMAGE_SUFFIXES
from nailseg.errors import DataError

FOLDERS = {"images": "images", "image": "images", "masks": "masks", "mask": "masks"}
"""Lower-case name of a folder -> the side of the pairs that it holds."""

AnyPath = TypeVar("AnyPath", bound=PurePath)


@dataclass(frozen=True)
class Pairs:
    """Images with their masks, and the files without a partner; paths relative to the root, sorted."""

    pairs: tuple[tuple[str, str], ...]  # (image, mask)
    unpaired_images: tuple[str, ...] = ()
    unpaired_masks: tuple[str, ...] = ()
    ambiguous: tuple[tuple[str, ...], ...] = ()  # files of one side that share folder and stem
    not_utf8: tuple[str, ...] = ()  # names that no CSV can hold, their other bytes written as \\xe9


def pair_folders(root: str | Path) -> Pairs:
    """Pairs images below a folder `images` with masks of the same relative path and stem below `masks`.

    The two folders may lie at the root (`Images/1/a.jpg`, `Masks/1/a.png`) or deeper (`train/images/a.jpg`,
    `train/masks/a.png`), in upper or lower case. Two images, or two masks, of one stem in one folder are left
    out and reported, because any choice would be a guess; names that are not UTF-8 are, too. Hidden files are
    skipped, and links to folders below `root` are not followed.

    Raises:
        DataError: no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(
            f"{root}: expected a folder with Images/ and Masks/, found no folder. Check the path."
        )
    images, masks = defaultdict(list), defaultdict(list)
    not_utf8 = []
    for relative in list_images(root):
        parts, name = relative.parent.parts, relative.as_posix()
        side, position = find_side(parts)
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if side and shown != name:
            not_utf8.append(shown)
        elif side:
            key = (*parts[:position], "", *parts[position + 1 :], relative.stem)
            (images if side == "images" else masks)[key].append(name)
    groups = [*images.items(), *masks.items()]
    ambiguous = {key for key, files in groups if len(files) > 1}
    return Pairs(
        tuple(sorted((images[key][0], masks[key][0]) for key in (images.keys() & masks.keys()) - ambiguous)),
        tuple(sorted(images[key][0] for key in images.keys() - masks.keys() - ambiguous)),
        tuple(sorted(masks[key][0] for key in masks.keys() - images.keys() - ambiguous)),
        tuple(sorted(tuple(sorted(files)) for _, files in groups if len(files) > 1)),
        tuple(not_utf8),
    )


def list_images(root: Path) -> list[PurePosixPath]:
    """Lists the files with an image's suffix below a folder, relative to it, sorted, without hidden ones."""
    found: list[PurePosixPath] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative = PurePosixPath(Path(folder).relative_to(root).as_posix())
        found.extend(relative / name for name in files if _is_image(name))
    return sorted(found)


def name_masks(images: Collection[AnyPath]) -> dict[AnyPath, AnyPath]:
    """Names a mask file for each image, both relative: the image's path with the suffix .png.

    Images that share folder and stem keep their suffix in the name (a.jpg.png and a.png.png). The name can
    still be that of another image's mask: a.jpg.webp alone gets a.jpg.png too.
    """
    stems = Counter(image.with_suffix("") for image in images)
    names = {}
    for image in images:
        is_shared = stems[image.with_suffix("")] > 1
        names[image] = image.with_name(f"{image.name if is_shared else image.stem}.png")
    return names


def find_mask(root: Path, image: str, listings: dict[PurePosixPath, dict[str, list[str]]]) -> list[str]:
    """Finds the masks, one in a correct data set, that belong to an image by its folder and stem.

    `listings` caches the files of each folder, by stem.
    """
    path = PurePosixPath(image)
    folder = _find_mask_folder(root, path.parent)
    if folder is None:
        return []
    if folder not in listings:
        listings[folder] = defaultdict(list)
        for name in filter(_is_image, sorted(os.listdir(root / folder))):
            listings[folder][PurePosixPath(name).stem].append((folder / name).as_posix())
    return listings[folder].get(path.stem, [])


def find_side(parts: tuple[str, ...]) -> tuple[str | None, int]:
    """Finds the part of a path that is named `images` or `masks`.

    Returns:
        `images`, `masks` or None, and the position of that part.

    Examples:
        >>> find_side(("train", "Images", "1"))
        ('images', 1)
    """
    for position, part in enumerate(parts):
        if part.lower() in FOLDERS:
            return FOLDERS[part.lower()], position
    return None, 0


def _find_mask_folder(root: Path, folder: PurePosixPath) -> PurePosixPath | None:
    """The folder of masks that mirrors a folder of images, None where there is none."""
    side, position = find_side(folder.parts)
    if side != "images":
        return None
    before, after = folder.parts[:position], folder.parts[position + 1 :]
    parent = root.joinpath(*before)
    for name in sorted(os.listdir(parent)) if parent.is_dir() else []:
        if FOLDERS.get(name.lower()) == "masks" and parent.joinpath(name, *after).is_dir():
            return PurePosixPath(*before, name, *after)
    return None


def _is_image(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
