"""What can be wrong with a data set: one small record per fault, and how a list of them is said.

Codes are stable; programs and people may rely on them. Faults stop a command, oddities are only said. A code
that is allowed passes; rows that nothing can be done with (`UNUSABLE`) are then left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from nailseg.data.issues import LINES_PER_CODE, Issue, format_issues
from nailseg.errors import ConfigError, DataError

ERRORS = {
    "missing-path": "a row names no image",
    "path-outside": "a path is absolute, has .., or is a link out of the data root",
    "duplicate-row": "an image stands in two rows",
    "unknown-split": "a split other than train, val, test",
    "missing-file": "the CSV names a file that is not there, or that may not be opened",
    "not-a-file": "a folder (or something else that is no plain file) in a file's place",
    "empty-file": "zero bytes",
    "unreadable": "truncated or damaged, or no image format that is read here",
    "multi-frame": "an animation or a file of several pages",
    "too-large": "more pixels than the limit, said by the header before anything is decoded",
    "image-format": "decodes, but its values have no sure meaning as colours (float, 12 bits in 16, Lab)",
    "mask-format": "decodes, but is no mask: colours in a lossy file, alpha that contradicts colour",
    "extension-mismatch": "the ending names another format than the bytes",
    "no-mask": "the row has an image and no mask",
    "size-mismatch": "mask and image differ in height or width, each turned upright by its own EXIF tag",
    "orientation-mismatch": "only one of a pair has an EXIF turn, and the sizes do not tell which is right",
    "mask-values": "values or colours that belong to no class",
    "mask-mixed": "masks that read as 0/255 and masks that read as 0/1 in one set",
    "mask-full": "two classes: nothing but foreground",
    "mask-inverted": "two classes: foreground on most of the image and of its edge",
    "split-empty": "a split that the command needs has no row",
    "no-foreground": "a split that the command needs has nothing but background",
    "class-missing": "a class without a single pixel",
    "class-one-split": "a class with pixels in one split only",
    "duplicate-image": "one image under two names, in one split",
    "group-split": "one group in two splits",
    "duplicate-split": "one image under two names, in two splits",
    "near-duplicate-split": "mirrored, turned, re-compressed or slightly cropped copies in two splits",
}
"""Code -> what it means."""
WARNINGS = {
    "mask-empty": "nothing but background",
    "mask-jpeg": "a lossy file, read at > 127",
    "mask-antialiased": "grey edges, read at > 127",
    "mask-palette": "a palette, read by its indices or greys",
    "mask-rgb": "three equal channels, read as one",
    "mask-alpha": "an alpha channel, read as the mask where it alone varies",
    "mask-16-bit": "16 bits, read as whole numbers",
    "few-rows": "a split too small to train on, or to measure with",
}
"""The same for what stops nothing; the masks among them are in forms that read without doubt."""
_USABLE = """extension-mismatch orientation-mismatch mask-full mask-inverted split-empty no-foreground
class-missing class-one-split duplicate-image group-split duplicate-split near-duplicate-split"""
UNUSABLE = frozenset(ERRORS) - set(_USABLE.split())
"""A row with one of these is left out when the code is allowed: there is nothing to train or measure on."""

IMPORT_ERRORS = {"label-format": "a label that cannot be used: class, outline, run lengths, size, split"}
"""The same for what only `nailseg import` can meet."""


class DataIssuesError(DataError):
    """Everything that is wrong with a data set, said once.

    Attributes:
        faults: all of them, including those beyond the twenty per kind that the message lists.
    """

    def __init__(self, csv: str, faults: Sequence[Issue], rest: str | None = None) -> None:
        files = len({fault.file for fault in faults})
        super().__init__(
            f"{csv}: expected data without faults, found {len(faults)} in {files} files or splits:\n"
            f"{format_issues(faults)}" + (f"\nAll of them: {rest}" if rest else "")
        )
        self.csv, self.faults, self.rest = csv, tuple(faults), rest

    def __reduce__(self) -> tuple[type[DataIssuesError], tuple[str, tuple[Issue, ...], str | None]]:
        return DataIssuesError, (self.csv, self.faults, self.rest)


def check_codes(codes: Iterable[str]) -> frozenset[str]:
    """The codes a person allows.

    Raises:
        ConfigError: one that does not exist, or `split-empty`: no command can do without rows.
    """
    allowed = frozenset(codes)
    wrong = sorted((allowed - ERRORS.keys() - WARNINGS.keys()) | allowed & {"split-empty"})
    if wrong:
        raise ConfigError(
            f"allow: expected codes of {', '.join(sorted(ERRORS.keys() - {'split-empty'}))}; "
            f"found {', '.join(wrong)}. Copy the code from nailseg check."
        )
    return allowed


def write_remaining(faults: Sequence[Issue]) -> str | None:
    """Writes all faults to a new temporary file where a message would cut them; its path, None if not."""
    kinds = [fault.code for fault in faults]
    if all(kinds.count(code) <= LINES_PER_CODE for code in set(kinds)):
        return None
    # a new file of the system's: the data folder may be read-only, and is not ours to write to
    with tempfile.NamedTemporaryFile(
        "w", prefix="nailseg-faults-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(format_issues(faults, len(faults)) + "\n")
    return str(Path(file.name))
