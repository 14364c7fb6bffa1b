"""Looks at every file a command needs, before its first step, and says everything that is wrong at once."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from nailseg.data.faults import Fault, FaultError, list_faults
from nailseg.data.manifest import Manifest, Row
from nailseg.data.mask_resolve import MaskContent, check_values, classes_of, count_values, resolve
from nailseg.data.mask_values import MaskValues
from nailseg.data.reading import MAX_PIXELS, decode_mask_values, read_bytes, read_image
from nailseg.errors import DataError

FIT_SPLITS = ("train", "val")


class DataFaults(DataError):
    """Everything that is wrong with a data set, said once.

    Attributes:
        faults: all of them, including those beyond the twenty per kind that the message lists.
    """

    def __init__(self, csv: str, faults: Sequence[Fault]) -> None:
        files = len({fault.file for fault in faults})
        super().__init__(
            f"{csv}: expected data without faults, found {len(faults)} in {files} files or splits:\n"
            f"{list_faults(faults)}"
        )
        self.csv, self.faults = csv, tuple(faults)

    def __reduce__(self) -> tuple[type[DataFaults], tuple[str, tuple[Fault, ...]]]:
        return DataFaults, (self.csv, self.faults)


@dataclass(frozen=True)
class DataSummary:
    """What a checked data set holds. Plain data: picklable.

    Attributes:
        mask_values: how mask files are read.
        counts: rows per split, of the whole CSV.
        sizes: images per (height, width), upright, of the checked splits.
        foreground: share of the counted pixels that are not background, per checked split.
        empty: masks without foreground, per checked split.
        notes: what was derived or is odd, one line each.
    """

    mask_values: MaskValues
    counts: dict[str, int]
    sizes: dict[tuple[int, int], int]
    foreground: dict[str, float]
    empty: dict[str, int]
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"masks: {self.mask_values.describe()}"]
        for split, share in self.foreground.items():
            without = f", {self.empty[split]} without" if self.empty[split] else ""
            lines.append(f"{split}: {self.counts[split]} images, {share:.2%} foreground{without}")
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class _Finding:
    """What one row's files gave."""

    row: Row
    size: tuple[int, int] | None
    content: MaskContent | None
    faults: tuple[Fault, ...]


