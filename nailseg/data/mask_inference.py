"""Finds the one reading of mask values that fits every mask of a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nailseg.data.issues import Issue
from nailseg.data.mask_encoding import (
    NAME_THEM,
    THRESHOLD,
    MaskEncoding,
    Value,
    list_some,
    pack_colors,
    unpack_colors,
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
    """What one mask file holds."""

    file: str  # its path within the data set
    counts: dict[Value, int]  # pixels by file value, or by RGB colour
    lossy: bool = False  # JPEG or lossy WebP

    def fault(self, message: str, fix: str, code: str = "mask-values") -> Issue:
        """What is wrong with it."""
        return Issue(code, self.file, message, fix)


def count_values(raw: np.ndarray) -> dict[Value, int]:
    """Pixels by value: raw is uint8 or uint16 (H, W), or uint8 (H, W, 3) RGB (its 257 commonest colours)."""
    if raw.ndim == 3:
        codes, counts = np.unique(pack_colors(raw), return_counts=True)
        most = np.argsort(-counts, kind="stable")[: MAX_COLOURS + 1]
        return dict(zip(unpack_colors(codes[most]), counts[most].tolist(), strict=True))
    counts = np.bincount(raw.ravel())
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def infer_encoding(
    contents: Iterable[MaskContent], class_names: Sequence[str]
) -> tuple[MaskEncoding | None, list[Issue]]:
    """Finds the reading of a set.

    Two classes: 0/255 (JPEG masks and soft edges at `> 127`), 0/65535, or 0/1 with 255 as ignore. More
    classes: 0..C-1 with 255 as ignore. A set in which some masks read as 0/255 and others as 0/1 is refused,
    and so is every value without a class; `MaskEncoding.from_mapping` (`--data.mask_values`) is the way out.

    Args:
        contents: of every mask of the set.
        class_names: names by class index.

    Returns:
        The reading, None where there is none, and the faults of single files.
    """
    names = tuple(class_names)
    faults: list[Issue] = []
    styles: dict[str, list[MaskContent]] = {}
    for content in contents:
        style = _style(content, len(names))
        if isinstance(style, Issue):
            faults.append(style)
        else:
            styles.setdefault(style, []).append(content)
    found = {"255" if style == "smooth" else style for style in styles} - {"empty"}
    readings = [style for style in ("255", "65535", "index") if style in found]
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
    return MaskEncoding(tuple(mapping.items()), names, antialiased="smooth" in styles), faults


def check_values(content: MaskContent, values: MaskEncoding) -> Issue | None:
    """Compares one mask with a reading that was given or stored."""
    if values.binary and (content.lossy or values.antialiased):
        return _check_greys(content)
    known = {value for value, _ in values.mapping}
    found: dict[Value, int] = content.counts
    if values.has_colors:
        known = {value if isinstance(value, tuple) else (value, value, value) for value in known}
        found = {v if isinstance(v, tuple) else (v, v, v): count for v, count in content.counts.items()}
    strange = {value: count for value, count in found.items() if value not in known}
    if not strange:
        return None
    lossless = " in a lossless file" if content.lossy else ""
    return _unknown(content, strange, f"mask values {list_some(sorted(known, key=str), 16)}{lossless}")


def count_classes(content: MaskContent, values: MaskEncoding) -> Counter[int]:
    """Pixels by class index, as `values` reads them; values without a class are left out."""
    by_class: Counter[int] = Counter()
    for value, count in content.counts.items():
        index = values.class_of(value, content.lossy)
        if index is not None:
            by_class[index] += count
    return by_class


def count_foreground(by_class: Counter[int]) -> int:
    """Pixels of any class but background; 254 and 255 are no classes."""
    return sum(count for index, count in by_class.items() if 0 < index < 254)


def _style(content: MaskContent, classes: int) -> str | Issue:
    """`empty` (all 0), `255`, `smooth` (0/255 with grey edges), `65535`, `index`, or what is wrong."""
    values = set(content.counts)
    if any(isinstance(value, tuple) for value in values):
        return _coloured(content)
    if values == {0}:
        return "empty"
    if content.lossy:
        if classes > 2:
            found = "a lossy file (JPEG) of approximate values"
            message = f"expected class indices 0..{classes - 1}, found {found}"
            return content.fault(message, "Export the masks as PNG.")
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
    indices = "0/255, or 0/1 with" if classes == 2 else f"class indices 0..{classes - 1}, or"
    return _unknown(content, strange, f"{indices} 255 for ignore")


def _flat_grey(content: MaskContent) -> bool:
    """Whether one value between black and white covers an area, which edges that were smoothed do not."""
    white = sum(count for value, count in content.counts.items() if value > 250)  # type: ignore[operator]
    greys = [count for value, count in content.counts.items() if 5 < value <= 250]  # type: ignore[operator]
    return max(greys, default=0) > MAX_FLAT * white


def _check_greys(content: MaskContent) -> Issue | None:
    """A compressed or soft-edged mask: black or white nearly everywhere, white somewhere or all black."""
    greys = {value: count for value, count in content.counts.items() if isinstance(value, int)}
    if len(greys) < len(content.counts):
        return _coloured(content)
    total, brightest = sum(greys.values()), max(greys)
    middle = sum(count for value, count in greys.items() if 64 <= value <= 191) / max(total, 1)
    if brightest > 255 or middle > MAX_MIDDLE:
        found = f"up to {brightest}" if brightest > 255 else f"{middle:.0%} of the pixels between 64 and 191"
        message = f"expected a 0/255 mask, black or white nearly everywhere; found {found}"
        fix = "Check that it is a mask and no photograph or soft matte; cut it at the grey you mean."
        return content.fault(message, fix)
    if 0 < brightest <= THRESHOLD:
        message = f"expected 0/255 with compression noise, found {brightest} as the brightest value"
        fix = "Export the mask as PNG: a lossy file cannot carry 0/1 or dark greys."
        return content.fault(message, fix)
    return None


def _coloured(content: MaskContent) -> Issue:
    colours = [value for value in content.counts if isinstance(value, tuple)]
    if len(colours) > MAX_COLOURS:
        message = f"expected a mask, found an image of more than {MAX_COLOURS} colours"
        return content.fault(message, "Check that it is no photograph or overlay.", "mask-format")
    shown = list_some(sorted(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours))
    example = '{"#000000": "background", "#ff0000": "nail"}'
    message = f"expected one channel of class values, found colours {shown}"
    return content.fault(message, f"Say what each colour means, e.g. --data.mask_values '{example}'.")


def _unknown(content: MaskContent, strange: dict[Value, int], expected: str) -> Issue:
    share = sum(strange.values()) / max(sum(content.counts.values()), 1)
    found = list_some(sorted(strange, key=str))
    message = f"expected {expected}; found also {found} in {share:.2%} of the pixels"
    return content.fault(message, NAME_THEM)


def _mixed(styles: dict[str, list[MaskContent]], readings: Sequence[str]) -> list[Issue]:
    """Two readings: the files of the rarer one are listed, as the likelier culprits."""
    groups = {**styles, "255": styles.get("255", []) + styles.get("smooth", [])}
    spoken = {"255": "0/255", "65535": "0/65535", "index": "0/1"}
    order = sorted(readings, key=lambda reading: (-len(groups[reading]), reading))
    counts = ", ".join(f"{len(groups[reading])} as {spoken[reading]}" for reading in order)
    example = '{"0": "background", "1": "nail", "255": "ignore"}'
    fix = f"Make them alike, or, if 255 means ignore everywhere, say so: --data.mask_values '{example}'."
    faults = []
    for reading in order[1:]:
        message = f"expected one reading for the whole set ({counts}), found this one as {spoken[reading]}"
        faults.extend(content.fault(message, fix, "mask-mixed") for content in groups[reading])
    return faults
