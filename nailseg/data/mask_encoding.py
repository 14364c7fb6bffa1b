"""The encoding of mask files: which value or color means which class.

It is inferred from the whole data set (`nailseg.data.mask_inference`) or given as `--data.mask_values`, and
stored with the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from typing_extensions import TypedDict  # pydantic cannot read typing's before Python 3.12

from nailseg.data.issues import IssueError
from nailseg.errors import ConfigError, WeightsError, shorten_list
from nailseg.schema import FIX, validate
from nailseg.types import IGNORE_INDEX, MAX_CLASSES

Color = tuple[int, int, int]
Value = int | Color
UNKNOWN = MAX_CLASSES
"""Stands for "no class" in look-up tables; class indices end before it."""
THRESHOLD = 127
"""Gray masks: above is foreground. `> 0` would add the compression noise around every nail: 12 % of area."""


def name_values(class_names: Sequence[str]) -> str:
    """The way out of values without a class: the option with an example of these classes."""
    example = json.dumps({"0": class_names[0], "128": "ignore", "255": class_names[1]})
    return f"Name what each value means, e.g. --data.mask_values '{example}', or redraw the masks."


Level = Annotated[int, Ge(0), Le(255)]


class _Stored(TypedDict):
    """What `MaskEncoding.to_dict` gives, as JSON has it."""

    mapping: list[tuple[Annotated[int, Ge(0), Le(65535)] | tuple[Level, Level, Level], Level]]
    class_names: list[str]
    smooth: bool


@dataclass(frozen=True)
class MaskEncoding:
    """Which class a mask file's value or color means. Plain data: picklable, `to_dict` for JSON.

    Examples:
        >>> names = ["background", "nail"]
        >>> encoding = MaskEncoding.from_mapping({0: "background", 128: "ignore", 255: "nail"}, names)
        >>> encoding.apply(np.array([[0, 128, 255]], np.uint8))
        array([[  0, 255,   1]], dtype=uint8)
    """

    mapping: tuple[tuple[Value, int], ...]  # pairs of a file value (or RGB color) and a class index or 255
    class_names: tuple[str, ...]  # by class index, for messages
    antialiased: bool = False  # lossless masks with gray edges are read at > 127, as lossy files always are

    @property
    def has_colors(self) -> bool:
        """Whether the mapping is of RGB colors."""
        return any(isinstance(value, tuple) for value, _ in self.mapping)

    def is_thresholded(self, lossy: bool) -> bool:
        """Whether a mask is read at > 127; only 0/255 survives compression noise and gray edges."""
        return dict(self.mapping) == {0: 0, 255: 1} and (lossy or self.antialiased)

    def describe(self) -> str:
        """One line for the log: `0/255 read as background/nail`."""
        values = "/".join(str(value).replace(" ", "") for value, _ in self.mapping)
        names = "/".join("ignore" if k == IGNORE_INDEX else self.class_names[k] for _, k in self.mapping)
        gray = f" (greys above {THRESHOLD} as 255)" if self.antialiased else ""
        return f"{values} read as {names}{gray}"

    def apply(self, raw: np.ndarray, lossy: bool = False, name: str = "mask") -> np.ndarray:
        """Converts file values to classes, uint8 (H, W), class index or 255.

        Args:
            raw: uint8 or uint16 (H, W), or uint8 (H, W, 3) RGB, as `io.masks.decode_mask_values` gives it.
            lossy: the file's values are approximate (JPEG).
            name: what errors call the file.

        Raises:
            IssueError: `mask-values` for values outside the mapping.
        """
        if raw.ndim == 3 or self.has_colors:
            codes = pack_colors(raw if raw.ndim == 3 else np.stack([raw.astype(np.uint8)] * 3, axis=-1))
            mask = np.full(codes.shape, UNKNOWN, np.uint8)
            for value, index in self.mapping:
                mask[codes == pack_colors(np.array(to_color(value)))] = index
            unknown: list[Any] = unpack_colors(np.unique(codes[mask == UNKNOWN])[:8])
        elif self.is_thresholded(lossy) and raw.dtype == np.uint8:
            return (raw > THRESHOLD).astype(np.uint8)
        else:
            table = np.full(65536, UNKNOWN, np.uint8)  # for 8-bit and 16-bit masks
            for value, index in self.mapping:
                table[value] = index
            mask = table[raw]
            unknown = np.unique(raw[mask == UNKNOWN]).tolist()
        if unknown:
            expected = ", ".join(str(value) for value, _ in self.mapping)
            message = f"expected mask values {expected}, found also {shorten_list(unknown)}"
            raise IssueError("mask-values", name, message, name_values(self.class_names))
        return mask

    def class_of(self, value: Value, lossy: bool = False) -> int | None:
        """The class index of one file value, as `apply` gives it; None where it has none."""
        if self.is_thresholded(lossy) and isinstance(value, int):
            return int(value > THRESHOLD)
        return {to_color(known): index for known, index in self.mapping}.get(to_color(value))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, for JSON."""
        pairs = [[list(v) if isinstance(v, tuple) else v, k] for v, k in self.mapping]
        # model folders that exist have the key `smooth`
        return {"mapping": pairs, "class_names": list(self.class_names), "smooth": self.antialiased}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], place: str) -> MaskEncoding:
        """The inverse of `to_dict`; raises `WeightsError` with the place of what `to_dict` does not write."""
        content = validate(_Stored, stored, place)
        count = len(content["class_names"])
        if wrong := {k for _, k in content["mapping"] if k >= count and k != IGNORE_INDEX}:
            expected = f"expected classes below {count} or {IGNORE_INDEX} in mapping"
            raise WeightsError(f"{place}: {expected}, found {shorten_list(sorted(wrong))}. {FIX}")
        return cls(tuple(content["mapping"]), tuple(content["class_names"]), content["smooth"])

    @classmethod
    def from_mapping(cls, mapping: Mapping[Any, Any], class_names: Sequence[str]) -> MaskEncoding:
        """Parses what a person writes as `--data.mask_values`.

        Args:
            mapping: value (`255`, `"255"`), color (`"255,0,0"`, `"#ff0000"`, a sequence of three) -> class
                name, class index, or `"ignore"` (also 255).
            class_names: names by class index.

        Raises:
            ConfigError: a key or a class that cannot be parsed, or a class without a value.
        """
        pairs = tuple((_parse_value(key), _parse_class(name, class_names)) for key, name in mapping.items())
        known = {index for _, index in pairs}
        missing = [name for index, name in enumerate(class_names) if index not in known and index > 0]
        if missing or not pairs:
            raise ConfigError(
                f"mask_values: expected a value for every class, found none for {', '.join(missing) or 'any'}"
                f" in {dict(mapping)}. Add it, or take the class out of --data.classes."
            )
        return cls(pairs, tuple(class_names))


