"""Which classes and which splits an import keeps, and what is said about the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from nailseg.data.import_items import Source
from nailseg.data.manifest import Row
from nailseg.data.splits import split_rows
from nailseg.errors import ConfigError, DataError

MAX_CLASSES = 253
"""Values above stand for "no class" and "do not count"."""


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
    if len(names) == 1 or len(names) > MAX_CLASSES + 1:
        raise DataError(f"expected annotations of 1 to {MAX_CLASSES} classes, found {len(names) - 1}.")
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
            f"{src}: expected a split for every picture or none, found {len(lost)} without, such as "
            f"{lost[0]}. Put them into a folder train, val or test, or deal all anew with --resplit."
        )
    dealt = list(rows)
    if said["train"] and not said["val"]:
        test = 0.0 if said["test"] else 0.1
        train = [replace(row, split="") for row in rows if row.split == "train"]
        train = split_rows(train, 0.1, test, seed)
        dealt = sorted([*train, *(row for row in rows if row.split != "train")], key=lambda row: row.image)
        notes.append(f"val{' and test' if test else ''}: not in the source, dealt out of train, seed {seed}")
    splits_of: dict[str, set[str]] = {}
    for row in dealt:
        splits_of.setdefault(row.group, set()).add(row.split)
    crossing = [group for group, splits in splits_of.items() if len(splits) > 1]
    if crossing:
        notes.append(
            f"{len(crossing)} groups lie in several of the source's splits, such as {crossing[0]}: "
            "a test on them flatters. --resplit deals anew, groups whole"
        )
    return dealt
