"""Fine-tunes nailseg-b0 and random weights on 20, 50 or 200 images with a domain shift.

    python experiments/finetune_small.py ROOT OUT
        (ROOT: the photographs; OUT: a folder; an existing one is resumed)

The images are from the val and test parts, which nailseg-b0 was not trained on. The domain shift: hue
rotated by 120 degrees, half the size, strong JPEG compression. Three seeds choose the images and their
order.
"""

import argparse
import csv
import json
import random
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np

from nailseg import train
from nailseg.cli.main import main as nailseg
from nailseg.data.io.images import read_image

SPLIT = Path(__file__).parent / "nailseg_b0_split.csv"
SIZES = (20, 50, 200)
STARTS = {"nailseg-b0": [], "random weights": ["--model.weights=b0-random", "--model.lr=1e-3"]}
TESTED = 135  # of the test part, every other image


def shift_domain(image: np.ndarray) -> np.ndarray:
    """Rotates the hue and halves the size of an image; uint8 (H, W, 3) both."""
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + 60) % 180  # OpenCV counts hue in steps of two degrees
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def write_shifted_images(root: Path, out: Path) -> dict[str, list[str]]:
    """Writes images and masks with the domain shift; returns their paths by split."""
    with SPLIT.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "train"]
    parts: dict[str, list[str]] = {"val": [], "test": []}
    for row in rows:
        parts[row["split"]].append(row["image"])
        target, mask = out / row["image"], out / row["mask"]
        if mask.exists():
            continue
        for path in (target, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        shifted = shift_domain(read_image(root / row["image"]))
        cv2.imwrite(str(target), shifted[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
        truth = read_image(root / row["mask"])[..., 0]
        cv2.imwrite(str(mask), cv2.resize(truth, shifted.shape[1::-1], interpolation=cv2.INTER_NEAREST))
    return parts | {"test": parts["test"][::2][:TESTED]}


def write_manifest(path: Path, parts: dict[str, list[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mask", "split", "group"])
        for split, images in parts.items():
            for image in images:
                mask = Path("Masks", *Path(image).parts[1:]).with_suffix(".png").as_posix()
                writer.writerow([image, mask, split, image])


def read_metrics(run: Path) -> dict[str, float]:
    return json.loads((run / "test" / "metrics.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    out, seeds = options.out, options.seeds
    parts = write_shifted_images(options.root, out)
    write_manifest(out / "test.csv", {"test": parts["test"]})
    if not (out / "runs" / "before").exists():
        before = ["--model.weights=nailseg-b0", f"--data.csv={out / 'test.csv'}", f"--runs={out / 'runs'}"]
        assert nailseg(["test", *before, "--name=before"]) == 0
    results = {}
    for seed in seeds:
        order = random.Random(seed).sample(parts["val"], len(parts["val"]))
        for size in SIZES:
            path = out / f"{size}-{seed}.csv"
            write_manifest(path, {"train": order[:size], "val": order[200:240], "test": parts["test"]})
            for start, own in STARTS.items():
                name = f"{start.split()[0]}-{size}-{seed}"
                common = [f"--data.csv={path}", f"--runs={out / 'runs'}", f"--name={name}", *own]
                done = out / "runs" / name
                if not (done / "test" / "metrics.json").exists():
                    args = ["--config=finetune_small.yaml", *common, f"--seed_everything={seed}"]
                    # training and validation rows are both from the val part, which can hold near-duplicates;
                    # none of them is in the test part
                    args += ["--trainer.logger=false", "--data.allow=[near-duplicate-split]"]
                    assert train.main(args) == 0
                results[start, size, seed] = read_metrics(done)
    draw(results, read_metrics(out / "runs" / "before")["dice_nail"], out / "finetune_small.png")


def draw(results: dict[tuple[str, int, int], dict[str, float]], before: float, path: Path) -> None:
    """Prints the table and plots Dice against the number of training images."""
    print(f"nailseg-b0 without fine-tuning: Dice {before:.3f}\n\n| start | images | Dice | Dice per image |")
    figure, axis = plt.subplots(figsize=(6, 4))
    for start in STARTS:
        seeds = sorted({seed for _, _, seed in results})
        dice = np.array([[results[start, n, seed]["dice_nail"] for seed in seeds] for n in SIZES])
        each = np.array([[results[start, n, seed]["dice_per_image_nail"] for seed in seeds] for n in SIZES])
        for n, own, images in zip(SIZES, dice, each, strict=True):
            spread = " ".join(f"{value:.3f}" for value in own)
            print(f"| {start} | {n} | {own.mean():.3f} ({spread}) | {images.mean():.3f} |")
        axis.errorbar(
            SIZES, dice.mean(1), [dice.mean(1) - dice.min(1), dice.max(1) - dice.mean(1)],
            marker="o", capsize=4, label=f"from {start}",
        )  # fmt: skip
    axis.axhline(before, color="grey", linestyle=":", label="nailseg-b0 without fine-tuning")
    axis.set(xscale="log", xlabel="training images", ylabel="test Dice of nail", ylim=(0, 1))
    axis.set_xticks(SIZES, [str(n) for n in SIZES])
    axis.minorticks_off()
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
