"""Rules that need more than one file: encodings of masks, classes of splits, copies and groups in two splits.

Each rule yields issues, errors and warnings alike; the code says which (see `data.issues`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nailseg.data.assign import SPLITS
from nailseg.data.io.levels import ImageRange, find_lost_levels
from nailseg.data.issues import WARNINGS, Issue
from nailseg.data.manifest import Manifest, Row, find_group_splits
from nailseg.data.mask_content import count_classes, count_foreground
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.splitting.near_duplicates import DuplicatePair
from nailseg.data.validation.scan import ScanResult

MAX_FOREGROUND = 0.5  # if more of an image and of its border is foreground, the mask is probably inverted
# with fewer rows there is little to train on, or a metric means little
MIN_ROWS = {"train": 20, "val": 5, "test": 5}
SPLIT_AGAIN = "Split again with nailseg index, or leave these rows out (--skip-bad)."


def check_needed_splits(manifest: Manifest, needed: Sequence[str]) -> Iterator[Issue]:
    """Finds needed splits without rows."""
    for split in needed:
        if not manifest.select(split):
            fix = "Set the split column, or split again with nailseg index (--val, --test)."
            yield Issue("split-empty", split, f"expected rows with split {split}, found none", fix)


def check_levels(csv: str, scans: Sequence[ScanResult], image_range: ImageRange | None) -> Iterator[Issue]:
    """Finds 16-bit images that lose most of their gray levels, as a set: a dim one among others does not."""
    samples = [scan.values for scan in scans if scan.values is not None]
    if found := find_lost_levels(samples, image_range):
        fix = "Scale by the set's own range: --data.image_range percentile, or two values: '[7600,8110]'."
        yield Issue("image-range", csv, found, fix)


def check_masks(scans: Sequence[ScanResult], encoding: MaskEncoding) -> Iterator[Issue]:
    """Finds unusual masks; the values of all of them have a class."""
    for scan in scans:
        content = scan.content
        classes = count_classes(content, encoding)
        border = count_classes(replace(content, counts=scan.border), encoding)
        share = count_foreground(classes) / max(classes.total(), 1)
        border_share = count_foreground(border) / max(border.total(), 1)
        two_classes = len(encoding.class_names) == 2  # with more, images without background are common
        if share == 0:
            message = "expected some foreground, found none"
            yield content.issue(
                message, "Draw what the image shows; an image without any object may stay so.", "mask-empty"
            )
        elif two_classes and share == 1:
            message = f"expected some {encoding.class_names[0]}, found foreground only"
            yield content.issue(message, "Redraw it, or remove the row from the CSV.", "mask-full")
        elif two_classes and min(share, border_share) > MAX_FOREGROUND:
            found = f"found it on {share:.0%}, and on {border_share:.0%} of its border"
            message = f"expected foreground on less than half of the image, {found}"
            fix = "Invert the mask, or name what the values mean (--data.mask_values)."
            yield content.issue(message, fix, "mask-inverted")
        grey = encoding.antialiased and not content.lossy and not content.counts.keys() <= {0, 255}
        code = "mask-antialiased" if grey else f"mask-{scan.storage}"
        if code in WARNINGS and not encoding.has_colors:
            message = f"expected an 8-bit grey PNG, found {WARNINGS[code]}"
            yield content.issue(message, "nailseg check --write-clean writes plain copies.", code)


def check_splits(scans: Sequence[ScanResult], encoding: MaskEncoding, splits: list[str]) -> Iterator[Issue]:
    """Finds missing classes and small splits; `splits` are those of which every mask could be read."""
    pixels = {split: Counter[int]() for split in SPLITS}
    for scan in scans:
        pixels[scan.row.split].update(count_classes(scan.content, encoding))
    rows = Counter(scan.row.split for scan in scans)
    fix = "Check the masks and --data.mask_values"
    empty = [split for split in splits if not count_foreground(pixels[split])]
    for split in empty:
        yield Issue("no-foreground", split, "expected masks with foreground, found none", f"{fix}.")
    # with two classes, a missing class is `no-foreground` or `mask-full`
    for index, name in enumerate(encoding.class_names):
        containing = [split for split in splits if pixels[split][index]]
        if index == 0 or empty or len(encoding.class_names) == 2 or len(containing) == len(splits):
            continue
        if not containing:
            message = f"expected pixels of class {name}, found none in {', '.join(splits)}"
            yield Issue("class-missing", name, message, f"{fix}, or shorten --data.classes.")
        elif len(containing) == 1:
            message = f"expected class {name} in every split, found it in {containing[0]} only"
            yield Issue("class-one-split", name, message, "Split again with nailseg index.")
    for split in splits:
        if rows[split] < MIN_ROWS[split]:
            message = f"expected {MIN_ROWS[split]} rows or more, found {rows[split]}"
            yield Issue("few-rows", split, message, "Add images, or expect wide intervals of the metrics.")


def check_duplicates(pairs: Sequence[DuplicatePair], splits: dict[str, str]) -> Iterator[Issue]:
    """Finds copies among the images of `splits` (image -> split).

    An issue names the copy nearer to training, so that `--skip-bad` keeps the test rows.
    """
    for first, second, exact in pairs:
        if first not in splits or second not in splits:
            continue
        if splits[first] != splits[second]:
            trained, measured = sorted((first, second), key=lambda image: SPLITS.index(splits[image]))
            code = "duplicate-split" if exact else "near-duplicate-split"
            found = f"{'the same image' if exact else 'a near-duplicate'} in {splits[measured]}: {measured}"
            message = f"expected a {splits[trained]} image that no other split contains, found {found}"
            yield Issue(code, trained, message, SPLIT_AGAIN)
        elif exact:
            message = f"expected each image once, found the same bytes as {first}"
            yield Issue("duplicate-image", second, message, "Delete one of the two rows.")


def check_groups(rows: Sequence[Row]) -> Iterator[Issue]:
    """Finds groups in several splits: one issue per row that is not in the split nearest to the test."""
    splits = find_group_splits(rows)
    for row in rows:
        last = max(splits[row.group], key=SPLITS.index)
        if row.split != last:
            message = f"expected group {row.group} in one split, found it in {row.split} and {last}"
            yield Issue("group-split", row.image, message, SPLIT_AGAIN)
