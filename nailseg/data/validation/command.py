"""`nailseg check`: lists all issues of a data set with its statistics, and can write a clean copy."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from nailseg.data.io.images import MAX_PIXELS
from nailseg.data.issues import list_issues
from nailseg.data.manifest import load_manifest
from nailseg.data.validation.clean_copy import write_clean_copy
from nailseg.data.validation.contact_sheet import draw_contact_sheet
from nailseg.data.validation.statistics import Statistics, compute_statistics, format_statistics
from nailseg.data.validation.validate import FIT_SPLITS, ValidationResult, validate_rows
from nailseg.errors import ConfigError, OutputError
from nailseg.imaging.overlay import write_png
from nailseg.types import DEFAULT_CLASSES, check_class_names


def validate_dataset(
    csv: str,
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
) -> int:
    """Validates a data set as a command would, and prints its issues and statistics.

    Args:
        csv: the CSV of the data set.
        root: folder its paths are relative to; its own folder by default.
        classes: names by class index, the first is background.
        mask_values: class of each file value or color, as JSON like {"0": "background", "255": "nail"};
            inferred by default.
        command: the command whose splits are checked. For fit, the test rows are checked too, if any.
        allow: codes of errors that are ignored; rows that cannot be used are left out.
        skip_bad: leave out rows that an error names.
        as_json: print JSON instead of text.
        write_clean: a new folder for a clean copy: valid rows, masks as class indices.
        sheet: a new PNG for the contact sheet: thumbnails with outlines, errors and outliers first.
        max_pixels: limit on an image's height times width.

    Returns:
        0 without errors, 1 with errors; warnings do not count.

    Raises:
        NailsegError: the CSV or an option is invalid, or something would be overwritten.
    """
    if sheet and not sheet.lower().endswith(".png"):
        raise ConfigError(f"--sheet {sheet}: expected a name that ends in .png. Choose another.")
    if sheet and os.path.exists(sheet):
        raise OutputError(f"{sheet}: expected a new file, found an existing one. Move it, or choose another.")
    manifest = load_manifest(csv, root, strict=False)
    splits = {"fit": FIT_SPLITS, "validate": ("val",), "test": ("test",)}[command]
    if command == "fit" and manifest.select("test"):
        splits = (*splits, "test")
    names = check_class_names(classes, "--classes")
    options = {"max_pixels": max_pixels, "allow": allow, "skip_bad": skip_bad}
    result = validate_rows(manifest, names, mask_values, splits, **options)
    statistics = compute_statistics(result.scans, result.mask_encoding) if result.mask_encoding else {}
    print(_to_json(result, statistics, allow) if as_json else _to_text(result, statistics))
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
    parts = [f"masks: {encoding.describe() if encoding else 'several encodings: see the errors'}"]
    parts += result.manifest.notes
    if statistics:
        parts.append(f"\n{format_statistics(statistics)}\n")
    titles = {"left out": result.skipped, "warnings": result.warnings, "errors": result.errors}
    parts += [f"{title}: {len(issues)}\n{list_issues(issues)}" for title, issues in titles.items() if issues]
    if not result.errors:
        parts.append(f"{result.manifest.csv}: no errors")
    return "\n".join(parts)
