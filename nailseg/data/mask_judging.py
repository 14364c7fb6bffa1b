"""What masks show once their values are known: full, inverted, empty, odd forms, classes that lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nailseg.data.faults import ODDITIES, Fault
from nailseg.data.looking import Finding
from nailseg.data.mask_resolve import MaskContent, classes_of
from nailseg.data.mask_values import MaskValues

MOST = 0.5
"""Foreground on more of a picture and of its edge is background by another name."""
FEW = {"train": 20, "val": 5, "test": 5}
"""With fewer rows a split is odd: nothing is learnt, or a figure means little."""


def judge_forms(findings: Sequence[Finding], values: MaskValues) -> tuple[list[Fault], list[Fault]]:
    """Faults and oddities of single masks.

    Args:
        findings: rows whose masks have values of classes only.
        values: how they are read.
    """
    faults, odd = [], []
    for finding in findings:
        content = finding.content
        if content is None:
            continue
        by_class = classes_of(content, values)
        edge = classes_of(MaskContent(content.file, finding.frame, content.lossy), values)
        foreground = _foreground(by_class)
        if not foreground:
            message = "expected some foreground, found none"
            odd.append(Fault("mask-empty", content.file, message, "Fine if the picture shows none."))
        elif len(values.class_names) == 2:
            # with more classes, pictures without background are common
            share, around = (_foreground(each) / max(each.total(), 1) for each in (by_class, edge))
            if not by_class[0] and share == 1:
                message = f"expected some {values.class_names[0]}, found foreground only"
                fix = "Redraw it, or take the row out of the CSV."
                faults.append(Fault("mask-full", content.file, message, fix))
            elif share > MOST and around > MOST:
                message = (
                    f"expected foreground on less than half of the picture, found it on {share:.0%}, "
                    f"and on {around:.0%} of its edge"
                )
                fix = "Invert the mask, or say what the values mean (--data.mask_values)."
                faults.append(Fault("mask-inverted", content.file, message, fix))
        grey = values.smooth and not content.lossy and not content.counts.keys() <= {0, 255}
        form = "grey" if grey else finding.form
        code = f"mask-{form}"
        if code in ODDITIES and not values.colours:
            message = f"expected an 8-bit grey PNG, found {ODDITIES[code]}"
            fix = "nailseg check --write-clean writes plain copies."
            odd.append(Fault(code, content.file, message, fix))
    return faults, odd


def judge_splits(
    findings: Sequence[Finding], values: MaskValues, splits: Sequence[str]
) -> tuple[list[Fault], list[Fault]]:
    """Faults and oddities of whole splits.

    Args:
        findings: as for `judge_forms`.
        values: how masks are read.
        splits: those of which every mask could be read.
    """
    pixels = {split: Counter[int]() for split in splits}
    rows = Counter(finding.row.split for finding in findings)
    for finding in findings:
        if finding.content is not None and finding.row.split in pixels:
            pixels[finding.row.split].update(classes_of(finding.content, values))
    bare = [split for split in splits if not _foreground(pixels[split])]
    fix = "Check the masks and --data.mask_values."
    faults = [
        Fault("no-foreground", s, "expected masks with something but background, found none", fix)
        for s in bare
    ]
    classes = values.class_names if not bare else ()
    for index, name in enumerate(classes):
        having = [split for split in splits if pixels[split][index]]
        # a class of two that lacks is `no-foreground` or `mask-full` already
        if len(classes) == 2 or index == 0 or len(having) == len(splits):
            continue
        if not having:
            message = f"expected pixels of class {name}, found none in {', '.join(splits)}"
            faults.append(Fault("class-missing", name, message, fix[:-1] + ", or shorten --data.classes."))
        elif len(having) == 1:
            message = f"expected class {name} in every split, found it in {having[0]} only"
            faults.append(Fault("class-one-split", name, message, "Split anew with nailseg index."))
    odd = [
        Fault(
            "few-rows",
            split,
            f"expected {FEW[split]} rows or more, found {rows[split]}",
            "Add pictures, or read the figures with care.",
        )
        for split in splits
        if rows[split] < FEW[split]
    ]
    return faults, odd


def _foreground(by_class: Counter[int]) -> int:
    return sum(count for index, count in by_class.items() if 0 < index < 254)
