"""Draws the README's picture from photographs of the test part: photograph, ground truth, prediction, try-on.

python experiments/readme_picture.py ROOT OUT.jpg [--model MODEL] [--names 3/583 3/683]
"""

import argparse
from pathlib import Path

import nailseg
from nailseg.data.io.masks import read_mask
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.imaging import recolor
from nailseg.imaging.overlay import concat_horizontal, concat_vertical, draw_overlay, encode_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="nailseg-lite0")
    parser.add_argument("--names", nargs="+", default=["3/583", "3/683"])
    options = parser.parse_args()
    segment = nailseg.load(options.model)
    encoding = MaskEncoding(((0, 0), (255, 1)), segment.class_names)
    rows = []
    for name in options.names:
        result = segment(options.root / f"Images/{name}.jpg")
        truth = read_mask(options.root / f"Masks/{name}.png", encoding)
        coverage = recolor.compute_coverage(result.mask, result.foreground_probability())
        polished = recolor.recolor(result.image, coverage, recolor.parse_color("crimson"))
        rows.append(
            concat_horizontal([result.image, draw_overlay(result.image, truth), result.overlay(), polished])
        )
    options.out.write_bytes(encode_image(concat_vertical(rows), ".jpg"))


if __name__ == "__main__":
    main()
