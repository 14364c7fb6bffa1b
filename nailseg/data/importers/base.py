"""What every importer returns, and the choice of classes and splits that all formats share."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nailseg.data.assign import DEFAULT_SHARE, find_split
from nailseg.data.importers.rasterize import Annotation
from nailseg.data.io.images import read_bytes
from nailseg.data.issues import Issue
from nailseg.data.manifest import Row, find_group_splits, split_rows
from nailseg.errors import ConfigError, DataError
from nailseg.types import MAX_CLASSES


@dataclass(frozen=True)
class Item:
    """One image of a source with its annotations or its mask."""

    name: str  # path below Images/, forward slashes
    source: str  # its name in the source, for messages
    split: str | None  # train, val or test; None where the source does not state it
    group: str | None  # images that no split divides
    read: Callable[[], bytes]  # the image file's bytes
    annotations: tuple[Annotation, ...] = ()
    size: tuple[int, int] | None = None  # (H, W) of the annotated image, if the source states it
    mask: Callable[[], np.ndarray] | None = None  # instead of annotations: uint8 (H, W), class index or 255


@dataclass
class Source:
    """Content of a source."""

    root: Path = Path()  # folder of the image files
    items: list[Item] = field(default_factory=list)  # images without issues
    class_names: list[str] = field(default_factory=list)  # foreground, in the source's order
    issues: list[Issue] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)  # counts of what was tolerated or left out
    notes: list[str] = field(default_factory=list)
    skip_annotations: bool = False  # leave out single annotations with issues, not their images
    indexed: bool = False  # masks have pixels to ignore, so they cannot be written as 0/255

    def add_image(
        self,
        image: PurePosixPath | None,
        found: Sequence[Annotation | Issue],
        split: str | None,
        group: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Adds an image file below the root with its annotations, or only the issues among `found`."""
        if self.skip_annotations and image is not None:
            bad = sum(isinstance(entry, AnnotationIssue) for entry in found)
            self.events["annotations that cannot be used, left out (--skip-annotations)"] += bad
            found = [entry for entry in found if not isinstance(entry, AnnotationIssue)]
        issues = [entry for entry in found if isinstance(entry, Issue)]
        self.issues += issues
        if image is None or issues:
            return
        name = PurePosixPath(*[part for part in image.parts if part.lower() != "images"])
        if group is None and ".rf." in name.name:
            group = name.name.split(".rf.")[0]  # Roboflow's augmented copies differ after .rf.
        split = split or find_split(image.parts[:-1])
        read = partial(read_bytes, self.root / image)
        self.items.append(Item(str(name), str(image), split, group, read, tuple(found), size))


class AnnotationIssue(Issue):
    """An issue of one annotation, without which its image can be used."""


def label_issue(where: object, message: str, code: str = "label-format") -> Issue:
    """An issue of a label, or of an image that labels refer to."""
    return Issue(code, str(where), message, "Correct it, or leave such images out with --skip-bad.")


def parse_label(where: str, parse: Callable[..., Annotation], *args: Any) -> Annotation | Issue:
    """Calls `parse`; the `ValueError` of a label that cannot be used becomes an issue."""
    try:
        return parse(*args)
    except ValueError as error:
        return AnnotationIssue(**vars(label_issue(where, str(error))))


def choose_classes(source: Source, requested: Sequence[str] | None) -> tuple[tuple[str, ...], dict[str, int]]:
    """Returns the class names by index and the index of each kept class; adds notes to the source."""
    known = source.class_names
    used = Counter(annotation.category for item in source.items for annotation in item.annotations)
    if requested is None:
        renamed = {name: name for name in known if used[name]}
    else:
        renamed = _parse_classes(known, requested)
    # a class that the source itself calls background is drawn as such
    names = ("background", *dict.fromkeys(name for name in renamed.values() if name != "background"))
    if not 2 <= len(names) <= MAX_CLASSES:
        reason = f" Left out: {len(source.issues)}, the first is {source.issues[0]}" if source.issues else ""
        found = f"expected annotations of 1 to {MAX_CLASSES - 1} classes, found {len(names) - 1}."
        raise DataError(found + reason)
    for name in known:
        if name not in renamed:
            reason = "not in --classes, background" if used[name] else "left out"
            source.notes.append(f"{name} ({used[name]} annotations): {reason}")
    return names, {old: names.index(new) for old, new in renamed.items()}


def _parse_classes(known: Sequence[str], requested: Sequence[str]) -> dict[str, str]:
    """The new name of each class of the source that is kept: NAME, NEW=OLD,OLD or NEW=* for all others."""
    renamed: dict[str, str] = {}
    for request in requested:
        new, _, parts = request.partition("=")
        others = [name for name in known if name not in renamed]
        olds = parts.split(",") if parts else [new]
        if parts == "*":
            olds = others
        if unknown := [old for old in olds if old not in others]:
            expected = f"expected classes of the source, each once ({', '.join(known)})"
            raise ConfigError(f"--classes {request}: {expected}, found {unknown[0]}.")
        renamed.update(dict.fromkeys(olds, new))
    return renamed


def complete_splits(source: Source, rows: Sequence[Row], resplit: bool, seed: int) -> list[Row]:
    """Keeps the source's splits and assigns those that are missing; adds notes to the source."""
    counts = Counter(row.split for row in rows)
    share = f"{DEFAULT_SHARE:.0%}"
    replaced: set[str] = set()  # the splits whose rows get another one
    test = DEFAULT_SHARE
    if resplit or counts.keys() <= {""}:
        replaced = set(counts)
        source.notes.append(
            f"splits: newly assigned, {share} val, {share} test, groups kept whole, seed {seed}"
        )
    elif counts[""]:
        first = next(row.image for row in rows if not row.split)
        raise DataError(
            f"{first}: expected a split for every image or for none, found {counts['']} images without. "
            "Put them into a folder train, val or test, or assign all splits anew with --resplit."
        )
    elif counts["train"] and not counts["val"]:
        replaced, missing = {"train"}, "val and test"
        if counts["test"]:
            test, missing = 0.0, "val"
        source.notes.append(f"{missing}: not in the source, taken from train, seed {seed}")
    rows = [replace(row, split="") if row.split in replaced else row for row in rows]
    rows = split_rows(rows, DEFAULT_SHARE, test, seed)
    divided = [group for group, splits in find_group_splits(rows).items() if len(splits) > 1]
    if divided:
        found = f"{len(divided)} groups lie in several of the source's splits, such as {divided[0]}"
        fix = "--resplit assigns new splits, groups kept whole"
        source.notes.append(f"{found}: test results will be too high. {fix}")
    return rows
