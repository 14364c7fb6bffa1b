"""How values in mask files become class indices: resolved once, from the whole set, stored with the model.

0/255 and 0/1 masks look alike and mean the same; 255 means "ignore" beside class indices. One file alone
cannot tell (an all-background mask is 0 in every reading), so `mask_resolve` looks at all of them, and
refuses what has two readings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from nailseg.data.issues import IssueError
from nailseg.errors import ConfigError
from nailseg.types import IGNORE_INDEX

Value = int | tuple[int, int, int]
UNKNOWN = 254
"""Stands for "no class" in look-up tables; class indices end at 253."""
THRESHOLD = 127
"""Grey masks: above is foreground. `> 0` would add the compression noise around every nail: 12 % of area."""


@dataclass(frozen=True)
class MaskEncoding:
    """Which class a mask file's value or colour means. Plain data: picklable, `to_dict` for JSON.

    `mapping` pairs a file value (or RGB colour) with a class index, 255 for ignore; with `smooth`, lossless
    masks with grey edges are read at `> 127` too (lossy files always are).
    """

    mapping: tuple[tuple[Value, int], ...]
    class_names: tuple[str, ...]  # by class index, for messages
    antialiased: bool = False

    @property
    def has_colors(self) -> bool:
        """True where the mapping is of RGB colours."""
        return any(isinstance(value, tuple) for value, _ in self.mapping)

    @property
    def binary(self) -> bool:
        """True for plain 0/255, the only reading that compression noise and soft edges leave intact."""
        return dict(self.mapping) == {0: 0, 255: 1}

    def describe(self) -> str:
        """One line for the log: `0/255 read as background/nail`."""
        values = "/".join(str(value).replace(" ", "") for value, _ in self.mapping)
        names = "/".join("ignore" if k == IGNORE_INDEX else self.class_names[k] for _, k in self.mapping)
        return f"{values} read as {names}" + (
            f" (greys above {THRESHOLD} as 255)" if self.antialiased else ""
        )

    def apply(self, raw: np.ndarray, lossy: bool = False, name: str = "mask") -> np.ndarray:
        """Turns file values into classes, uint8 (H, W), class index or 255.

        Args:
            raw: uint8 or uint16 (H, W), or uint8 (H, W, 3) RGB, as `reading.read_mask_values` gives it.
            lossy: the file's values are approximate (JPEG).
            name: what errors call the file.

        Raises:
            IssueError: `mask-values` for values outside the mapping.
        """
        if raw.ndim == 3 or self.has_colors:
            return self._apply_colours(raw, name)
        if self.binary and (lossy or self.antialiased) and raw.dtype == np.uint8:
            return (raw > THRESHOLD).astype(np.uint8)
        mask = _table(self.mapping)[raw]
        if (mask == UNKNOWN).any():
            raise self._unknown(name, np.unique(raw[mask == UNKNOWN]).tolist())
        return mask

    def _apply_colours(self, raw: np.ndarray, name: str) -> np.ndarray:
        if raw.ndim == 2:
            raw = np.repeat(raw.astype(np.uint8)[:, :, None], 3, axis=2)
        codes = pack_colors(raw)
        mask = np.full(codes.shape, UNKNOWN, np.uint8)
        for value, index in self.mapping:
            colour = value if isinstance(value, tuple) else (value, value, value)
            mask[codes == pack_colors(np.array(colour))] = index
        if (mask == UNKNOWN).any():
            raise self._unknown(name, unpack_colors(np.unique(codes[mask == UNKNOWN])[:8]))
        return mask

    def _unknown(self, name: str, values: Sequence[Value]) -> IssueError:
        expected = ", ".join(str(value) for value, _ in self.mapping)
        message = f"expected mask values {expected}, found also {list_some(values)}"
        return IssueError("mask-values", name, message, NAME_THEM)

    def class_of(self, value: Value, lossy: bool = False) -> int | None:
        """The class index of one file value, as `apply` gives it; None where it has none."""
        if self.binary and (lossy or self.antialiased) and isinstance(value, int):
            return int(value > THRESHOLD)
        table = dict(self.mapping)
        if self.has_colors and isinstance(value, int):
            value = (value, value, value)
        if isinstance(value, tuple) and value not in table and value[0] == value[1] == value[2]:
            value = value[0]
        return table.get(value)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, for JSON."""
        pairs = [[list(v) if isinstance(v, tuple) else v, k] for v, k in self.mapping]
        return {
            "mapping": pairs,
            "class_names": list(self.class_names),
            "smooth": self.antialiased,
        }  # the key that released model folders hold

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> MaskEncoding:
        """The inverse of `to_dict`."""
        pairs = tuple((tuple(v) if isinstance(v, list) else v, k) for v, k in stored["mapping"])
        return cls(pairs, tuple(stored["class_names"]), stored["smooth"])

    @classmethod
    def from_mapping(cls, mapping: Mapping[Any, Any], class_names: Sequence[str]) -> MaskEncoding:
        """Reads what a person writes as `--data.mask_values`.

        Args:
            mapping: value (`255`, `"255"`), colour (`"255,0,0"`, `"#ff0000"`, a sequence of three) -> class
                name, class index, or `"ignore"` (also 255).
            class_names: names by class index.

        Raises:
            ConfigError: a key or a class that cannot be read.
        """
        pairs = tuple((_value(key), _class(meaning, class_names)) for key, meaning in mapping.items())
        known = {index for _, index in pairs}
        lacking = [name for index, name in enumerate(class_names) if index not in known and index > 0]
        if lacking or not pairs:
            found = f"none for {', '.join(lacking) or 'any'} in {dict(mapping)}"
            raise ConfigError(
                f"mask_values: expected a value for every class, found {found}. "
                "Add it, or take the class out of --data.classes."
            )
        return cls(pairs, tuple(class_names))


_EXAMPLE = '{"0": "background", "128": "ignore", "255": "nail"}'
NAME_THEM = f"Name what each value means, e.g. --data.mask_values '{_EXAMPLE}', or redraw the masks."


@lru_cache(maxsize=8)
def _table(mapping: tuple[tuple[Value, int], ...]) -> np.ndarray:
    """uint8 (65536,): one table serves 8-bit and 16-bit masks."""
    table = np.full(65536, UNKNOWN, np.uint8)
    for value, index in mapping:
        table[value] = index
    return table


def pack_colors(raw: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> int32 (H, W), red in the highest byte."""
    wide = raw.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def unpack_colors(codes: Iterable[int]) -> list[tuple[int, int, int]]:
    """The inverse of `pack_colors`, for a few values."""
    return [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes]


def list_some(values: Sequence[Value], limit: int = 8) -> str:
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(map(str, values[:limit])) + more


def _value(key: Any) -> Value:
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
    expected = "a value 0..65535 or a colour like 255,0,0 or #ff0000"
    raise ConfigError(f"mask_values: expected {expected}, found {key!r}.")


def _class(meaning: Any, class_names: Sequence[str]) -> int:
    if meaning in class_names:
        return list(class_names).index(meaning)
    if str(meaning) in ("ignore", str(IGNORE_INDEX)):
        return IGNORE_INDEX
    if str(meaning).isdigit() and int(meaning) < len(class_names):
        return int(meaning)
    expected = f"one of {', '.join(class_names)}, their index, or ignore"
    raise ConfigError(f"mask_values: expected {expected}; found {meaning!r}.")
