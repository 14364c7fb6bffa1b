"""Compares the palettes of a set's masks: an index must stand for one color in all of them.

Programs that save a palette anew (Pillow's `quantize`, optimizers) may order it differently in every file.
"""

import json
from collections import Counter
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

    They can if each has one color in the whole set, and black, or white where nothing is black, is index 0:
    the background. Otherwise two classes of which one is black are read by their colors; anything else is an
    error of the files that differ, and lists the colors for `--data.mask_values`.

    Returns:
        The encoding by color where it replaces the indices; and `palette-order` issues.
    """
    colored = [content for content in contents if content.palette]
    found = {color for content in colored for color in content.palette.values()}
    colors = sorted(found, key=lambda color: (color != BLACK, color != WHITE, color))
    background = colors[0] if colors and colors[0] in (BLACK, WHITE) else None
    commonest = _find_commonest(colored)
    messages = [(content, _describe_difference(content, commonest, background)) for content in colored]
    wrong = [(content, message) for content, message in messages if message]
    if not wrong:
        return None, []
    # files without a palette say nothing of colors, unless they are black
    complete = all(content.palette or content.counts.keys() == {0} for content in contents)
    if complete and colors[0] == BLACK and len(colors) == len(class_names) == 2:
        return MaskEncoding(((BLACK, 0), (colors[1], 1)), tuple(class_names)), []
    names, option = list(class_names), ""
    if len(colors) > len(names):
        names = names if len(names) > 2 else names[:1]
        names += [f"class_{index}" for index in range(len(names), len(colors))]
        option = f"--data.classes '[{','.join(names)}]' "
    by_color = json.dumps({_to_hex(color): name for color, name in zip(colors, names, strict=False)})
    by_index = json.dumps({str(index): name for index, name in enumerate(names)})
    fix = (
        "State which color is which class (correct the names, or put ignore): "
        f"{option}--data.mask_values '{by_color}'; "
        f"or that the indices are right: {option}--data.mask_values '{by_index}'."
    )
    return None, [content.issue(message, fix, "palette-order") for content, message in wrong]


def _find_commonest(contents: Sequence[MaskContent]) -> dict[int, tuple[Color, str]]:
    """The color that most files give to each index, and the first of these files."""
    pairs = [pair for content in contents for pair in content.palette.items()]
    colors = {index: color for (index, color), _ in reversed(Counter(pairs).most_common())}
    return {
        index: (color, next(content.file for content in contents if content.palette.get(index) == color))
        for index, color in colors.items()
    }


def _describe_difference(
    content: MaskContent, commonest: dict[int, tuple[Color, str]], background: Color | None
) -> str | None:
    for index, color in content.palette.items():
        expected, file = commonest[index]
        if color != expected:
            expectation = f"expected {_to_hex(expected)} as index {index} of the palette, as in {file}"
            return f"{expectation}; found {_to_hex(color)}"
    zero = content.palette.get(0, background)
    indices = [index for index, color in content.palette.items() if color == background]
    if zero == background or not set(indices) - {IGNORE_INDEX}:
        return None
    expectation = "expected index 0 of the palette to be the background"
    return f"{expectation}, found {_to_hex(zero)}, and {_to_hex(background)} as index {indices[0]}"


def _to_hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
