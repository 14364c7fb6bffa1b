"""Infers the encoding of a data set's masks from the values of all of them.

0/255 and 0/1 masks look alike and mean the same; 255 means "ignore" beside class indices. One file is not
enough to tell them apart (an all-background mask is 0 in every encoding), so all files are used. A set that
fits two encodings is an error.
"""

import json
from collections.abc import Iterable, Sequence, Set

from nailseg.data.issues import Issue
from nailseg.data.mask_content import MAX_COLORS, MaskContent
from nailseg.data.mask_encoding import THRESHOLD, MaskEncoding, Value, name_values
from nailseg.data.palettes import compare_palettes
from nailseg.errors import shorten_list
from nailseg.types import IGNORE_INDEX

MAX_MIDDLE = 0.1
"""More than this share of pixels between 64 and 191: a photograph or a soft matte, not a compressed mask."""
MAX_FLAT = 0.25
"""One gray level on more pixels than this share of the white ones: a third class, not an antialiased edge."""

MAX_NAMES = 40
"""More class names are not listed in a message."""

_NAMES = {"255": "0/255", "65535": "0/65535", "index": "0/1"}


def infer_encoding(
    contents: Iterable[MaskContent], class_names: Sequence[str], given: MaskEncoding | None = None
) -> tuple[MaskEncoding | None, list[Issue]]:
    """Infers the encoding of a set of masks from the contents of all of them, or checks a given one.

    Two classes: 0/255 (JPEG masks and antialiased edges at `> 127`), 0/65535, or 0/1 with 255 as ignore. More
    classes: 0..C-1 with 255 as ignore. A set in which some masks are 0/255 and others 0/1 is an error, and so
    is each value without a class; `MaskEncoding.from_mapping` (`--data.mask_values`) resolves both.

    Returns:
        The encoding, None where none fits all masks, and the issues of single files.

    Examples:
        >>> encoding, _ = infer_encoding([MaskContent("a.png", {0: 90, 255: 10})], ["background", "nail"])
        >>> encoding.describe()
        '0/255 read as background/nail'
    """
    names, contents = tuple(class_names), list(contents)
    issues: list[Issue] = []
    if given is None:
        given, issues = compare_palettes(contents, names)
        contents = [content.as_colors() for content in contents] if given else contents
    if given:
        return given, [issue for content in contents if (issue := check_values(content, given))]
    if issues:
        return None, issues
    fix = _suggest_names(contents, names)
    groups: dict[str, list[MaskContent]] = {"empty": [], "antialiased": [], **{form: [] for form in _NAMES}}
    for content in contents:
        form = _find_form(content, names, fix)
        if isinstance(form, Issue):
            issues.append(form)
        else:
            groups[form].append(content)
    antialiased = groups.pop("antialiased")
    if all(_find_grays(content, THRESHOLD + 1) == set() for content in antialiased):
        # no edge is antialiased with dark grays only: they are classes too thin to cover areas
        issues += [_unknown_values(content, _find_grays(content), "0/255", fix) for content in antialiased]
        antialiased = []
    groups["255"] += antialiased
    found = [form for form in _NAMES if groups[form]]
    if len(found) > 1:
        return None, issues + _find_mixed(groups, found, names)
    # nothing but background: any encoding gives the same masks
    form = found[0] if found else "255" if len(names) == 2 else "index"
    pairs = [(0, 0), (int(form), 1)] if form != "index" else [(index, index) for index in range(len(names))]
    if any(IGNORE_INDEX in content.counts for content in groups["index"]):
        pairs.append((IGNORE_INDEX, IGNORE_INDEX))
    return MaskEncoding(tuple(pairs), names, antialiased=bool(antialiased)), issues


def check_values(content: MaskContent, encoding: MaskEncoding) -> Issue | None:
    """Compares one mask with an encoding that was given or stored."""
    way_out = name_values(encoding.class_names)
    if encoding.is_thresholded(content.lossy):
        labels = set() if content.lossy else _find_labels(content)
        unlike = _unknown_values(content, labels, "0/255 with gray edges", way_out) if labels else None
        return _check_gray(content, encoding.class_names) or unlike
    unknown = {value for value in content.counts if encoding.class_of(value, content.lossy) is None}
    if not unknown:
        return None
    lossless = " in a lossless file" if content.lossy else ""
    expected = sorted((value for value, _ in encoding.mapping), key=str)
    return _unknown_values(content, unknown, f"mask values {shorten_list(expected, 16)}{lossless}", way_out)


def _suggest_names(contents: Sequence[MaskContent], names: Sequence[str]) -> str:
    """The way out of values without a class: more class names where all look like class indices."""
    values = {value for content in contents for value in content.counts} - {IGNORE_INDEX}
    colors = any(isinstance(value, tuple) for value in values)
    if colors or len(names) > max(values, default=0) or max(values) >= min(2 * len(values), MAX_NAMES):
        return name_values(names)
    given = list(names) if len(names) > 2 else ["background"]
    listed = ",".join([*given, *(f"class_{index}" for index in range(len(given), max(values) + 1))])
    return (
        "The values look like class indices, with 255 for ignore. Then name the classes: "
        f"--data.classes '[{listed}]'. Otherwise: {name_values(names)}"
    )


