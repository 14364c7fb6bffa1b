"""Finds the one reading of mask values that fits every mask of a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nailseg.data.faults import Fault
from nailseg.data.mask_values import (
    NAME_THEM,
    THRESHOLD,
    MaskValues,
    Value,
    list_some,
    pack_colours,
    unpack_colours,
)
from nailseg.types import IGNORE_INDEX

MAX_MIDDLE = 0.1
"""More than this share of pixels between 64 and 191: a photograph or a soft matte, no compressed mask."""
MAX_FLAT = 0.25
"""One grey on more pixels than this share of the white ones: a third class, no soft edge of many greys."""
MAX_COLOURS = 256
"""No colour-coded mask has more; what has is a photograph or an overlay."""


@dataclass(frozen=True)
class MaskContent:
    """What one mask file holds.

    Attributes:
        file: its path within the data set.
        counts: pixels by file value, or by RGB colour.
        lossy: JPEG or lossy WebP.
    """

    file: str
    counts: dict[Value, int]
    lossy: bool = False


def count_values(raw: np.ndarray) -> dict[Value, int]:
    """Pixels by value: raw is uint8 or uint16 (H, W), or uint8 (H, W, 3) RGB (its 257 commonest colours)."""
    if raw.ndim == 3:
        codes, counts = np.unique(pack_colours(raw), return_counts=True)
        most = np.argsort(-counts, kind="stable")[: MAX_COLOURS + 1]
        return dict(zip(unpack_colours(codes[most]), counts[most].tolist(), strict=True))
    counts = np.bincount(raw.ravel())
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def resolve(
    contents: Iterable[MaskContent], class_names: Sequence[str]
) -> tuple[MaskValues | None, list[Fault]]:
    """Finds the reading of a set.

    Two classes: 0/255 (JPEG masks and soft edges at `> 127`), 0/65535, or 0/1 with 255 as ignore. More
    classes: 0..C-1 with 255 as ignore. A set in which some masks read as 0/255 and others as 0/1 is refused,
    and so is every value without a class; `MaskValues.from_mapping` (`--data.mask_values`) is the way out.

    Args:
        contents: of every mask of the set.
        class_names: names by class index.

    Returns:
        The reading, None where there is none, and the faults of single files.
    """
    names = tuple(class_names)
    faults: list[Fault] = []
    styles: dict[str, list[MaskContent]] = {}
    for content in contents:
        style = _style(content, len(names))
        if isinstance(style, Fault):
            faults.append(style)
        else:
            styles.setdefault(style, []).append(content)
    readings = [
        style
        for style in ("255", "65535", "index")
        if style in styles or (style == "255" and "smooth" in styles)
    ]
    if len(readings) > 1:
        faults.extend(_mixed(styles, readings))
        return None, faults
    if not readings:  # nothing but background so far: any reading gives the same masks
        readings = ["255" if len(names) == 2 else "index"]
    if readings == ["index"]:
        mapping: dict[Value, int] = {index: index for index in range(len(names))}
        if any(IGNORE_INDEX in content.counts for content in styles.get("index", [])):
            mapping[IGNORE_INDEX] = IGNORE_INDEX
    else:
        mapping = {0: 0, int(readings[0]): 1}
    return MaskValues(tuple(mapping.items()), names, smooth="smooth" in styles), faults


def check_values(content: MaskContent, values: MaskValues) -> Fault | None:
    """Compares one mask with a reading that was given or stored."""
    if values.binary and (content.lossy or values.smooth):
        return _check_greys(content)
    known = {value for value, _ in values.mapping}
    found: dict[Value, int] = content.counts
    if values.colours:
        known = {value if isinstance(value, tuple) else (value, value, value) for value in known}
        found = {v if isinstance(v, tuple) else (v, v, v): count for v, count in content.counts.items()}
    strange = {value: count for value, count in found.items() if value not in known}
    if not strange:
        return None
    expected = list_some(sorted(known, key=str), 16)
    return _unknown(
        content, strange, f"mask values {expected}" + (" in a lossless file" if content.lossy else "")
    )


def classes_of(content: MaskContent, values: MaskValues) -> Counter[int]:
    """Pixels by class index, as `values` reads them; values without a class are left out."""
    by_class: Counter[int] = Counter()
    for value, count in content.counts.items():
        index = values.class_of(value, content.lossy)
        if index is not None:
            by_class[index] += count
    return by_class


def _style(content: MaskContent, classes: int) -> str | Fault:
    """`empty` (all 0), `255`, `smooth` (0/255 with grey edges), `65535`, `index`, or what is wrong."""
    values = set(content.counts)
    if any(isinstance(value, tuple) for value in values):
        return _coloured(content)
    if values == {0}:
        return "empty"
    if content.lossy:
        if classes > 2:
            return Fault(
                "mask-values",
                content.file,
                f"expected class indices 0..{classes - 1}, found a lossy file (JPEG) of approximate values",
                "Export the masks as PNG.",
            )
        return _check_greys(content) or "255"
    if classes == 2 and values <= {0, 255}:
        return "255"
    if classes == 2 and values <= {0, 65535}:
        return "65535"
    if values <= {*range(classes), IGNORE_INDEX}:
        return "index"
    soft = classes == 2 and max(values) > 250 and not _flat_grey(content)  # type: ignore[type-var,operator]
    if soft and _check_greys(content) is None:
        return "smooth"
    strange = {v: count for v, count in content.counts.items() if v not in {*range(classes), IGNORE_INDEX}}
    expected = (
        "0/255, or 0/1 with 255 for ignore"
        if classes == 2
        else f"class indices 0..{classes - 1}, or 255 for ignore"
    )
    return _unknown(content, strange, expected)


def _flat_grey(content: MaskContent) -> bool:
    """Whether one value between black and white covers an area, which edges that were smoothed do not."""
    white = sum(count for value, count in content.counts.items() if value > 250)  # type: ignore[operator]
    greys = [count for value, count in content.counts.items() if 5 < value <= 250]  # type: ignore[operator]
    return max(greys, default=0) > MAX_FLAT * white


def _check_greys(content: MaskContent) -> Fault | None:
    """A compressed or soft-edged mask: black or white nearly everywhere, white somewhere or all black."""
    greys = {value: count for value, count in content.counts.items() if isinstance(value, int)}
    if len(greys) < len(content.counts):
        return _coloured(content)
    total, brightest = sum(greys.values()), max(greys)
    middle = sum(count for value, count in greys.items() if 64 <= value <= 191) / max(total, 1)
    if brightest > 255 or middle > MAX_MIDDLE:
        found = f"up to {brightest}" if brightest > 255 else f"{middle:.0%} of the pixels between 64 and 191"
        return Fault(
            "mask-values",
            content.file,
            f"expected a 0/255 mask, black or white nearly everywhere; found {found}",
            "Check that it is a mask and no photograph or soft matte; cut it at the grey you mean.",
        )
    if 0 < brightest <= THRESHOLD:
        return Fault(
            "mask-values",
            content.file,
            f"expected 0/255 with compression noise, found {brightest} as the brightest value",
            "Export the mask as PNG: a lossy file cannot carry 0/1 or dark greys.",
        )
    return None


def _coloured(content: MaskContent) -> Fault:
    colours = [value for value in content.counts if isinstance(value, tuple)]
    if len(colours) > MAX_COLOURS:
        return Fault(
            "mask-form",
            content.file,
            f"expected a mask, found a picture of more than {MAX_COLOURS} colours",
            "Check that it is no photograph or overlay.",
        )
    shown = list_some(sorted(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours))
    return Fault(
        "mask-values",
        content.file,
        f"expected one channel of class values, found colours {shown}",
        "Say what each colour means, e.g. --data.mask_values "
        '\'{"#000000": "background", "#ff0000": "nail"}\'.',
    )


def _unknown(content: MaskContent, strange: dict[Value, int], expected: str) -> Fault:
    share = sum(strange.values()) / max(sum(content.counts.values()), 1)
    found = list_some(sorted(strange, key=str))
    return Fault(
        "mask-values",
        content.file,
        f"expected {expected}; found also {found} in {share:.2%} of the pixels",
        NAME_THEM,
    )


def _mixed(styles: dict[str, list[MaskContent]], readings: Sequence[str]) -> list[Fault]:
    """Two readings: the files of the rarer one are listed, as the likelier culprits."""
    groups = {
        "255": styles.get("255", []) + styles.get("smooth", []),
        "65535": styles.get("65535", []),
        "index": styles.get("index", []),
    }
    spoken = {"255": "0/255", "65535": "0/65535", "index": "0/1"}
    order = sorted(readings, key=lambda reading: (-len(groups[reading]), reading))
    counts = ", ".join(f"{len(groups[reading])} as {spoken[reading]}" for reading in order)
    fix = (
        "Make them alike, or, if 255 means ignore everywhere, say so: "
        '--data.mask_values \'{"0": "background", "1": "nail", "255": "ignore"}\'.'
    )
    return [
        Fault(
            "mask-mixed",
            content.file,
            f"expected one reading for the whole set ({counts}), found this one as {spoken[reading]}",
            fix,
        )
        for reading in order[1:]
        for content in groups[reading]
    ]
