"""Compares the palettes of a set's masks: an index must stand for one color in all of them.

Programs that save a palette anew (Pillow's `quantize`, optimizers) may order it differently in every file.
"""

import json
from collections.abc import Sequence

from nailseg.data.issues import Issue
from nailseg.data.mask_content import MaskContent
from nailseg.data.mask_encoding import Color, MaskEncoding
from nailseg.types import IGNORE_INDEX

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def compare_palettes(
    contents: Sequence[MaskContent], class_names: Sequence[str]
) -> tuple[MaskEncoding | None, list[Issue]]:
    """Checks whether palette indices can be read as class indices.

    They can if each has one color in the whole set and black, or white where nothing is black, is index 0:
    the background. Otherwise, two classes of which one is black are read by their colors; anything else is an
    error that lists the colors for `--data.mask_values`.

    Returns:
        The encoding by color where it replaces the indices; and `palette-order` issues.
    """
    contents = [content for content in contents if content.palette]
    seen = sorted({(index, color) for content in contents for index, color in content.palette.items()})
    colors = sorted({color for _, color in seen}, key=lambda color: (color != BLACK, color != WHITE, color))
    background = colors[0] if colors and colors[0] in (BLACK, WHITE) else None
    several = next((index for index, _ in seen if len({c for i, c in seen if i == index}) > 1), None)
    moved = [index for index, color in seen if color == background and index not in (0, IGNORE_INDEX)]
    if several is None and not (moved and any(index == 0 and color != background for index, color in seen)):
        return None, []
    if colors[0] == BLACK and len(colors) == len(class_names) == 2:
        return MaskEncoding(((BLACK, 0), (colors[1], 1)), tuple(class_names)), []
    names = [*class_names, *(f"class_{index}" for index in range(len(class_names), len(colors)))]
    mapping = json.dumps(dict(zip(map(_to_hex, colors), names, strict=False)))
    if several is None:
        first = next(content for content in contents if moved[0] in content.palette)
        other = _to_hex(next(color for index, color in seen if index == 0))
        message = f"expected index 0 of the palette to be the background, found {other}, and "
        message += f"{_to_hex(background)} as index {moved[0]}"
    else:
        by_color: dict[Color, MaskContent] = {}
        for content in contents:
            if several in content.palette:
                by_color.setdefault(content.palette[several], content)
        first, *others = by_color.values()
        found = [f"{_to_hex(content.palette[several])} in {content.file}" for content in (first, *others[:1])]
        message = f"expected one palette order in all masks, found index {several} as {' and as '.join(found)}"
    fix = f"State which color is which class (correct the names): --data.mask_values '{mapping}'."
    return None, [first.issue(message, fix, "palette-order")]


def _to_hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
