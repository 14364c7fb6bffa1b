"""`nailseg check`: lists all issues of a data set with its statistics, and can write a clean copy."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from nailseg.data.io.images import MAX_PIXELS
from nailseg.data.io.levels import RangeOption
from nailseg.data.issues import list_issues
from nailseg.data.manifest import load_manifest
from nailseg.data.validation.clean_copy import write_clean_copy
from nailseg.data.validation.contact_sheet import draw_contact_sheet
from nailseg.data.validation.statistics import Statistics, compute_statistics, format_statistics
from nailseg.data.validation.validate import FIT_SPLITS, ValidationResult, validate_rows
from nailseg.errors import ConfigError, OutputError, name_own_options
from nailseg.imaging.overlay import write_png
from nailseg.types import DEFAULT_CLASSES, check_class_names, split_class_names


def validate_dataset(
    csv: str,
    /,
    *,
    root: str | None = None,
    classes: Sequence[str] = DEFAULT_CLASSES,
    mask_values: dict[str, str] | None = None,
    command: Literal["fit", "validate", "test"] = "fit",
    allow: Sequence[str] = (),
    skip_bad: bool = False,
    as_json: bool = False,
    write_clean: str | None = None,
    sheet: str | None = None,
    max_pixels: int = MAX_PIXELS,
    image_range: RangeOption = "full",
) -> int:
    """Validates a data set and prints its statistics and its issues, each with its fix.

    Args:
        csv: The CSV of the data set.
        root: Folder that the CSV's paths are relative to; by default the CSV's own.
        classes: Names of the classes in the order of their indices; the first is the background.
        mask_values: Class of each value or color in mask files, as JSON: {"0": "background", "255": "nail"};
            by default inferred from the whole data set.
        command: Check the splits that this command reads; for fit, the test rows too if there are any.
        allow: Codes of issues to accept, as they are printed; unusable rows are left out.
        skip_bad: Leave out every row with an error.
        as_json: Print JSON instead of text.
        write_clean: New folder for a clean copy: the valid rows, masks as class indices.
        sheet: New PNG file for a contact sheet: thumbnails with outlines, errors and outliers first.
        image_range: The 16-bit values that become 0 and 255: full, percentile (of training images), or two.
        max_pixels: Most pixels (height times width) an image may have.

    Returns:
        0 without errors, 1 with errors; warnings do not count.

    Raises:
        NailsegError: The CSV or an option is invalid, or something would be overwritten.
    """
    if sheet and not sheet.lower().endswith(".png"):
        raise ConfigError(f"--sheet {sheet}: expected a name that ends in .png. Choose another.")
    if sheet and os.path.exists(sheet):
        raise OutputError(f"{sheet}: expected a new file, found an existing one. Move it, or choose another.")
    manifest = load_manifest(csv, root, strict=False)
    splits = {"fit": FIT_SPLITS, "validate": ("val",), "test": ("test",)}[command]
    if command == "fit" and manifest.select("test"):
        splits = (*splits, "test")
    names = check_class_names(split_class_names(classes), "--classes")
    options = {"max_pixels": max_pixels, "allow": allow, "skip_bad": skip_bad, "image_range": image_range}
    result = validate_rows(manifest, names, mask_values, splits, **options)
    statistics = compute_statistics(result.scans, result.mask_encoding) if result.mask_encoding else {}
    text = _to_json(result, statistics, allow) if as_json else _to_text(result, statistics)
    print(name_own_options(text, validate_dataset))
    if sheet:
        write_png(sheet, draw_contact_sheet(result, max_pixels))
    if write_clean:
        write_clean_copy(result, write_clean, max_pixels)
    return int(bool(result.errors))


def _to_json(result: ValidationResult, statistics: Statistics, allow: Sequence[str]) -> str:
    content = {
        "csv": str(result.manifest.csv),
        "checked": result.splits,
        "errors": [asdict(issue) for issue in result.errors],
        "warnings": [asdict(issue) for issue in result.warnings],
        "left_out": [asdict(issue) for issue in result.skipped],
        "allowed": sorted(allow),
        "mask_encoding": result.mask_encoding.to_dict() if result.mask_encoding else None,
        "notes": result.manifest.notes,
        "statistics": statistics,
    }
    return json.dumps(content, indent=1)


def _to_text(result: ValidationResult, statistics: Statistics) -> str:
    encoding = result.mask_encoding
    meaning = encoding.describe() if encoding else "no encoding fits all: see the errors"
    parts = [f"masks: {meaning}", *result.manifest.notes]
    if statistics:
        parts.append(f"\n{format_statistics(statistics)}\n")
    titles = {"left out": result.skipped, "warnings": result.warnings, "errors": result.errors}
    parts += [f"{title}: {len(issues)}\n{list_issues(issues)}" for title, issues in titles.items() if issues]
    if not result.errors:
        parts.append(f"{result.manifest.csv}: no errors")
    return "\n".join(parts)
