"""A data set as one image: outlines over thumbnails, worst suspects first."""

from __future__ import annotations

import cv2
import numpy as np

from nailseg.data.io.images import MAX_PIXELS, read_image
from nailseg.data.io.masks import read_mask
from nailseg.data.validation.scan import ScanResult
from nailseg.data.validation.statistics import count_nails, foreground_share
from nailseg.data.validation.validate import ValidationResult
from nailseg.errors import DataError
from nailseg.imaging.overlay import concat_horizontal, concat_vertical, draw_overlay

TILE = 208
TEXT = 34
PER_ROW = 6


def suspects(seen: ValidationResult) -> list[tuple[ScanResult, str]]:
    """Rows with a word on each: faults, then oddities, then the least usual ones.

    Unusual is how far, in robust standard deviations, the foreground's logarithm and the number of nails lie
    from the set's middle.
    """
    reason: dict[str, str] = {}
    for fault in (*seen.odd[::-1], *seen.faults[::-1]):
        reason[fault.file] = fault.code
    faulty = {fault.file for fault in seen.faults}
    strange = np.zeros(len(seen.findings))
    if seen.values is not None:
        shares = [foreground_share(finding, seen.values) for finding in seen.findings]
        nails = [count_nails(finding, seen.values) for finding in seen.findings]
        for numbers in (np.log(np.nan_to_num(shares) + 1e-4), np.asarray(nails, float)):
            apart = np.abs(numbers - np.median(numbers)) if len(numbers) else numbers
            strange = np.maximum(strange, apart / (1.48 * np.median(apart) + 0.1) if len(apart) else 0)

    def rank(place: int) -> tuple[int, float]:
        files = {seen.findings[place].row.image, seen.findings[place].row.mask}
        return (0 if files & faulty else 1 if files & reason.keys() else 2), -float(strange[place])

    ordered = []
    for place in sorted(range(len(seen.findings)), key=rank):
        row = seen.findings[place].row
        said = [reason[file] for file in (row.image, row.mask) if file in reason]
        ordered.append((seen.findings[place], ", ".join(dict.fromkeys(said)) or f"{strange[place]:.1f} sd"))
    return ordered


def draw_sheet(seen: ValidationResult, count: int = 48, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Draws the first `count` suspects, 6 in a row; uint8 (H, W, 3), RGB."""
    tiles = [_tile(seen, finding, word, max_pixels) for finding, word in suspects(seen)[:count]]
    if not tiles:
        tiles = [np.full((TILE + TEXT, TILE, 3), 255, np.uint8)]
    rows = [tiles[start : start + PER_ROW] for start in range(0, len(tiles), PER_ROW)]
    return concat_vertical([concat_horizontal(row) for row in rows])


def _tile(seen: ValidationResult, finding: ScanResult, word: str, max_pixels: int) -> np.ndarray:
    tile = np.full((TILE + TEXT, TILE, 3), 255, np.uint8)
    row, manifest = finding.row, seen.manifest
    try:
        picture = read_image(manifest.path(row.image), max_pixels)
        scale = TILE / max(picture.shape[:2])
        size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        tile[: size[1], : size[0]] = picture
        if row.mask and seen.values is not None:
            mask = read_mask(manifest.path(row.mask), seen.values, max_pixels)
            mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
            tile[: size[1], : size[0]] = draw_overlay(picture, mask, 0.35)
    except DataError:
        pass  # its fault is written below
    for line, text in enumerate((word, row.image)):
        cv2.putText(tile, text[-34:], (2, TILE + 13 + 15 * line), 0, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    return tile
