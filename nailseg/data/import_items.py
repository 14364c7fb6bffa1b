"""What every importer yields: annotated pictures, and what was wrong with the rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nailseg.data.faults import Fault
from nailseg.data.rasterise import Shape
from nailseg.data.reading import read_bytes

MEND = "Mend it, or leave such pictures out with --skip-bad."


@dataclass(frozen=True)
class Item:
    """One annotated picture of a source.

    Attributes:
        name: path below Images/, forward slashes.
        source: what people find it under in the source.
        split: train, val, test; None where the source does not say.
        group: what must not be divided; None where the source does not say.
        read: gives the picture file's bytes.
        shapes: its annotations.
        size: (H, W) that they refer to; None where the source does not say.
        mask: instead of shapes: gives uint8 (H, W), class index, 255 ignore.
    """

    name: str
    source: str
    split: str | None
    group: str | None
    read: Callable[[], bytes]
    shapes: tuple[Shape, ...] = ()
    size: tuple[int, int] | None = None
    mask: Callable[[], np.ndarray] | None = None


@dataclass
class Source:
    """What a source holds.

    Attributes:
        items: the annotated pictures.
        class_names: foreground classes in the source's order.
        faults: what cannot be used; pictures with a fault are not among the items.
        events: what was tolerated, counted.
        notes: what else people should know.
        indexed: masks have pixels to ignore, which 0/255 cannot say.
    """

    items: list[Item] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    indexed: bool = False


def split_named(words: Iterable[str]) -> str | None:
    """The split that the first of some folder names or words speaks of: train2017 -> train, valid -> val."""
    found = (re.fullmatch(r"(train|val|test)(ing|id|idation)?\d*", word.lower()) for word in words)
    return next((match.group(1) for match in found if match), None)


def picture_item(
    root: Path, picture: PurePosixPath, split: str | None, group: str | None = None, **rest: Any
) -> Item:
    """The item of a picture file: named by its path below the root without the folder `images`."""
    name = PurePosixPath(*[part for part in picture.parts if part.lower() != "images"])
    if group is None and ".rf." in name.name:
        group = name.name.split(".rf.")[0]  # Roboflow's augmented copies of one upload differ after .rf.
    return Item(str(name), str(picture), split, group, lambda: read_bytes(root / picture), **rest)


def label_fault(where: object, message: str) -> Fault:
    """A label that cannot be used."""
    return Fault("label-form", str(where), message, MEND)
