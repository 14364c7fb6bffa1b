"""Dice by skin tone and by polish, estimated from the photographs of a test.

    python experiments/skin_slices.py runs/NAME/test/per_image.csv ROOT

Skin tone: the individual typology angle (Chardon et al. 1991), atan((L* - 50) / b*) in degrees, of the
median colour in a ring around the labelled nails, where skin is expected. Its usual classes: very light >
55, light > 41, intermediate > 28, tan > 10, brown > -30, dark. Light and white balance of the photograph
change it: the estimate orders images and is not a measurement of people. The tone is undetermined if the
ring's colour is not a skin colour (b* below 4 or a* below 0: a colour cast, a glove, a toy). Polish: the
nails' median colour differs from the ring's by more than 25 (CIE 1976 colour difference), or by less but
with a hue difference above 40 degrees.
"""

import argparse
import csv
import math
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from nailseg.data.io.images import read_image

TONES = ((55, "very light"), (41, "light"), (28, "intermediate"), (10, "tan"), (-30, "brown"), (-90, "dark"))
DIFFERENT, OTHER_HUE = 25.0, 40.0


def skin_and_nail(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Median L*, a*, b* of the ring around the nails and of the nails.

    Args:
        image: uint8 (H, W, 3), RGB.
        mask: bool (H, W), True on nails.

    Returns:
        Two float arrays (3,), L* 0..100; None without nails or without a ring.
    """
    if not mask.any():
        return None
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    side = max(3, round(math.sqrt(mask.sum()) / 4))
    dilated = [
        cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (r, r))) > 0
        for r in (side // 3 * 2 + 1, 2 * side + 1)
    ]
    ring = dilated[1] & ~dilated[0]
    return (np.median(lab[ring], axis=0), np.median(lab[mask], axis=0)) if ring.any() else None


def tone(skin: np.ndarray) -> str:
    """Returns the class of the individual typology angle of an L*, a*, b* colour."""
    if skin[1] < 0 or skin[2] < 4:
        return "undetermined"
    angle = math.degrees(math.atan2(skin[0] - 50, skin[2]))
    return next((name for limit, name in TONES if angle > limit), "dark")


def polished(skin: np.ndarray, nail: np.ndarray) -> bool:
    """Returns whether the nail's colour differs from that of a bare nail."""
    hues = np.degrees(np.arctan2([skin[2], nail[2]], [skin[1], nail[1]]))
    turn = abs((hues[1] - hues[0] + 180) % 360 - 180)
    colourful = math.hypot(nail[1], nail[2]) > 12
    return bool(np.linalg.norm(nail - skin) > DIFFERENT or (colourful and turn > OTHER_HUE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("csv", type=Path, help="per_image.csv of a test")
    parser.add_argument("root", type=Path, help="folder that its paths are relative to")
    options = parser.parse_args()
    slices: dict[str, list[dict[str, str]]] = defaultdict(list)
    with options.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        mask = read_image(options.root / row["mask"])[..., 0] > 127
        if (colours := skin_and_nail(read_image(options.root / row["image"]), mask)) is None:
            slices["no nail labelled"].append(row)
            continue
        slices[f"skin {tone(colours[0])}"].append(row)
        slices["polish" if polished(*colours) else "bare"].append(row)
    order = (
        [f"skin {name}" for _, name in TONES] + ["skin undetermined"] + ["polish", "bare", "no nail labelled"]
    )
    print("| slice | images | Dice | Dice per image |\n| --- | --- | --- | --- |")
    for name in order:
        if own := slices[name]:
            hits, wrong, missed = (
                sum(int(r[f"{kind}_nail"]) for r in own) for kind in ("hits", "false_alarms", "misses")
            )
            each = [float(r["dice_nail"]) for r in own if r["dice_nail"]]
            mean = f"{np.mean(each):.3f}" if each else ""
            print(f"| {name} | {len(own)} | {2 * hits / max(1, 2 * hits + wrong + missed):.3f} | {mean} |")


if __name__ == "__main__":
    main()
