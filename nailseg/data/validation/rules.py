"""What a set shows once its files are read: odd masks, absent classes, leaks between the splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nailseg.data.issues import Issue
from nailseg.data.manifest import Row, find_group_splits
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.mask_inference import MaskContent, count_classes, count_foreground
from nailseg.data.splitting.assign import SPLITS
from nailseg.data.splitting.duplicates import DuplicatePair
from nailseg.data.validation.issues import WARNINGS
from nailseg.data.validation.scan import ScanResult

MOST = 0.5
"""Foreground on more of an image and of its edge is background by another name."""
FEW = {"train": 20, "val": 5, "test": 5}
"""With fewer rows a split is odd: nothing is learnt, or a figure means little."""
SPLIT_ANEW = "Split anew with nailseg index, or leave these rows out (--skip-bad)."


def check_encodings(findings: Sequence[ScanResult], values: MaskEncoding) -> tuple[list[Issue], list[Issue]]:
    """Faults and oddities of single masks, whose values all mean a class."""
    faults, odd = [], []
    for finding in findings:
        content = finding.content
        if content is None:
            continue
        by_class = count_classes(content, values)
        edge = count_classes(MaskContent(content.file, finding.frame, content.lossy), values)
        foreground = count_foreground(by_class)
        if not foreground:
            message = "expected some foreground, found none"
            odd.append(Issue("mask-empty", content.file, message, "Fine if the image shows none."))
        elif len(values.class_names) == 2:
            # with more classes, images without background are common
            share, around = (count_foreground(each) / max(each.total(), 1) for each in (by_class, edge))
            if not by_class[0] and share == 1:
                message = f"expected some {values.class_names[0]}, found foreground only"
                fix = "Redraw it, or take the row out of the CSV."
                faults.append(Issue("mask-full", content.file, message, fix))
            elif share > MOST and around > MOST:
                message = "expected foreground on less than half of the image, found it on "
                message += f"{share:.0%}, and on {around:.0%} of its edge"
                fix = "Invert the mask, or say what the values mean (--data.mask_values)."
                faults.append(Issue("mask-inverted", content.file, message, fix))
        grey = values.antialiased and not content.lossy and not content.counts.keys() <= {0, 255}
        code = "mask-antialiased" if grey else f"mask-{finding.form}"
        if code in WARNINGS and not values.has_colors:
            message = f"expected an 8-bit grey PNG, found {WARNINGS[code]}"
            odd.append(Issue(code, content.file, message, "nailseg check --write-clean writes plain copies."))
    return faults, odd


def check_splits(
    findings: Sequence[ScanResult], values: MaskEncoding, splits: Sequence[str]
) -> tuple[list[Issue], list[Issue]]:
    """Faults and oddities of those splits of which every mask could be read."""
    pixels = {split: Counter[int]() for split in splits}
    rows = Counter(finding.row.split for finding in findings)
    for finding in findings:
        if finding.content is not None and finding.row.split in pixels:
            pixels[finding.row.split].update(count_classes(finding.content, values))
    bare = [split for split in splits if not count_foreground(pixels[split])]
    fix = "Check the masks and --data.mask_values"
    message = "expected masks with something but background, found none"
    faults = [Issue("no-foreground", split, message, f"{fix}.") for split in bare]
    # a class of two that lacks is `no-foreground` or `mask-full` already
    for index, name in enumerate(values.class_names if not bare and len(values.class_names) > 2 else ()):
        having = [split for split in splits if pixels[split][index]]
        if index == 0 or len(having) == len(splits):
            continue
        if not having:
            message = f"expected pixels of class {name}, found none in {', '.join(splits)}"
            faults.append(Issue("class-missing", name, message, f"{fix}, or shorten --data.classes."))
        elif len(having) == 1:
            message = f"expected class {name} in every split, found it in {having[0]} only"
            faults.append(Issue("class-one-split", name, message, "Split anew with nailseg index."))
    odd = []
    for split in splits:
        if rows[split] < FEW[split]:
            message = f"expected {FEW[split]} rows or more, found {rows[split]}"
            odd.append(Issue("few-rows", split, message, "Add images, or read the figures with care."))
    return faults, odd


def check_pairs(pairs: Sequence[DuplicatePair], splits: dict[str, str]) -> list[Issue]:
    """Faults of `find_duplicates`, named after the row nearer to training: what measures should stay.

    Images that are not in `splits` (image -> split) are passed over.
    """
    faults = []
    for one, other, exact in pairs:
        if one not in splits or other not in splits:
            continue
        if splits[one] == splits[other]:
            if exact:
                message = f"expected each image once, found the same bytes as {one}"
                faults.append(Issue("duplicate-image", other, message, "Delete one of the two rows."))
            continue
        learnt, measured = sorted((one, other), key=lambda image: SPLITS.index(splits[image]))
        message = (
            f"expected a {splits[learnt]} image that no other split has, found "
            f"{'the same image' if exact else 'a near-duplicate'} in {splits[measured]}: {measured}"
        )
        code = "duplicate-split" if exact else "near-duplicate-split"
        faults.append(Issue(code, learnt, message, SPLIT_ANEW))
    return faults


def check_groups(rows: Sequence[Row]) -> list[Issue]:
    """Groups in several splits, one fault per row that is not on the side nearest to the test."""
    found = find_group_splits(rows)
    faults = []
    for row in rows:
        last = max(found[row.group], key=SPLITS.index)
        if row.split != last:
            message = f"expected group {row.group} in one split, found it in {row.split} and {last}"
            faults.append(Issue("group-split", row.image, message, SPLIT_ANEW))
    return faults
