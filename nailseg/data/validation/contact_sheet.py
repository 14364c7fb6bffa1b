"""A data set as one image: thumbnails with the outlines of their masks, errors and outliers first."""

from __future__ import annotations

import cv2
import numpy as np

from nailseg.data.io.images import MAX_PIXELS, read_image
from nailseg.data.io.masks import read_mask
from nailseg.data.validation.scan import ScanResult
from nailseg.data.validation.statistics import compute_foreground_share, count_nails
from nailseg.data.validation.validate import ValidationResult
from nailseg.errors import DataError
from nailseg.imaging.overlay import concat_horizontal, concat_vertical, draw_overlay

TILE = 208
"""Pixels of a thumbnail's sides."""
TEXT = 34
"""Pixels of the caption's height."""
COLUMNS = 6


def draw_contact_sheet(result: ValidationResult, count: int = 48, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Draws the first `count` rows of `rank_scans`, 6 in a line; uint8 (H, W, 3), RGB."""
    tiles = [_draw_tile(result, scan, caption, max_pixels) for scan, caption in rank_scans(result)[:count]]
    tiles = tiles or [np.full((TILE + TEXT, TILE, 3), 255, np.uint8)]
    lines = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    return concat_vertical([concat_horizontal(line) for line in lines])


def rank_scans(result: ValidationResult) -> list[tuple[ScanResult, str]]:
    """Orders the checked rows: errors first, then warnings, then by distance from the median.

    The distance is in robust standard deviations, of the logarithm of the foreground or of the number of
    nails, whichever is larger.

    Returns:
        Each scan with a caption: the codes of its issues, or the distance.
    """
    scans = result.scans
    codes: dict[str, str] = {}  # file -> code of its first issue
    for issue in (*result.errors, *result.warnings):
        codes.setdefault(issue.file, issue.code)
    errors = {issue.file for issue in result.errors}
    distance = np.zeros(len(scans))
    if result.mask_encoding is not None and scans:
        shares = [compute_foreground_share(scan, result.mask_encoding) for scan in scans]
        nails = [count_nails(scan, result.mask_encoding) for scan in scans]
        for values in (np.log(np.nan_to_num(shares) + 1e-4), np.asarray(nails, float)):
            apart = np.abs(values - np.median(values))
            distance = np.maximum(distance, apart / (1.48 * np.median(apart) + 0.1))
    ranked = []
    for scan, own in zip(scans, distance.tolist(), strict=True):
        files = [file for file in (scan.row.image, scan.row.mask) if file in codes]
        level = 2 if not files else 1 if errors.isdisjoint(files) else 0
        caption = ", ".join(dict.fromkeys(codes[file] for file in files)) or f"{own:.1f} sd"
        ranked.append((level, -own, scan, caption))
    return [entry[2:] for entry in sorted(ranked, key=lambda entry: entry[:2])]


def _draw_tile(result: ValidationResult, scan: ScanResult, caption: str, max_pixels: int) -> np.ndarray:
    tile = np.full((TILE + TEXT, TILE, 3), 255, np.uint8)
    row, manifest = scan.row, result.manifest
    try:
        image = read_image(manifest.path(row.image), max_pixels)
        scale = TILE / max(image.shape[:2])
        size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        tile[: size[1], : size[0]] = image
        if row.mask and result.mask_encoding is not None:
            mask = read_mask(manifest.path(row.mask), result.mask_encoding, max_pixels)
            mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
            tile[: size[1], : size[0]] = draw_overlay(image, mask, 0.35)
    except DataError:
        pass  # the caption names the error
    for line, text in enumerate((caption, row.image)):
        cv2.putText(tile, text[-34:], (2, TILE + 13 + 15 * line), 0, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    return tile
