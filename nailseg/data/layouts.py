"""The folder layouts of image/mask data sets that `nailseg index` recognises; one row of a table each."""

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MASK_SUFFIXES = ("_segmentation", "_mask", "_masks", "_label", "_gt")
"""What a mask's stem may have beyond its image's, where no file has the stem itself."""
LABEL_MAP = "labelmap.txt"


@dataclass(frozen=True)
class Layout:
    """Where images and masks lie, and how their names differ."""

    name: str
    # regular expressions of the folders' lower-case names, whose first groups must be equal; empty: images
    # lie beside their masks
    images: str
    masks: str
    image_suffix: str = ""  # ends the stems of images
    mask_suffixes: tuple[str, ...] = MASK_SUFFIXES
    only_suffixed: bool = False  # files in the folder of masks without such a suffix are something else
    given: tuple[tuple[str, PurePosixPath], ...] = ()  # (side, folder) instead of the expressions

    def classify(self, file: PurePosixPath) -> tuple[str, tuple[str, ...], str] | None:
        """The side (`images` or `masks`) of a file, its folders without that of the side, and its stem.

        None for files of neither side.
        """
        if self.given:
            found = ((side, folder) for side, folder in self.given if file.is_relative_to(folder))
            return next(((side, file.relative_to(at).parts[:-1], file.stem) for side, at in found), None)
        parts = file.parent.parts
        if not self.images:  # beside each other
            return ("masks" if strip(file.stem, self.mask_suffixes) else "images"), parts, file.stem
        for position, part in enumerate(parts):
            for side, pattern in (("masks", self.masks), ("images", self.images)):
                if found := re.fullmatch(pattern, part.lower()):
                    if side == "masks" and self.only_suffixed and not strip(file.stem, self.mask_suffixes):
                        return None
                    common = found[1] if found.re.groups else ""
                    return side, (*parts[:position], common, *parts[position + 1 :]), file.stem
        return None


_PART = "(training|validation|test)"

LAYOUTS = (
    Layout("Images and Masks", "images?", "masks?"),
    Layout("ADE20K", "images", "annotations"),
    Layout("Pascal VOC or CVAT", "jpegimages", "segmentationclass"),
    Layout("Cityscapes", "leftimg8bit", "gtfine", "_leftImg8bit", ("_gtFine_labelIds",), only_suffixed=True),
    # ISIC2018_Task1-2_Training_Input with ISIC2018_Task1_Training_GroundTruth, and the names of other years
    Layout("ISIC", rf".*{_PART}.*_(?:data|input)", rf".*{_PART}.*_groundtruth"),
    Layout("Carvana", r"(.+)", r"(.+)_masks?"),
    Layout("masks beside their images", "", ""),
)
"""In order of preference: the first that pairs anything is taken."""


def strip(stem: str, suffixes: tuple[str, ...]) -> str | None:
    """A stem without the first of the suffixes that it has, None without any.

    >>> strip("a_mask", ("_segmentation", "_mask"))
    'a'
    """
    found = next((suffix for suffix in suffixes if stem.endswith(suffix) and stem != suffix), None)
    return found and stem.removesuffix(found)


def read_label_map(root: Path) -> str | None:
    """The options that CVAT's labelmap.txt stands for, None without that file.

    Its lines are `name:red,green,blue:parts:actions`; the first class is the background.
    """
    file = root / LABEL_MAP
    if not file.is_file():
        return None
    entry = r"^([^:\n]*):(\d{1,3}),(\d{1,3}),(\d{1,3})(?::|$)"
    entries = re.findall(entry, file.read_text(encoding="utf-8"), re.MULTILINE)
    colors = {name: tuple(map(int, color)) for name, *color in entries}
    if len(colors) < 2:
        return None
    names = sorted(colors, key=lambda name: name != "background")
    mapping = json.dumps({"#{:02x}{:02x}{:02x}".format(*colors[name]): name for name in names})
    return f"--data.classes '[{','.join(names)}]' --data.mask_values '{mapping}'"
