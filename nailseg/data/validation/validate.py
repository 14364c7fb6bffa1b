"""Looks at every file a command needs, before its first step, and says everything that is wrong at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nailseg.data.io.images import MAX_PIXELS
from nailseg.data.issues import Issue, format_issues
from nailseg.data.manifest import Manifest, Row
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.mask_inference import check_values, count_classes, count_foreground, infer_encoding
from nailseg.data.splitting.duplicates import DuplicatePair, find_duplicates
from nailseg.data.threads import map_threads
from nailseg.data.validation.issues import UNUSABLE, DataIssuesError, check_codes, write_remaining
from nailseg.data.validation.rules import check_encodings, check_groups, check_pairs, check_splits
from nailseg.data.validation.scan import ScanResult, scan_row

FIT_SPLITS = ("train", "val")


@dataclass(frozen=True)
class DataSummary:
    """What a checked data set holds. Plain data: picklable."""

    mask_values: MaskEncoding  # how mask files are read
    counts: dict[str, int]  # rows per split, of the whole CSV less what was left out
    sizes: dict[tuple[int, int], int]  # images per (height, width), upright, of the checked splits
    foreground: dict[str, float]  # share of the counted pixels that are not background, per checked split
    empty: dict[str, int]  # masks without foreground, per checked split
    notes: tuple[str, ...] = ()  # what was derived, left out or is odd, one line each
    left_out: tuple[str, ...] = ()  # images of the rows that were left out because they were bad

    def __str__(self) -> str:
        lines = [f"masks: {self.mask_values.describe()}"]
        for split, share in self.foreground.items():
            without = f", {self.empty[split]} without" if self.empty[split] else ""
            lines.append(f"{split}: {self.counts.get(split, 0)} images, {share:.2%} foreground{without}")
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class ValidationResult:
    """Everything that was seen of a data set."""

    manifest: Manifest  # the CSV, without the rows that were left out
    findings: tuple[ScanResult, ...]  # what its checked rows gave
    values: MaskEncoding | None  # how mask files are read; None where no reading fits
    faults: tuple[Issue, ...]  # what stops a command
    odd: tuple[Issue, ...]  # what is only said
    left_out: tuple[Issue, ...]  # why rows were left out
    checked: tuple[str, ...]  # the splits looked at

    def refuse(self) -> DataIssuesError:
        """The exception that lists the faults; what it cannot list goes to a file."""
        return DataIssuesError(str(self.manifest.csv), self.faults, write_remaining(self.faults))

    def summary(self, dropped: Iterable[str] = ()) -> DataSummary:
        """The findings in numbers; `dropped` are images of rows that were left out.

        Raises:
            DataIssuesError: if there are any.
        """
        if self.faults or self.values is None:
            raise self.refuse()
        shares, empty = _foreground(self.findings, self.values, self.checked)
        counts = Counter(row.split for row in self.manifest.rows)
        sizes = Counter(finding.size for finding in self.findings if finding.size is not None)
        notes = list(self.manifest.notes)
        if self.left_out:
            notes.append("left out:\n" + format_issues(self.left_out))
        if self.odd:
            notes.append("odd, but no fault:\n" + format_issues(self.odd))
        return DataSummary(
            self.values, dict(counts), dict(sizes), shares, empty, tuple(notes), tuple(dropped)
        )


def check_rows(
    manifest: Manifest,
    class_names: Sequence[str],
    mask_values: Mapping[Any, Any] | MaskEncoding | None = None,
    **options: Any,
) -> DataSummary:
    """`validate_rows`, which says what the options are, that raises what is wrong.

    Raises:
        DataIssuesError: (a `DataError`) listing every fault.
        ConfigError: `mask_values` or `allow` that cannot be read.
    """
    seen = validate_rows(manifest, class_names, mask_values, **options)
    kept = {row.image for row in seen.manifest.rows}
    return seen.summary(row.image for row in manifest.rows if row.image not in kept)


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
    """Decodes both files of every row in the needed splits, and resolves the mask values from the whole set.

    Masks of the other splits are read for their values alone: what is wrong with those files does not matter
    here, what their values mean must not differ.

    Args:
        manifest: the rows.
        class_names: names by class index, the first is background.
        mask_values: what file values or colours mean; inferred from the files by default.
        splits_needed: `fit` needs train and val, `validate` val, `test` test.
        progress: show a bar on stderr.
        workers: threads; the number of cores by default, 8 at most.
        max_pixels: limit on an image's height times width.
        allow: codes that pass; rows nothing can be done with are left out.
        skip_bad: leave out every row that a fault names.

    Raises:
        ConfigError: `mask_values` or `allow` that cannot be read.
    """
    allowed = check_codes(allow)
    if mask_values is not None and not isinstance(mask_values, MaskEncoding):
        mask_values = MaskEncoding.from_mapping(mask_values, class_names)
    given, needed = mask_values, tuple(splits_needed)
    rows = [row for row in manifest.rows if row.split in needed or (given is None and row.mask)]
    colors = given is not None and given.has_colors

    def look(row: Row) -> ScanResult:
        return scan_row(manifest, row, row.split in needed, colors, max_pixels)

    findings = map_threads(look, rows, "checking data", progress, workers)
    pairs = find_duplicates({f.row.image: f.signature for f in findings if f.signature})
    skipped = [fault for fault in manifest.issues if skip_bad or fault.code in allowed]
    from_csv = [] if skip_bad else [fault for fault in manifest.issues if fault.code not in allowed]
    # without a row the set may read otherwise (0/1 among 0/255) or lack a split: so again until nothing falls
    while True:
        faults, odd, values = _judge(manifest, findings, pairs, given, class_names, needed)
        droppable = [f for f in reversed(faults) if skip_bad or f.code in allowed & UNUSABLE]
        bad = {fault.file: fault for fault in droppable}
        dropped = [row for row in manifest.rows if row.image in bad or row.mask in bad]
        if not dropped:
            break
        files = {file for row in dropped for file in (row.image, row.mask)}
        skipped.extend(fault for file, fault in bad.items() if file in files)
        manifest = manifest.without({row.image for row in dropped})
        images = {row.image for row in manifest.rows}
        findings = [finding for finding in findings if finding.row.image in images]
    faults = [fault for fault in [*from_csv, *faults] if fault.code not in allowed]
    checked = tuple(finding for finding in findings if finding.row.split in needed)
    return ValidationResult(manifest, checked, values, tuple(faults), tuple(odd), tuple(skipped), needed)


def _judge(
    manifest: Manifest,
    findings: Sequence[ScanResult],
    pairs: Sequence[DuplicatePair],
    given: MaskEncoding | None,
    class_names: Sequence[str],
    needed: Sequence[str],
) -> tuple[list[Issue], list[Issue], MaskEncoding | None]:
    """Faults, oddities, and the reading of the masks."""
    checked = [finding for finding in findings if finding.row.split in needed]
    faults = []
    for split in needed:
        if not manifest.select(split):
            message = f"expected rows with split {split}, found none"
            fix = "Set the split column, or split anew with nailseg index (--val, --test)."
            faults.append(Issue("split-empty", split, message, fix))
    faults.extend(fault for finding in findings for fault in finding.faults)
    contents = [finding.content for finding in findings if finding.content is not None]
    if given is None:
        values, value_faults = infer_encoding(contents, class_names)
    else:
        values = given
        value_faults = [fault for content in contents if (fault := check_values(content, given))]
    masks = {finding.row.mask for finding in checked}
    faults.extend(fault for fault in value_faults if fault.file in masks or fault.code == "mask-mixed")
    faults.extend(check_pairs(pairs, {finding.row.image: finding.row.split for finding in checked}))
    faults.extend(check_groups(manifest.rows))
    odd: list[Issue] = []
    if values is not None:
        wrong = {fault.file for fault in value_faults}
        readable = [f for f in checked if f.content is not None and f.content.file not in wrong]
        of_forms, odd = check_encodings(readable, values)
        faults.extend(of_forms)
        unsure = {f.row.split for f in checked if f.content is None or f.content.file in wrong}
        whole = [split for split in needed if manifest.select(split) and split not in unsure]
        of_splits, small = check_splits(readable, values, whole)
        faults.extend(of_splits)
        odd.extend(small)
    return faults, odd, values


def _foreground(
    findings: Sequence[ScanResult], values: MaskEncoding, splits: Sequence[str]
) -> tuple[dict[str, float], dict[str, int]]:
    """Share of foreground pixels among those that count, and the number of masks without any, per split."""
    shares, empty = {}, {}
    for split in splits:
        contents = [finding.content for finding in findings if finding.row.split == split]
        by_class = [count_classes(content, values) for content in contents if content is not None]
        foreground = [count_foreground(each) for each in by_class]
        shares[split] = sum(foreground) / max(sum(foreground) + sum(each[0] for each in by_class), 1)
        empty[split] = foreground.count(0)
    return shares, empty