def encode_mask(mask: np.ndarray, n_classes: int, as_index: bool = False) -> np.ndarray:
    """A mask, uint8 (H, W), class index, as we write it: 0/255 for two classes, otherwise class indices."""
    return mask * np.uint8(255 if n_classes == 2 and not as_index else 1)


def to_color(value: Value) -> Color:
    """A value as the gray color that it is in an RGB file."""
    return value if isinstance(value, tuple) else (value, value, value)


def pack_colors(raw: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> int32 (H, W), red in the highest byte."""
    wide = raw.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def unpack_colors(codes: Iterable[int]) -> list[Color]:
    """The inverse of `pack_colors`, for a few values."""
    return [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes]


def _parse_value(key: Any) -> Value:
    text = str(key).strip().strip("()[]")
    try:
        if text.startswith("#") and len(text) == 7:
            return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and 0 <= numbers[0] <= 65535:
        return numbers[0]
    if len(numbers) == 3 and all(0 <= number <= 255 for number in numbers):
        return numbers[0], numbers[1], numbers[2]
    expected = "a value 0..65535 or a color like 255,0,0 or #ff0000"
    raise ConfigError(f"mask_values: expected {expected}, found {key!r}.")


def _parse_class(name: Any, class_names: Sequence[str]) -> int:
    if name in class_names:
        return list(class_names).index(name)
    if str(name) in ("ignore", str(IGNORE_INDEX)):
        return IGNORE_INDEX
    if str(name).isdigit() and int(name) < len(class_names):
        return int(name)
    expected = f"one of {', '.join(class_names)}, their index, or ignore"
    raise ConfigError(f"mask_values: expected {expected}; found {name!r}.")
