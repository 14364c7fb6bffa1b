"""One issue of a data set, the error that carries it, and how issues are listed in a message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nailseg.errors import DataError

LINES_PER_CODE = 20
"""A message lists at most this many issues of one code; more would hide the other codes."""


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong with a data set."""

    code: str  # one of the codes listed in `nailseg.data.validation.issues`
    file: str  # the file or split it concerns
    message: str  # what was expected and what was found
    fix: str  # the way out

    def __str__(self) -> str:
        return f"{self.file}: {self.message}. {self.fix}"


class IssueError(DataError):
    """A `DataError` about one file.

    Attributes:
        issue: the `Issue`, with its code.
    """

    def __init__(self, code: str, file: object, message: str, fix: str) -> None:
        # Exception keeps these arguments and pickles them: a worker process can raise this error
        super().__init__(code, str(file), message, fix)
        self.issue = Issue(code, str(file), message, fix)

    def __str__(self) -> str:
        return str(self.issue)


def format_issues(issues: Iterable[Issue], lines_per_code: int = LINES_PER_CODE) -> str:
    """Lists issues grouped by code, at most `lines_per_code` of each code, and the number of the others."""
    by_code: dict[str, list[Issue]] = {}
    for issue in issues:
        by_code.setdefault(issue.code, []).append(issue)
    lines: list[str] = []
    for code, group in by_code.items():
        lines.append(f"{code} ({len(group)}):")
        shown = group[:lines_per_code]
        for issue, following in zip(shown, [*shown[1:], None], strict=True):
            lines.append(f"  {issue.file}: {issue.message}")
            if following is None or following.fix != issue.fix:  # a shared fix is printed once, at the end
                lines.append(f"    -> {issue.fix}")
        if len(group) > lines_per_code:
            lines.append(f"  ... and {len(group) - lines_per_code} more of this kind")
    return "\n".join(lines)
