"""The issues that a data set can have, their codes, and the errors that list them.

The codes are stable: programs and people may rely on them. An error stops a command, a warning is only
printed. An error whose code is allowed does not stop a command; if it is one of `UNUSABLE`, its rows are left
out. Only `nailseg import` finds `label-format`: a class, outline, run lengths, size or split that is invalid.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from nailseg.errors import ConfigError, DataError

# Each table: code -> meaning. A row with an unusable error cannot be trained on or measured.
UNUSABLE = {
    "missing-path": "a row names no image",
    "path-outside": "a path is absolute, contains .., or is a link out of the data root",
    "duplicate-row": "several rows name the same image",
    "unknown-split": "a split other than train, val, test",
    "missing-file": "the CSV names a file that does not exist or cannot be opened",
    "not-a-file": "a folder, or something else that is not a regular file",
    "empty-file": "zero bytes",
    "unreadable": "truncated, damaged, or not a supported image format",
    "multi-frame": "an animation, or a file of several pages",
    "too-large": "more pixels than the limit; the header is read before anything is decoded",
    "image-format": "readable, but its values cannot be converted to colors (float, Lab)",
    "mask-format": "readable, but not a mask: colors in a lossy file, alpha that contradicts the color",
    "no-mask": "the row has an image and no mask",
    "size-mismatch": "mask and image differ in height or width, each after its own EXIF orientation",
    "mask-values": "values or colors without a class",
    "mask-mixed": "some masks are encoded as 0/255 and others as 0/1",
    "palette-order": "a palette whose index has another color than in most masks, or index 0 no background",
}
ERRORS = UNUSABLE | {
    "image-range": "16-bit images of a narrow range of values: scaled to 8 bits, few grey levels are left",
    "extension-mismatch": "the file name's extension is not that of the file's format",
    "orientation-mismatch": "the EXIF orientations differ, and the sizes do not show which one is right",
    "mask-full": "two classes: only foreground",
    "mask-inverted": "two classes: foreground on most of the image and of its border",
    "split-empty": "a split that the command needs has no rows",
    "no-foreground": "a split that the command needs has only background",
    "class-missing": "a class without a single pixel",
    "class-one-split": "a class with pixels in one split only",
    "duplicate-image": "equal image files under two names, in one split",
    "group-split": "one group in two splits",
    "duplicate-split": "equal image files under two names, in two splits",
    "near-duplicate-split": "mirrored, rotated, re-compressed or slightly cropped copies in two splits",
}
WARNINGS = {
    "image-alpha": "alpha that is neither 0 nor full over most of the image, composited over white",
    "image-profile": "a colour profile that cannot be applied; the numbers are taken for sRGB",
    "mask-empty": "only background",
    "mask-jpeg": "a lossy file, read at > 127",
    "mask-antialiased": "grey edges, read at > 127",
    "mask-palette": "a palette, read by its indices or greys",
    "mask-rgb": "three equal channels, read as one",
    "mask-alpha": "an alpha channel, read as the mask where it alone varies",
    "mask-16-bit": "16 bits, read as integers",
    "few-rows": "a split too small to train on, or to measure with",
}

LINES_PER_CODE = 20  # of a message; more issues of one code would hide the other codes


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong with a data set."""

    code: str  # of `ERRORS` or `WARNINGS`, or label-format
    file: str  # the file or split it concerns
    message: str  # what was expected and what was found
    fix: str  # the way out

    @property
    def severity(self) -> Literal["error", "warning"]:
        """An error stops a command, a warning is only printed."""
        return "warning" if self.code in WARNINGS else "error"

    def __str__(self) -> str:
        return f"{self.file}: {self.message}. {self.fix}"


class IssueError(DataError):
    """A `DataError` about one file; `issue` is the `Issue`, with its code."""

    def __init__(self, code: str, file: object, message: str, fix: str) -> None:
        # Exception keeps these arguments and pickles them: a worker process can raise this error
        super().__init__(code, str(file), message, fix)
        self.issue = Issue(*self.args)

    def __str__(self) -> str:
        return str(self.issue)


class DataIssuesError(DataError):
    """All errors, `issues`, of the data set `csv`; `listing` is their text, by default of `format_issues`."""

    def __init__(self, csv: str, issues: Sequence[Issue], listing: str | None = None) -> None:
        super().__init__(csv, issues, listing)
        self.csv, self.issues, self.listing = csv, tuple(issues), listing or format_issues(issues)

    def __str__(self) -> str:
        found = f"found {len(self.issues)} in {len({issue.file for issue in self.issues})} files or splits"
        return f"{self.csv}: expected data without errors, {found}:\n{self.listing}"


def check_codes(codes: Iterable[str]) -> frozenset[str]:
    """Checks the codes that a user allows.

    Raises:
        ConfigError: an unknown code, or `split-empty`: no command works without rows.

    Example:
        >>> sorted(check_codes(["mask-full", "few-rows"]))
        ['few-rows', 'mask-full']
    """
    allowed = frozenset(codes)
    wrong = sorted((allowed - ERRORS.keys() - WARNINGS.keys()) | allowed & {"split-empty"})
    if wrong:
        raise ConfigError(
            f"allow: expected codes of {', '.join(sorted(ERRORS.keys() - {'split-empty'}))}; "
            f"found {', '.join(wrong)}. Copy the code from nailseg check."
        )
    return allowed


def list_issues(issues: Sequence[Issue]) -> str:
    """Formats issues; if that leaves some out, a new temporary file, named in the last line, lists all."""
    text = format_issues(issues)
    if max(Counter(issue.code for issue in issues).values(), default=0) <= LINES_PER_CODE:
        return text
    # not in the data folder: it may be read-only, and belongs to the user
    handle, path = tempfile.mkstemp(".txt", "nailseg-issues-")
    with open(handle, "w", encoding="utf-8") as file:
        file.write(format_issues(issues, len(issues)) + "\n")
    return f"{text}\nAll of them: {path}"


def format_issues(issues: Iterable[Issue], lines_per_code: int = LINES_PER_CODE) -> str:
    """Lists issues grouped by code, at most `lines_per_code` of each code, and the number of the others."""
    by_code: dict[str, list[Issue]] = {}
    for issue in issues:
        by_code.setdefault(issue.code, []).append(issue)
    lines: list[str] = []
    for code, group in by_code.items():
        lines.append(f"{code} ({len(group)}):")
        for fix, same_fix in groupby(group[:lines_per_code], key=lambda issue: issue.fix):
            lines += [f"  {issue.file}: {issue.message}" for issue in same_fix]
            lines.append(f"    -> {fix}")
        if len(group) > lines_per_code:
            lines.append(f"  ... and {len(group) - lines_per_code} more of this kind")
    return "\n".join(lines)
