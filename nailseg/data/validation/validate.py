"""Validates a data set before a command uses it: scans every file, applies the rules, lists all issues."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from nailseg.data.io.images import MAX_PIXELS
from nailseg.data.io.levels import ImageRange, RangeOption, check_image_range, measure_range
from nailseg.data.issues import UNUSABLE, DataIssuesError, Issue, check_codes, format_issues, list_issues
from nailseg.data.manifest import Manifest
from nailseg.data.mask_content import count_classes, count_foreground
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.mask_inference import infer_encoding
from nailseg.data.splitting.near_duplicates import DuplicatePair, find_duplicates
from nailseg.data.threads import map_threads
from nailseg.data.validation import rules
from nailseg.data.validation.scan import ScanResult, scan_row
from nailseg.errors import ConfigError

FIT_SPLITS = ("train", "val")


@dataclass(frozen=True)
class DataSummary:
    """What a valid data set contains. Plain data: picklable."""

    mask_encoding: MaskEncoding
    image_range: ImageRange | None  # the 16-bit values that become 0 and 255; None: 0 and 65535
    counts: dict[str, int]  # rows per split, of the whole CSV without the rows left out
    left_out: tuple[str, ...]  # images of the rows that were left out
    train_pixels: tuple[int, ...]  # of the training masks, by class index; zeros if they were not read
    text: str  # encoding, foreground per checked split, what was derived or left out, and the warnings


@dataclass(frozen=True)
class ValidationResult:
    """Everything that was found in a data set."""

    manifest: Manifest  # the CSV, without the rows that were left out
    scans: tuple[ScanResult, ...]  # of its rows in the checked splits
    mask_encoding: MaskEncoding | None  # None if no encoding fits all masks
    image_range: ImageRange | None  # as in `DataSummary`
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
            raise DataIssuesError(str(self.manifest.csv), self.errors, list_issues(self.errors))
        counts = Counter(row.split for row in self.manifest.rows)
        lines = [f"masks: {self.mask_encoding.describe()}"]
        if self.image_range:
            lines.append("16-bit images: {} to {} become 0 to 255".format(*self.image_range))
        train = Counter[int]()
        for split in self.splits:
            contents = [scan.content for scan in self.scans if scan.row.split == split and scan.content]
            classes = [count_classes(content, self.mask_encoding) for content in contents]
            if split == "train":
                train = sum(classes, train)
            foreground = [count_foreground(each) for each in classes]
            share = sum(foreground) / max(sum(foreground) + sum(each[0] for each in classes), 1)
            without = f", {foreground.count(0)} without" if 0 in foreground else ""
            lines.append(f"{split}: {counts[split]} images, {share:.2%} foreground{without}")
        lines += self.manifest.notes
        for title, issues in {"left out": self.skipped, "warnings": self.warnings}.items():
            if issues:
                lines.append(f"{title}:\n{format_issues(issues)}")
        pixels = tuple(train[index] for index in range(len(self.mask_encoding.class_names)))
        found = self.mask_encoding, self.image_range, dict(counts), self.left_out, pixels
        return DataSummary(*found, "\n".join(lines))


def validate_rows(
    manifest: Manifest,
    class_names: Sequence[str],
    mask_values: Mapping[Any, Any] | MaskEncoding | None = None,
    splits_needed: Sequence[str] = FIT_SPLITS,
    max_pixels: int = MAX_PIXELS,
    allow: Iterable[str] = (),
    skip_bad: bool = False,
    image_range: RangeOption = "full",
) -> ValidationResult:
    """Decodes both files of every row in the needed splits, and infers the mask encoding from the whole set.

    Of the other splits only the masks are read: the values must have the same meaning everywhere, but other
    errors of those files do not matter for the command. The arguments are those of `validate_dataset`, with
    the splits that the command needs.

    Raises:
        ConfigError: invalid `mask_values` or `allow`.
    """
    allowed, needed = check_codes(allow), tuple(splits_needed)
    check_image_range(image_range, "--data.image_range")
    given = mask_values
    if given is not None and not isinstance(given, MaskEncoding):
        given = MaskEncoding.from_mapping(given, class_names)
    rows = [row for row in manifest.rows if row.split in needed or (given is None and row.mask)]
    has_colors = given is not None and given.has_colors
    read = partial(scan_row, manifest, needed, has_colors, max_pixels)
    scans = map_threads(read, rows, "checking data")
    pairs = find_duplicates({scan.row.image: scan.signature for scan in scans if scan.signature})
    skipped = [issue for issue in manifest.issues if skip_bad or issue.code in allowed]
    csv_errors = [issue for issue in manifest.issues if issue not in skipped]
    kept = manifest
    # Without some rows the others can have other issues: the masks have one encoding, or a split is empty.
    # So the rules are applied again until no row is left out.
    while True:
        resolved = _resolve_range(image_range, scans)
        issues, encoding = _apply_rules(kept, scans, pairs, class_names, given, needed)
        issues += rules.check_levels(manifest.csv.name, scans, resolved)
        errors = [issue for issue in issues if issue.severity == "error"]
        may_skip = [issue for issue in errors if skip_bad or issue.code in allowed & UNUSABLE.keys()]
        first = {issue.file: issue for issue in reversed(may_skip)}  # the first issue of each file
        bad = [row for row in kept.rows if first.keys() & {row.image, row.mask}]
        if not bad:
            break
        files = {file for row in bad for file in (row.image, row.mask)}
        skipped += [issue for file, issue in first.items() if file in files]
        kept = kept.without(files)
        scans = [scan for scan in scans if scan.row.image not in files]
    images = {row.image for row in kept.rows}
    return ValidationResult(
        kept,
        tuple(scan for scan in scans if scan.row.split in needed),
        encoding,
        resolved,
        errors=tuple(issue for issue in [*csv_errors, *errors] if issue.code not in allowed),
        warnings=tuple(i for i in issues if i.severity == "warning" and i.code not in allowed),
        skipped=tuple(skipped),
        left_out=tuple(row.image for row in manifest.rows if row.image not in images),
        splits=needed,
    )


def _resolve_range(image_range: RangeOption, scans: Sequence[ScanResult]) -> ImageRange | None:
    """The 16-bit values that become 0 and 255; None: 0 and 65535."""
    if image_range == "full":
        return None
    if image_range != "percentile":
        return tuple(image_range)
    measured = [scan for scan in scans if scan.values is not None]
    train = [scan.values for scan in measured if scan.row.split == "train"]
    if measured and not train:
        raise ConfigError(
            "--data.image_range percentile: expected 16-bit training images to measure, found none among the "
            "checked rows. Give the two values that the training printed, such as '[7600,8110]'."
        )
    return measure_range(train)


def _apply_rules(
    manifest: Manifest,
    scans: Sequence[ScanResult],
    pairs: Sequence[DuplicatePair],
    class_names: Sequence[str],
    encoding: MaskEncoding | None,
    needed: Sequence[str],
) -> tuple[list[Issue], MaskEncoding | None]:
    """All issues of the rows, and the encoding: the given one, or the inferred one, None if none fits."""
    checked = [scan for scan in scans if scan.row.split in needed]
    contents = [scan.content for scan in scans if scan.content is not None]
    encoding, mask_issues = infer_encoding(contents, class_names, encoding)
    masks = {scan.row.mask for scan in checked}
    issues = [*rules.check_needed_splits(manifest, needed)]
    issues += [issue for scan in checked for issue in scan.issues]
    # masks with several encodings concern every split, because one encoding must hold for the whole set
    whole_set = ("mask-mixed", "palette-order")
    issues += [issue for issue in mask_issues if issue.file in masks or issue.code in whole_set]
    issues += rules.check_duplicates(pairs, {scan.row.image: scan.row.split for scan in checked})
    issues += rules.check_groups(manifest.rows)
    if encoding is not None:
        wrong = {issue.file for issue in mask_issues}
        readable = [scan for scan in checked if scan.content is not None and scan.row.mask not in wrong]
        rows, read = (Counter(scan.row.split for scan in part) for part in (checked, readable))
        complete = [split for split in needed if rows[split] == read[split] > 0]
        issues += rules.check_masks(readable, encoding)
        issues += rules.check_splits(readable, encoding, complete)
    return issues, encoding