def check_rows(
    manifest: Manifest,
    class_names: Sequence[str],
    mask_values: Mapping[Any, Any] | MaskValues | None = None,
    splits_needed: Sequence[str] = FIT_SPLITS,
    progress: bool = True,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> DataSummary:
    """Decodes both files of every row in the needed splits, and resolves the mask values from the whole set.

    Masks of the other splits are read for their values alone: what is wrong with those files does not matter
    here, what their values mean must not differ.

    Args:
        manifest: the rows.
        class_names: names by class index, the first is background.
        mask_values: what file values or colours mean; resolved from the files by default.
        splits_needed: `fit` needs train and val, `validate` val, `test` test.
        progress: show a bar on stderr.
        workers: threads (decoding runs outside Python's lock); the number of cores by default, 8 at most.
        max_pixels: limit on a picture's height times width.

    Raises:
        DataFaults: (a `DataError`) listing every fault.
        ConfigError: `mask_values` that cannot be read.
    """
    values = _given(mask_values, class_names)
    faults = [_empty_split(split) for split in splits_needed if not manifest.select(split)]
    rows = [row for row in manifest.rows if row.split in splits_needed or (values is None and row.mask)]
    jobs = [(row, row.split in splits_needed) for row in rows]
    colours = values is not None and values.colours
    findings = list(_look(manifest, jobs, colours, progress, workers, max_pixels))
    faults.extend(fault for finding in findings for fault in finding.faults)
    contents = [finding.content for finding in findings if finding.content is not None]
    needed = {finding.row.mask for finding in findings if finding.row.split in splits_needed}
    if values is None:
        values, value_faults = resolve(contents, class_names)
    else:
        found = [check_values(content, values) for content in contents]
        value_faults = [fault for fault in found if fault is not None]
    faults.extend(fault for fault in value_faults if fault.file in needed or fault.code == "mask-mixed")
    checked = [finding for finding in findings if finding.row.split in splits_needed]
    if values is not None:
        shares, empty = _foreground(checked, values, splits_needed)
        clean = {split for split in splits_needed if manifest.select(split)} - {
            finding.row.split for finding in checked if finding.faults
        }
        if not value_faults:
            faults.extend(
                _no_foreground(split) for split in splits_needed if split in clean and not shares[split]
            )
    if faults or values is None:
        raise DataFaults(str(manifest.csv), faults)
    counts = Counter(row.split for row in manifest.rows)
    sizes = Counter(finding.size for finding in checked if finding.size is not None)
    return DataSummary(values, dict(counts), dict(sizes), shares, empty, manifest.notes)


def _given(
    mask_values: Mapping[Any, Any] | MaskValues | None, class_names: Sequence[str]
) -> MaskValues | None:
    if mask_values is None or isinstance(mask_values, MaskValues):
        return mask_values
    return MaskValues.from_mapping(mask_values, class_names)


def _look(
    manifest: Manifest,
    jobs: Sequence[tuple[Row, bool]],
    colours: bool,
    progress: bool,
    workers: int | None,
    max_pixels: int,
) -> Iterator[_Finding]:
    def look(job: tuple[Row, bool]) -> _Finding:
        return _look_at(manifest, *job, colours, max_pixels)

    workers = workers or min(os.cpu_count() or 1, 8)
    with ThreadPoolExecutor(workers) as pool:
        # map keeps the CSV's order, so that two runs say the same
        yield from tqdm(
            pool.map(look, jobs),
            total=len(jobs),
            desc="checking data",
            unit=" rows",
            file=sys.stderr,
            disable=not progress,
            leave=False,
        )


def _look_at(manifest: Manifest, row: Row, needed: bool, colours: bool, max_pixels: int) -> _Finding:
    faults: list[Fault] = []
    size = content = mask_size = None
    if needed:
        try:
            height, width = read_image(manifest.path(row.image), max_pixels).shape[:2]
            size = (height, width)
        except FaultError as error:
            faults.append(_relative(error.fault, row.image))
    if row.mask is None:
        faults.append(
            Fault("no-mask", row.image, "expected a mask, found none in the CSV", "Name it, or drop the row.")
        )
        return _Finding(row, size, None, tuple(faults))
    try:
        data = read_bytes(manifest.path(row.mask))
        raw, lossy = decode_mask_values(data, row.mask, max_pixels, colours)
        mask_size = (raw.shape[0], raw.shape[1])
        content = MaskContent(row.mask, count_values(raw), lossy)
    except FaultError as error:
        faults.append(_relative(error.fault, row.mask))
    if size and mask_size and size != mask_size:
        faults.append(_size_mismatch(row, size, mask_size))
    return _Finding(row, size, content, tuple(faults) if needed else ())


def _relative(fault: Fault, file: str) -> Fault:
    """The CSV's name for the file: short, and the one a person searches for."""
    return Fault(fault.code, file, fault.message, fault.fix)


def _size_mismatch(row: Row, size: tuple[int, int], mask_size: tuple[int, int]) -> Fault:
    turned = size == mask_size[::-1]
    return Fault(
        "size-mismatch",
        row.mask or "",
        f"expected {size[1]} x {size[0]} (width x height) like {row.image}, "
        f"found {mask_size[1]} x {mask_size[0]}",
        "One of the two is turned: their EXIF orientation tags differ; remove the tag or turn the mask."
        if turned
        else "Pair it with the right image, or export the mask at the image's size.",
    )


def _empty_split(split: str) -> Fault:
    return Fault(
        "split-empty",
        split,
        f"expected rows with split {split}, found none",
        "Set the split column, or split anew with nailseg index (--val, --test).",
    )


def _no_foreground(split: str) -> Fault:
    return Fault(
        "no-foreground",
        split,
        "expected masks with something but background, found none",
        "Check the masks and --data.mask_values.",
    )


def _foreground(
    findings: Sequence[_Finding], values: MaskValues, splits: Sequence[str]
) -> tuple[dict[str, float], dict[str, int]]:
    """Share of foreground pixels among those that count, and the number of masks without any, per split."""
    pixels, counted, empty = Counter[str](), Counter[str](), Counter[str]()
    for finding in findings:
        if finding.content is None:
            continue
        by_class = classes_of(finding.content, values)
        foreground = sum(count for index, count in by_class.items() if 0 < index < 254)
        pixels[finding.row.split] += foreground
        counted[finding.row.split] += foreground + by_class[0]
        empty[finding.row.split] += not foreground
    return {s: pixels[s] / max(counted[s], 1) for s in splits}, {s: empty[s] for s in splits}
