"""What can be wrong with a data set: one small record per fault, and how a list of them is said.

Codes are stable; programs and people may rely on them.

| code | meaning |
| --- | --- |
| `missing-path` | a row names no image |
| `path-outside` | a path is absolute, has `..`, or is a link out of the data root |
| `doubled-row` | an image stands in two rows |
| `unknown-split` | a split other than train, val, test |
| `missing-file` | the CSV names a file that is not there, or that may not be opened |
| `not-a-file` | a folder (or something else that is no plain file) in a file's place |
| `empty-file` | zero bytes |
| `unreadable` | truncated or damaged, or no picture format that is read here |
| `many-frames` | an animation or a file of several pages |
| `too-large` | more pixels than the limit, said by the header before anything is decoded |
| `image-form` | decodes, but its values have no sure meaning as colours (float, 12 bits in 16, Lab) |
| `mask-form` | decodes, but is no mask: colours in a lossy file, alpha and colour that contradict each other
|
| `label-form` | an import met a label that cannot be used: class, outline, run lengths, size, split |
| `no-mask` | the row has an image and no mask |
| `size-mismatch` | mask and image differ in height or width, each turned upright by its own EXIF tag |
| `mask-values` | values or colours that belong to no class |
| `mask-mixed` | masks that read as 0/255 and masks that read as 0/1 in one set |
| `split-empty` | a split that the command needs has no row |
| `no-foreground` | a split that the command needs has nothing but background |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nailseg.errors import DataError

LINES_PER_CODE = 20
"""More lines of one kind teach nobody anything."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        code: one of the codes listed in this module.
        file: the file or split it concerns.
        message: what was expected and what was found.
        fix: the way out.
    """

    code: str
    file: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}. {self.fix}"


class FaultError(DataError):
    """A `DataError` about one file, which still knows its code."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault

    def __reduce__(self) -> tuple[type[FaultError], tuple[Fault]]:
        # the default would hand the text to __init__ when the error comes back from a worker process
        return FaultError, (self.fault,)


def refuse(code: str, file: object, message: str, fix: str) -> FaultError:
    """Builds the exception for one fault: `raise refuse(...)`."""
    return FaultError(Fault(code, str(file), message, fix))


def list_faults(faults: Iterable[Fault], lines_per_code: int = LINES_PER_CODE) -> str:
    """Writes faults grouped by code, at most `lines_per_code` of each kind, and how many more there are."""
    by_code: dict[str, list[Fault]] = {}
    for fault in faults:
        by_code.setdefault(fault.code, []).append(fault)
    parts: list[str] = []
    for code, group in by_code.items():
        parts.append(f"{code} ({len(group)}):")
        parts.extend(f"  {line}" for line in _fold(group, lines_per_code))
        if len(group) > lines_per_code:
            parts.append(f"  ... and {len(group) - lines_per_code} more of this kind")
    return "\n".join(parts)


def _fold(group: Sequence[Fault], limit: int) -> list[str]:
    """The same way out is said once, after the last line it belongs to."""
    lines: list[str] = []
    shown = group[:limit]
    for index, fault in enumerate(shown):
        lines.append(f"{fault.file}: {fault.message}")
        if index + 1 == len(shown) or shown[index + 1].fix != fault.fix:
            lines.append(f"  -> {fault.fix}")
    return lines
