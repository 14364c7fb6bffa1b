"""Share of pixels that a nail model calls nail on images without any nail.

    python benchmarks/negatives.py nailseg-lite0 nailseg-b0 [--images DIR]

The photographs are those packaged with scikit-image, scikit-learn and matplotlib, of at least 100 pixels a
side; no shipped model was trained on them or chosen by them. The blanks are 40 drawn images: flats, ramps,
noise and skin, by seed. Every image is read as `nailseg predict` reads it, at its own size.
"""

import argparse
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import nailseg
from nailseg.errors import NailsegError

FOLDERS = {
    "skimage": ("data",),
    "sklearn": ("datasets", "images"),
    "matplotlib": ("mpl-data", "sample_data"),
}
SKIN = ((247, 219, 200), (226, 172, 138), (172, 116, 84), (98, 64, 47), (68, 45, 36))
SHARE, MEAN, BLANK = 0.005, 0.003, 0.001
"""Goals: 90 % of the photographs at most SHARE, their mean at most MEAN, every blank at most BLANK."""


def find_photographs() -> list[Path]:
    """The images in the data folders of the packages that are installed."""
    files: list[Path] = []
    for package, parts in FOLDERS.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            files += sorted(Path(folder, *parts).rglob("*"))
    return [file for file in files if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".gif")]


def read_images(files: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and RGB pixels of each image that is large enough; the others are skipped."""
    for file in files:
        try:
            image = Image.open(file).convert("RGB")
        except OSError:  # stacks of several dimensions
            continue
        if min(image.size) >= 100:
            yield file.name, np.asarray(image)


def draw_blanks(count: int = 40, side: int = 432) -> Iterator[tuple[str, np.ndarray]]:
    """Flats, ramps, noise and skin in turn; uint8 (432, 432, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j][..., None]
    for number in range(count):
        kind = ("flat", "ramp", "noise", "skin")[number % 4]
        base = np.array(SKIN[number // 4 % len(SKIN)]) if kind == "skin" else rng.uniform(0, 255, 3)
        pixels = np.broadcast_to(base, (side, side, 3)).astype(float)
        if kind in ("ramp", "skin"):
            slopes = rng.normal(0, 60 if kind == "ramp" else 15, (2, 3))
            pixels = pixels + x * slopes[0] + y * slopes[1]
        if kind in ("noise", "skin"):
            pixels = pixels + rng.normal(0, rng.uniform(5, 80) if kind == "noise" else 4, pixels.shape)
        yield f"{kind} {number}", pixels.clip(0, 255).astype(np.uint8)


def measure(segment: nailseg.Segmenter, images: Iterator[tuple[str, np.ndarray]]) -> dict[str, float]:
    """Share of foreground pixels by image name."""
    shares = {}
    for name, pixels in images:
        try:
            shares[name] = float((segment(pixels).mask > 0).mean())
        except NailsegError as error:
            print(f"skipped {name}: {error}")
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images", type=Path, help="a folder of your own images without nails, instead")
    options = parser.parse_args()
    files = sorted(options.images.rglob("*")) if options.images else find_photographs()
    for model in options.models:
        segment = nailseg.load(model)
        photographs, blanks = measure(segment, read_images(files)), measure(segment, draw_blanks())
        values = np.array(list(photographs.values()))
        low, largest = (values <= SHARE).mean(), max(blanks.values())
        print(f"{model}: {len(values)} photographs, mean {values.mean():.3%} (goal {MEAN:.1%}), ", end="")
        print(f"{low:.0%} with at most {SHARE:.1%} (goal 90 %); ", end="")
        print(f"blanks: largest {largest:.3%} (goal {BLANK:.1%})")
        for name, share in sorted(photographs.items(), key=lambda item: -item[1])[:8]:
            print(f"    {share:8.3%} {name}")


if __name__ == "__main__":
    main()
