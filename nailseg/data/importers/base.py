"""What every importer yields: annotated images, what was wrong with the rest, and which of it is kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nailseg.data.importers.rasterize import Shape
from nailseg.data.io.images import read_bytes
from nailseg.data.issues import Issue
from nailseg.data.manifest import Row, find_group_splits
from nailseg.data.splitting.index import split_rows
from nailseg.errors import ConfigError, DataError
from nailseg.types import MAX_CLASSES


@dataclass(frozen=True)
class Item:
    """One annotated image of a source; `split`, `group` and `size` are None where the source is silent."""

    name: str  # path below Images/, forward slashes
    source: str  # what people find it under in the source
    split: str | None  # train, val, test
    group: str | None  # what must not be divided
    read: Callable[[], bytes]  # gives the image file's bytes
    shapes: tuple[Shape, ...] = ()
    size: tuple[int, int] | None = None  # (H, W) that the shapes refer to
    mask: Callable[[], np.ndarray] | None = None  # instead of shapes: uint8 (H, W), class index, 255 ignore


@dataclass
class Source:
    """What a source holds; images with a fault are not among the items."""

    items: list[Item] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)  # foreground, in the source's order
    faults: list[Issue] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)  # what was tolerated
    notes: list[str] = field(default_factory=list)  # what else people should know
    indexed: bool = False  # masks have pixels to ignore, which 0/255 cannot say

    def refuse(self, where: object, message: str, code: str = "label-format") -> None:
        """Notes a label or image that cannot be used."""
        fix = "Mend it, or leave such images out with --skip-bad."
        self.faults.append(Issue(code, str(where), message, fix))


def split_named(words: Iterable[str]) -> str | None:
    """The split that the first of some folder names or words speaks of: train2017 -> train, valid -> val."""
    found = (re.fullmatch(r"(train|val|test)(ing|id|idation)?\d*", word.lower()) for word in words)
    return next((match.group(1) for match in found if match), None)


def image_item(
    root: Path, picture: PurePosixPath, split: str | None, group: str | None = None, **rest: Any
) -> Item:
    """The item of an image file: named by its path below the root without the folder `images`."""
    name = PurePosixPath(*[part for part in picture.parts if part.lower() != "images"])
    if group is None and ".rf." in name.name:
        group = name.name.split(".rf.")[0]  # Roboflow's augmented copies of one upload differ after .rf.
    return Item(str(name), str(picture), split, group, lambda: read_bytes(root / picture), **rest)


def choose_classes(
    source: Source, requested: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int], list[str]]:
    """Class names by index, the index of each of the source's classes, and what to say about it."""
    used = Counter(shape.category for item in source.items for shape in item.shapes)
    if any(item.mask for item in source.items):
        return ("background", *source.class_names), {}, []
    merged: dict[str, str] = {}  # the source's class -> its new name
    if requested is None:
        merged = {name: name for name in source.class_names if used[name]}
    for request in requested or ():
        name, _, parts = request.partition("=")
        wanted = parts.split(",") if parts else [name]
        for part in [n for n in source.class_names if n not in merged] if parts == "*" else wanted:
            if part not in source.class_names or part in merged:
                raise ConfigError(
                    f"--classes {request}: expected classes of the source, each once "
                    f"({', '.join(source.class_names)}), found {part}."
                )
            merged[part] = name
    # a class that the source itself calls background is drawn as such
    names = ("background", *dict.fromkeys(name for name in merged.values() if name != "background"))
    if len(names) == 1 or len(names) > MAX_CLASSES:
        raise DataError(f"expected annotations of 1 to {MAX_CLASSES - 1} classes, found {len(names) - 1}.")
    notes = [
        f"{name} ({used[name]} annotations): "
        + ("not among --classes, background" if used[name] else "left out")
        for name in source.class_names
        if name not in merged
    ]
    return names, {old: names.index(new) for old, new in merged.items()}, notes


def keep_splits(rows: Sequence[Row], resplit: bool, seed: int, notes: list[str], src: str) -> list[Row]:
    """Keeps the source's splits, deals out what is missing, and says which groups lie in several."""
    said = Counter(row.split for row in rows)
    if resplit or not any(row.split for row in rows):
        notes.append(f"splits: dealt out anew, 10% val, 10% test, groups whole, seed {seed}")
        return split_rows([replace(row, split="") for row in rows], 0.1, 0.1, seed)
    if said[""]:
        lost = [row.image for row in rows if not row.split]
        raise DataError(
            f"{src}: expected a split for every image or none, found {len(lost)} without, such as "
            f"{lost[0]}. Put them into a folder train, val or test, or deal all anew with --resplit."
        )
    dealt = list(rows)
    if said["train"] and not said["val"]:
        test = 0.0 if said["test"] else 0.1
        train = [replace(row, split="") for row in rows if row.split == "train"]
        train = split_rows(train, 0.1, test, seed)
        dealt = sorted([*train, *(row for row in rows if row.split != "train")], key=lambda row: row.image)
        notes.append(f"val{' and test' if test else ''}: not in the source, dealt out of train, seed {seed}")
    crossing = [group for group, splits in find_group_splits(dealt).items() if len(splits) > 1]
    if crossing:
        notes.append(
            f"{len(crossing)} groups lie in several of the source's splits, such as {crossing[0]}: "
            "a test on them flatters. --resplit deals anew, groups whole"
        )
    return dealt
