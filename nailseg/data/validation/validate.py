"""Validates a data set before a command uses it: scans every file, applies the rules, lists all issues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nailseg.data.io.images import MAX_PIXELS
from nailseg.data.issues import UNUSABLE, DataIssuesError, Issue, check_codes, format_issues, write_full_list
from nailseg.data.manifest import Manifest, Row
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.mask_inference import check_values, count_classes, count_foreground, infer_encoding
from nailseg.data.splitting.duplicates import DuplicatePair, find_duplicates
from nailseg.data.threads import map_threads
from nailseg.data.validation import rules
from nailseg.data.validation.scan import ScanResult, scan_row

FIT_SPLITS = ("train", "val")


@dataclass(frozen=True)
class DataSummary:
    """What a valid data set contains. Plain data: picklable."""

    mask_encoding: MaskEncoding
    counts: dict[str, int]  # rows per split, of the whole CSV without the rows left out
    left_out: tuple[str, ...]  # images of the rows that were left out
    text: str  # encoding, foreground per checked split, what was derived or left out, and the warnings

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class ValidationResult:
    """Everything that was found in a data set."""

    manifest: Manifest  # the CSV, without the rows that were left out
    scans: tuple[ScanResult, ...]  # of its rows in the checked splits
    mask_encoding: MaskEncoding | None  # None if no encoding fits all masks
    errors: tuple[Issue, ...]  # issues that stop a command
    warnings: tuple[Issue, ...]
    skipped: tuple[Issue, ...]  # why rows were left out
    left_out: tuple[str, ...]  # their images
    splits: tuple[str, ...]  # the checked splits

    def summarize(self) -> DataSummary:
        """Reduces the scans to numbers.

        Raises:
            DataIssuesError: (a `DataError`) listing all errors, if there are any.
        """
        if self.errors or self.mask_encoding is None:
            raise DataIssuesError(str(self.manifest.csv), self.errors, write_full_list(self.errors))
        counts = Counter(row.split for row in self.manifest.rows)
        lines = [f"masks: {self.mask_encoding.describe()}"]
        for split in self.splits:
            contents = [scan.content for scan in self.scans if scan.row.split == split]
            classes = [count_classes(each, self.mask_encoding) for each in contents if each is not None]
            foreground = [count_foreground(each) for each in classes]
            share = sum(foreground) / max(sum(foreground) + sum(each[0] for each in classes), 1)
            without = f", {foreground.count(0)} without" if 0 in foreground else ""
            lines.append(f"{split}: {counts[split]} images, {share:.2%} foreground{without}")
        lines += self.manifest.notes
        for title, issues in {"left out": self.skipped, "warnings": self.warnings}.items():
            if issues:
                lines.append(f"{title}:\n{format_issues(issues)}")
        return DataSummary(self.mask_encoding, dict(counts), self.left_out, "\n".join(lines))


def validate_rows(
    manifest: Manifest,
    class_names: Sequence[str],
    mask_values: Mapping[Any, Any] | MaskEncoding | None = None,
    splits_needed: Sequence[str] = FIT_SPLITS,
    progress: bool = True,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    allow: Iterable[str] = (),
    skip_bad: bool = False,
) -> ValidationResult:
    """Decodes both files of every row in the needed splits, and infers the mask encoding from the whole set.

    Of the other splits only the masks are read: the values must have the same meaning everywhere, but other
    errors of those files do not matter for the command.

    Args:
        manifest: the rows.
        class_names: names by class index, the first is background.
        mask_values: what file values or colors mean; by default inferred from the files.
        splits_needed: `fit` needs train and val, `validate` val, `test` test.
        progress: show a progress bar on stderr.
        workers: threads; by default one per core, 8 at most.
        max_pixels: limit on an image's height times width.
        allow: codes of errors that are ignored; rows that cannot be used are left out.
        skip_bad: leave out every row that an error names.

    Raises:
        ConfigError: invalid `mask_values` or `allow`.
    """
    allowed, needed = check_codes(allow), tuple(splits_needed)
    if mask_values is not None and not isinstance(mask_values, MaskEncoding):
        mask_values = MaskEncoding.from_mapping(mask_values, class_names)
    given = mask_values
    rows = [row for row in manifest.rows if row.split in needed or (given is None and row.mask)]
    has_colors = given is not None and given.has_colors

    def read(row: Row) -> ScanResult:
        return scan_row(manifest, row, row.split in needed, has_colors, max_pixels)

    scans = map_threads(read, rows, "checking data", progress, workers)
    pairs = find_duplicates({scan.row.image: scan.signature for scan in scans if scan.signature})
    skipped = [issue for issue in manifest.issues if skip_bad or issue.code in allowed]
    csv_errors = [issue for issue in manifest.issues if issue not in skipped]
    kept = manifest
    # Without some rows the others can have other issues: the masks have one encoding, or a split is empty.
    # So the rules are applied again until no row is left out.
    while True:
        issues, encoding = apply_rules(kept, scans, pairs, class_names, given, needed)
        errors = [issue for issue in issues if issue.severity == "error"]
        may_skip = [issue for issue in errors if skip_bad or issue.code in allowed & UNUSABLE]
        bad_images, reasons = _find_bad_rows(kept.rows, may_skip)
        if not bad_images:
            break
        skipped += reasons
        kept = kept.without(bad_images)
        scans = [scan for scan in scans if scan.row.image not in bad_images]
    images = {row.image for row in kept.rows}
    return ValidationResult(
        kept,
        tuple(scan for scan in scans if scan.row.split in needed),
        encoding,
        errors=tuple(issue for issue in [*csv_errors, *errors] if issue.code not in allowed),
        warnings=tuple(issue for issue in issues if issue.severity == "warning"),
        skipped=tuple(skipped),
        left_out=tuple(row.image for row in manifest.rows if row.image not in images),
        splits=needed,
    )


def apply_rules(
    manifest: Manifest,
    scans: Sequence[ScanResult],
    pairs: Sequence[DuplicatePair],
    class_names: Sequence[str],
    given: MaskEncoding | None,
    needed: Sequence[str],
) -> tuple[list[Issue], MaskEncoding | None]:
    """Applies all rules to the scanned rows; the encoding is inferred if none is given.

    Returns:
        Errors and warnings, and the mask encoding; None if no encoding fits all masks.
    """
    checked = [scan for scan in scans if scan.row.split in needed]
    contents = [scan.content for scan in scans if scan.content is not None]
    if given is None:
        encoding, mask_issues = infer_encoding(contents, class_names)
    else:
        encoding = given
        mask_issues = [issue for content in contents if (issue := check_values(content, given))]
    masks = {scan.row.mask for scan in checked}
    issues = [*rules.check_needed_splits(manifest, needed)]
    issues += [issue for scan in scans for issue in scan.issues]
    issues += [issue for issue in mask_issues if issue.file in masks or issue.code == "mask-mixed"]
    issues += rules.check_duplicates(pairs, {scan.row.image: scan.row.split for scan in checked})
    issues += rules.check_groups(manifest.rows)
    if encoding is not None:
        wrong = {issue.file for issue in mask_issues}
        readable = [scan for scan in checked if scan.content is not None and scan.row.mask not in wrong]
        unreadable = {scan.row.split for scan in checked if scan.content is None or scan.row.mask in wrong}
        complete = [split for split in needed if manifest.select(split) and split not in unreadable]
        issues += rules.check_masks(readable, encoding)
        issues += rules.check_splits(readable, encoding, complete)
    return issues, encoding


def _find_bad_rows(rows: Sequence[Row], issues: Sequence[Issue]) -> tuple[set[str], list[Issue]]:
    """The images of the rows whose image or mask an issue names, and the first issue of each such file."""
    first = {issue.file: issue for issue in reversed(issues)}
    bad = [row for row in rows if row.image in first or row.mask in first]
    files = {file for row in bad for file in (row.image, row.mask)}
    return {row.image for row in bad}, [issue for file, issue in first.items() if file in files]
