"""Compares `--data.resize crop` with scaling on drawn scenes of 3000 x 4000 pixels with many small hands.

    python experiments/crop_or_scale.py OUT [--steps 240]
        (OUT: a folder; what exists in it is kept)

Each scene has some 60 hands of 160 to 260 pixels, whose nails are 6 to 15 pixels wide. Both runs start from
nailseg-b0 and take equally many steps of equal size; they differ in --data.resize alone.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from nailseg import train
from nailseg.data.synthetic.hand import Light, paint_hand, place_hand, pose_hand
from nailseg.data.synthetic.sample import POLISH, SKIN, background, photograph, random_color

HEIGHT, WIDTH, CELL = 3000, 4000, 330
SPLITS = {"train": 16, "val": 4, "test": 8}


def draw_scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws hands in about half of the cells of a grid: uint8 (H, W, 3) RGB, and uint8 (H, W), 0 or 255."""
    rng = np.random.default_rng(seed)
    small = background(rng, (HEIGHT // 4, WIDTH // 4))
    image = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for top in range(0, HEIGHT - CELL, CELL):
        for left in range(0, WIDTH - CELL, CELL):
            if rng.random() < 0.5:
                continue
            margin = rng.uniform(35, 85)
            box = np.array([(margin, margin), (CELL - margin, CELL - margin)])
            fingers = tuple(range(int(rng.integers(0, 2)), int(rng.integers(3, 6))))
            limbs = place_hand(rng, pose_hand(rng, "back", fingers), box, 0.2 * CELL, 1.5)
            polish = None if rng.random() < 0.2 else random_color(rng, POLISH)
            color, cover, nails = paint_hand(
                rng, limbs, (CELL, CELL), random_color(rng, SKIN), polish, Light(rng)
            )
            cell = np.s_[top : top + CELL, left : left + CELL]
            image[cell] = image[cell] * (1 - cover)[..., None] + color
            mask[cell] = (nails >= 0.5).any(0) * np.uint8(255)
    return photograph(rng, image), mask


def write_scenes(folder: Path) -> Path:
    """Writes images, masks and the CSV, and returns the CSV."""
    lines, splits = ["image,mask,split"], [name for name, count in SPLITS.items() for _ in range(count)]
    for name in ("Images", "Masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed, split in enumerate(tqdm(splits, desc="drawing", unit="scene")):
        if not (folder / f"Masks/{seed}.png").exists():
            image, mask = draw_scene(seed)
            cv2.imwrite(str(folder / f"Images/{seed}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            cv2.imwrite(str(folder / f"Masks/{seed}.png"), mask)
        lines.append(f"Images/{seed}.jpg,Masks/{seed}.png,{split}")
    (folder / "scenes.csv").write_text("\n".join(lines) + "\n")
    return folder / "scenes.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=240)
    options = parser.parse_args()
    csv = write_scenes(options.out)
    for name, own in {
        "keep-512": ["--data.resize=keep", "--data.size=512", "--data.batch_size=2"],
        "keep-256": ["--data.resize=keep", "--data.size=256"],
        "crop-256": ["--data.resize=crop", "--data.size=256"],
    }.items():
        run = options.out / "runs" / name
        if not (run / "test" / "metrics.json").exists():
            args = [f"--data.csv={csv}", f"--runs={options.out / 'runs'}", f"--name={name}"]
            args += ["--model.weights=nailseg-b0", "--model.lr=3e-4", "--model.head_lr_multiplier=1"]
            args += ["--data.batch_size=8", f"--trainer.max_steps={options.steps}", "--trainer.logger=false"]
            args += [
                f"--trainer.val_check_interval={options.steps}",
                "--trainer.check_val_every_n_epoch=null",
            ]
            assert train.main([*args, *own]) == 0
        found = json.loads((run / "test" / "metrics.json").read_text())
        print(f"| {name} | {found['dice_nail']:.3f} | {found['ap50_nail']:.3f} |")


if __name__ == "__main__":
    main()
