"""Draws the test images with the most wrong pixels: ground truth against prediction, position and Dice.

python experiments/worst.py runs/NAME/test/per_image.csv ROOT MODEL OUT.png [--count 50]
"""

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np

import nailseg
from nailseg.data.io.images import read_image
from nailseg.evaluation.html import paint_errors
from nailseg.imaging.overlay import concat_horizontal, concat_vertical, write_png

SIDE = 216


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("csv", "root", "model", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    with options.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # by wrong pixels, not by Dice: one small missed nail can give a Dice of 0
    rows.sort(key=lambda r: -(int(r["false_alarms_nail"]) + int(r["misses_nail"])))
    segment = nailseg.load(options.model)
    tiles = []
    for position, row in enumerate(rows[: options.count]):
        image = read_image(options.root / row["image"])
        truth = read_image(options.root / row["mask"])[..., 0] > 127
        painted = paint_errors(image, truth.astype(np.uint8), segment(image).mask)
        tile = np.hstack(
            [cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in (image, painted)]
        )
        text = f"{position} {Path(row['image']).parent.name}/{row['dice_nail'][:5] or 'no nail'}"
        cv2.putText(tile, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 0), 1, cv2.LINE_AA)
        tiles.append(tile)
    lines = [concat_horizontal(tiles[n : n + 5]) for n in range(0, len(tiles), 5)]
    write_png(options.out, concat_vertical(lines))


if __name__ == "__main__":
    main()
