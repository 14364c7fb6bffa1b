"""A data set as one image: thumbnails with the outlines of their masks, errors and outliers first."""

import cv2
import numpy as np

from nailseg.data.io.images import read_image
from nailseg.data.io.masks import read_mask
from nailseg.data.validation.scan import ScanResult
from nailseg.data.validation.statistics import tabulate_scans
from nailseg.data.validation.validate import ValidationResult
from nailseg.errors import DataError
from nailseg.imaging.overlay import concat_horizontal, concat_vertical, draw_overlay

TILE = 208  # pixels of a thumbnail's sides
TEXT = 34  # pixels of the caption's height
COLUMNS = 6
MAX_TILES = 48


def draw_contact_sheet(result: ValidationResult, max_pixels: int) -> np.ndarray:
    """Draws 48 checked rows, 6 in a line: errors first, then warnings, then by distance from the median.

    The distance is in robust standard deviations, of the logarithm of the foreground or of the number of
    objects, whichever is larger. A caption has the codes of the row's issues, or the distance.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    first = {issue.file: issue for issue in reversed(result.errors + result.warnings)}
    distance = np.zeros(len(result.scans))
    if result.mask_encoding is not None:
        table = tabulate_scans(result.scans, result.mask_encoding)
        for values in (np.log(table["foreground"].fillna(0) + 1e-4), table["objects"]):
            apart = (values - values.median()).abs()
            distance = np.maximum(distance, apart / (1.48 * apart.median() + 0.1))
    ranked = []
    for scan, own in zip(result.scans, distance, strict=True):
        issues = [first[file] for file in (scan.row.image, scan.row.mask) if file in first]
        level = min(("error", "warning").index(issue.severity) for issue in issues) if issues else 2
        caption = ", ".join(dict.fromkeys(issue.code for issue in issues)) or f"{own:.1f} sd"
        ranked.append((level, -own, scan, caption))
    ranked.sort(key=lambda entry: entry[:2])
    tiles = [_draw_tile(result, scan, caption, max_pixels) for _, _, scan, caption in ranked[:MAX_TILES]]
    tiles = tiles or [np.full((TILE + TEXT, TILE, 3), 255, np.uint8)]
    lines = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    return concat_vertical([concat_horizontal(line) for line in lines])


def _draw_tile(result: ValidationResult, scan: ScanResult, caption: str, max_pixels: int) -> np.ndarray:
    tile = np.full((TILE + TEXT, TILE, 3), 255, np.uint8)
    row, manifest = scan.row, result.manifest
    try:
        image = read_image(manifest.path(row.image), max_pixels, result.image_range)
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