def _find_form(content: MaskContent, names: Sequence[str], fix: str) -> str | Issue:
    """`empty` (all 0), `255`, `antialiased` (0/255 with gray edges), `65535`, `index`, or an issue."""
    values, n_classes = set(content.counts), len(names)
    indices = {*range(n_classes), IGNORE_INDEX}
    expected = f"class indices 0..{n_classes - 1}"
    if any(isinstance(value, tuple) for value in values):
        return _unexpected_colors(content, names)
    if values == {0}:
        return "empty"
    if content.lossy and n_classes > 2:
        message = f"expected {expected}, found a lossy file (JPEG)"
        return content.issue(message, "Its values are approximate: export the masks as PNG.")
    if content.lossy:
        return _check_gray(content, names) or "255"
    if n_classes == 2 and values <= {0, 255}:
        return "255"
    if n_classes == 2 and values <= {0, 65535}:
        return "65535"
    if values <= indices:
        return "index"
    white = sum(count for value, count in content.counts.items() if value > 250)
    # no level of an edge is so common, unless all objects are tiny
    common = any(content.counts[value] > MAX_FLAT * white for value in _find_grays(content, 6))
    is_edge = not (_find_labels(content) or common or _check_gray(content, names))
    if n_classes == 2 and max(values) > 250 and is_edge:
        return "antialiased"
    known = "0/255, or 0/1 with" if n_classes == 2 else f"{expected}, or"
    return _unknown_values(content, values - indices, f"{known} 255 for ignore", fix)


def _find_labels(content: MaskContent) -> set[int]:
    """The gray levels between black and white that cover areas, as those of an antialiased edge never do."""
    dark = {value for value in content.flat if value <= THRESHOLD}
    bright = content.flat - dark
    # black and white may have become 1 and 254 by compression
    return (dark - {min(dark, default=0)}) | (bright - {max(bright, default=255)})


def _find_grays(content: MaskContent, darkest: int = 1) -> set[int]:
    return {value for value in content.counts if darkest <= value <= 250}


def _check_gray(content: MaskContent, names: Sequence[str]) -> Issue | None:
    """Checks a compressed or antialiased 0/255 mask: nearly all pixels are black or white."""
    if any(isinstance(value, tuple) for value in content.counts):
        return _unexpected_colors(content, names)
    total, brightest = sum(content.counts.values()), max(content.counts)
    middle = sum(count for value, count in content.counts.items() if 64 <= value <= 191) / max(total, 1)
    if brightest > 255 or middle > MAX_MIDDLE:
        found = f"up to {brightest}" if brightest > 255 else f"{middle:.0%} of the pixels between 64 and 191"
        message = f"expected a 0/255 mask, black or white nearly everywhere; found {found}"
        fix = "Check that it is a mask and no photograph or soft matte; threshold it at the gray you mean."
        return content.issue(message, fix)
    if 0 < brightest <= THRESHOLD:
        message = f"expected 0/255 with compression noise, found {brightest} as the brightest value"
        return content.issue(message, "Export the mask as PNG: a lossy file cannot carry 0/1 or dark grays.")
    return None


def _unexpected_colors(content: MaskContent, names: Sequence[str]) -> Issue:
    colors = [value for value in content.counts if isinstance(value, tuple)]
    if len(colors) > MAX_COLORS:
        message = f"expected a mask, found an image of more than {MAX_COLORS} colors"
        return content.issue(message, "Check that it is no photograph or overlay.", "mask-format")
    shown = shorten_list(sorted(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colors))
    example = json.dumps({"#000000": names[0], "#ff0000": names[1]})
    message = f"expected one channel of class values, found colors {shown}"
    return content.issue(message, f"State what each color means, e.g. --data.mask_values '{example}'.")


def _unknown_values(content: MaskContent, unknown: Set[Value], expected: str, fix: str) -> Issue:
    share = sum(content.counts[value] for value in unknown) / max(sum(content.counts.values()), 1)
    found = shorten_list(sorted(unknown, key=str))
    return content.issue(f"expected {expected}; found also {found} in {share:.2%} of the pixels", fix)


def _find_mixed(
    groups: dict[str, list[MaskContent]], found: Sequence[str], names: Sequence[str]
) -> list[Issue]:
    """The issues of a set with several encodings: the files of the rarer ones are the likelier errors."""
    order = sorted(found, key=lambda form: (-len(groups[form]), form))
    counts = ", ".join(f"{len(groups[form])} as {_NAMES[form]}" for form in order)
    example = json.dumps({"0": names[0], "1": names[1], "255": "ignore"})
    fix = f"Make them alike, or, if 255 means ignore everywhere, state it: --data.mask_values '{example}'."
    message = f"expected one encoding for the whole set ({counts}), found this one as "
    rare = ((form, content) for form in order[1:] for content in groups[form])
    return [content.issue(message + _NAMES[form], fix, "mask-mixed") for form, content in rare]
