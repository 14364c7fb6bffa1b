"""Finds the mask of every image: by relative path and stem, never by two sorted lists."""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar
from unicodedata import normalize

from nailseg.data.io.headers import IMAGE_SUFFIXES
from nailseg.data.layouts import LAYOUTS, Layout, strip
from nailseg.errors import DataError

AnyPath = TypeVar("AnyPath", bound=PurePath)


@dataclass(frozen=True)
class Pairs:
    """Images with their masks, and the files without a partner; paths relative to the root, sorted."""

    pairs: tuple[tuple[str, str], ...]  # (image, mask)
    unpaired_images: tuple[str, ...] = ()
    unpaired_masks: tuple[str, ...] = ()
    ambiguous: tuple[tuple[str, ...], ...] = ()  # files of one side that share folder and stem
    not_utf8: tuple[str, ...] = ()  # names that no CSV can hold, their other bytes written as \\xe9
    layout: str = ""  # its name, as in `layouts.LAYOUTS`


def pair_folders(
    root: str | Path,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    mask_suffix: str | None = None,
) -> Pairs:
    """Pairs the images of a folder with their masks, by one of `layouts.LAYOUTS` or two given folders.

    A mask has the image's relative path and stem (`Images/1/a.jpg`, `Masks/1/a.png`), or its stem and a
    suffix (`a_mask.png`), or its whole name (`a.jpg.png`). Unicode forms of a name are the same name. Two
    images, or two masks, of one name in one folder are left out and reported, because any choice would be a
    guess; names that are not UTF-8 are, too. Hidden files are skipped, and links to folders below `root` are
    not followed.

    Args:
        root: The folder that the paths of the result are relative to.
        images: Folder of the images below `root`; given with `masks`.
        masks: Folder of the masks below `root`.
        mask_suffix: What a mask's stem has beyond its image's; by default one of `layouts.MASK_SUFFIXES`.

    Raises:
        DataError: no such folder, or one that is not below `root`.
    """
    root = Path(root)
    for folder in filter(None, (root, images, masks)):
        if not Path(folder).is_dir():
            hint = " with Images/ and Masks/" if folder == root else ""
            raise DataError(f"{folder}: expected a folder{hint}, found no folder. Check the path.")
    layouts = LAYOUTS
    if images and masks:
        given = ("masks", _relative(root, Path(masks))), ("images", _relative(root, Path(images)))
        layouts = (Layout("given folders", "", "", given=given),)
    if mask_suffix:
        layouts = tuple(replace(layout, mask_suffixes=(mask_suffix,)) for layout in layouts)
    files = list_images(root)
    found = [_pair(files, layout) for layout in layouts]
    return next((pairs for pairs in found if pairs.pairs), found[0])


def _relative(root: Path, folder: Path) -> PurePosixPath:
    try:
        return PurePosixPath(folder.resolve().relative_to(root.resolve()).as_posix())
    except ValueError:
        found = f"expected a folder below {root}, found one elsewhere"
        raise DataError(f"{folder}: {found}. Give a ROOT above both.") from None


def _pair(files: Sequence[PurePosixPath], layout: Layout) -> Pairs:
    """Pairs by equal folders and names first, then the others by names without suffixes."""
    sides: dict[str, dict[tuple, list[str]]] = {"images": defaultdict(list), "masks": defaultdict(list)}
    not_utf8 = []
    for file in files:
        found, name = layout.classify(file), file.as_posix()
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if found and shown != name:
            not_utf8.append(shown)
        elif found:
            side, folders, stem = found
            # macOS writes names decomposed, and its zips carry them to others
            key = tuple(normalize("NFC", part) for part in (*folders, stem))
            sides[side][key].append(name)
    doubtful = {key for side in sides.values() for key, names in side.items() if len(names) > 1}
    ambiguous = [side[key] for side in sides.values() for key in doubtful & side.keys() if len(side[key]) > 1]
    images, masks = (
        {key: names[0] for key, names in side.items() if key not in doubtful} for side in sides.values()
    )
    pairs = [(images.pop(key), masks.pop(key)) for key in images.keys() & masks.keys()]
    candidates: dict[tuple, list[tuple]] = defaultdict(list)  # key of an image -> keys of masks
    for *folders, stem in masks:
        shorter = strip(stem, layout.mask_suffixes) or stem
        for key in {shorter, f"{shorter}{layout.image_suffix}", PurePosixPath(stem).stem} - {stem}:
            candidates[(*folders, key)].append((*folders, stem))
    for key in images.keys() & candidates.keys():
        if len(candidates[key]) == 1:
            pairs.append((images.pop(key), masks.pop(candidates[key][0])))
        else:
            ambiguous.append([masks.pop(mask) for mask in candidates[key]])
            images.pop(key)
    return Pairs(
        tuple(sorted(pairs)),
        tuple(sorted(images.values())),
        tuple(sorted(masks.values())),
        tuple(sorted(tuple(sorted(names)) for names in ambiguous)),
        tuple(not_utf8),
        layout.name,
    )


def suggest_suffix(pairs: Pairs) -> str | None:
    """The nearest candidates among the files without a partner, and the option that pairs them; or None."""
    for image in pairs.unpaired_images:
        stem = PurePosixPath(image).stem
        others = {PurePosixPath(mask).stem: mask for mask in pairs.unpaired_masks}
        longer = sorted((other for other in others if other.startswith(stem)), key=len)
        if longer:
            suffix = longer[0].removeprefix(stem)
            return f"{others[longer[0]]} may be the mask of {image}: --mask-suffix {suffix}"
        if near := get_close_matches(stem, others, n=1, cutoff=0.8):
            return f"{others[near[0]]} has the name nearest to {image}: rename one"
    return None


def list_images(root: Path) -> list[PurePosixPath]:
    """Lists the files with an image's suffix below a folder, relative to it, sorted, without hidden ones."""
    found: list[PurePosixPath] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative = PurePosixPath(Path(folder).relative_to(root).as_posix())
        found.extend(relative / name for name in files if not name.startswith("."))
    return sorted(file for file in found if file.suffix.lower() in IMAGE_SUFFIXES)


def name_masks(images: Collection[AnyPath]) -> dict[AnyPath, AnyPath]:
    """Names a mask file for each image, both relative: the image's path with the suffix .png.

    Images that share folder and stem keep their suffix in the name (a.jpg.png and a.png.png). The name can
    still be that of another image's mask: a.jpg.webp alone gets a.jpg.png too.
    """
    stems = Counter(image.with_suffix("") for image in images)
    shared = {image for image in images if stems[image.with_suffix("")] > 1}
    return {
        image: image.with_name(f"{image.name if image in shared else image.stem}.png") for image in images
    }
