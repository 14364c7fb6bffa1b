"""`nailseg check`: everything that is wrong with a data set, what it is made of, and its clean copy."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from nailseg.data.io.images import MAX_PIXELS
from nailseg.data.issues import format_issues
from nailseg.data.manifest import load_manifest
from nailseg.data.validation.clean_copy import write_clean
from nailseg.data.validation.contact_sheet import draw_sheet
from nailseg.data.validation.issues import write_remaining
from nailseg.data.validation.statistics import as_table, fingerprint
from nailseg.data.validation.validate import FIT_SPLITS, ValidationResult, validate_rows
from nailseg.errors import ConfigError, OutputError
from nailseg.imaging.overlay import write_png
from nailseg.types import DEFAULT_CLASSES, check_class_names

NEEDED = {"fit": FIT_SPLITS, "validate": ("val",), "test": ("test",)}
NOT_FOUND_OUT = "expected one reading of all masks, found several: see the faults"


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
    clean: str | None = None,
    sheet: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Looks at a data set as a command would, and prints what it sees.

    Args:
        csv: the CSV.
        root: folder its paths start from; its own by default.
        classes: names by class index.
        mask_values: what file values mean; found out by default.
        command: fit, validate or test: whose needs to check. For fit the test rows are looked at too, if any.
        allow: codes that pass.
        skip_bad: leave out rows that a fault names.
        as_json: print JSON instead of text.
        clean: a new folder for a clean copy.
        sheet: a new PNG for the contact sheet.
        max_pixels: limit on an image's height times width.

    Returns:
        0 clean or odd only, 1 faults.

    Raises:
        NailsegError: the CSV or an option cannot be read, or something would be overwritten.
    """
    if sheet and not sheet.lower().endswith(".png"):
        raise ConfigError(f"--sheet {sheet}: expected a name that ends in .png. Choose another.")
    if sheet and os.path.exists(sheet):
        raise OutputError(f"{sheet}: expected a new file, found an old one. Move it away or name another.")
    manifest = load_manifest(csv, root, strict=False)
    needed = NEEDED[command]
    if command == "fit" and manifest.select("test"):
        needed = (*needed, "test")
    names = tuple(check_class_names(classes, "--classes"))
    seen = validate_rows(
        manifest, names, mask_values, needed, max_pixels=max_pixels, allow=allow, skip_bad=skip_bad
    )
    told = fingerprint(seen.findings, seen.values) if seen.values else {}
    print(json.dumps(_plain(seen, told, allow), indent=1) if as_json else _text(seen, told))
    if sheet:
        write_png(sheet, draw_sheet(seen, max_pixels=max_pixels))
    if clean:
        write_clean(seen, clean, max_pixels)
    return int(bool(seen.faults))


def _plain(seen: ValidationResult, told: dict[str, Any], allow: Sequence[str]) -> dict[str, Any]:
    return {
        "csv": str(seen.manifest.csv),
        "checked": list(seen.checked),
        "faults": [asdict(fault) for fault in seen.faults],
        "oddities": [asdict(fault) for fault in seen.odd],
        "left_out": [asdict(fault) for fault in seen.left_out],
        "allowed": sorted(allow),
        "mask_values": seen.values.to_dict() if seen.values else None,
        "notes": list(seen.manifest.notes),
        "fingerprint": told,
    }


def _text(seen: ValidationResult, told: dict[str, Any]) -> str:
    parts = [f"masks: {seen.values.describe() if seen.values else NOT_FOUND_OUT}", *seen.manifest.notes]
    if told:
        parts.append("\n" + as_table(told) + "\n")
    for title, faults in (("left out", seen.left_out), ("odd", seen.odd), ("faults", seen.faults)):
        if faults:
            parts.append(f"{title}: {len(faults)}\n{format_issues(faults)}")
            rest = write_remaining(faults)
            if rest:
                parts.append(f"All of them: {rest}")
    if not seen.faults:
        parts.append(f"{seen.manifest.csv}: no faults")
    return "\n".join(parts)
