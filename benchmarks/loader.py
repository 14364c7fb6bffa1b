"""Training loader with and without its cache, and with the same pixels in an Arrow file of `datasets`.

    python benchmarks/loader.py [--nails DIR] [--size 512] [--photos 25] [--mild]

Drawn photographs of 12 megapixels, and the pairs of DIR (Images/, Masks/) if it is given, go through the
loaders of `SegmentationDataModule`: uncached, cached in the first epoch, which writes, and cached in later
epochs. The loaders alternate, so that a slower machine slows all of them, and medians are compared. The Arrow
loader reads the content of the cache from a file that `datasets` maps into memory. `stored` is the time of
reading the stored pixels alone, without augmentation. The training step is B0's, eager, bf16 autocast, with
batches of 8. Only the ratios can be compared with another machine. Expected: 10x on 12 megapixels, 1.5x on
nails, 3x as fast as the step.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from nailseg.data.augmentation import DEFAULT_AUGMENTATION, Augmentation
from nailseg.data.datamodule import SegmentationDataModule
from nailseg.data.dataset import SegmentationDataset
from nailseg.data.synthetic.sample import write_sample
from nailseg.models.segformer import SegFormer

EXPECTED = {"12 megapixels": 10.0, "nails": 1.5}
MILD = Augmentation(
    scale=(0.7, 1.7), rotate=20.0, light=0.3, color=0.3, blur=0.05, noise=0.05, compression=0.05
)
KINDS = ("uncached", "cached", "arrow")


class ArrowCache:
    """The content of `PixelCache`, written once by `datasets` and read from its memory-mapped file."""

    def __init__(self, folder: Path, source: SegmentationDataset) -> None:
        """Writes every row of a data set."""
        import datasets

        datasets.disable_progress_bars()

        def entries():
            for row in range(len(source)):
                image, mask = source.preprocess(row)
                yield {"shape": list(image.shape), "image": image.tobytes(), "mask": mask.tobytes()}

        kinds = {
            "shape": datasets.List(datasets.Value("int32")),
            # 32-bit offsets end at 2 GB of pixels
            "image": datasets.Value("large_binary"),
            "mask": datasets.Value("large_binary"),
        }
        table = datasets.Dataset.from_generator(
            entries, features=datasets.Features(kinds), cache_dir=str(folder), writer_batch_size=16
        )
        self.rows = {source.files(row): row for row in range(len(source))}
        self.table = table.with_format("arrow")

    def get(self, files: tuple[Path, Path], build: Callable) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pair of arrays, without a copy."""
        entry = self.table[self.rows[files]]
        shape = entry["shape"][0].as_py()
        image = np.frombuffer(entry["image"][0].as_buffer(), np.uint8).reshape(shape)
        return image, np.frombuffer(entry["mask"][0].as_buffer(), np.uint8).reshape(shape[:2])


def draw_photographs(folder: Path, count: int) -> Path:
    """Writes drawn hands, upsampled to 4000 x 3000 with camera noise, their masks and a CSV."""
    write_sample(folder / "small", count=count, size=480)
    (folder / "photos").mkdir()
    noise = np.random.default_rng(0).normal(0, 6, (3000, 4000, 3)).astype(np.float32)
    lines = ["image,mask,split,group"]
    images = sorted(path for path in (folder / "small" / "Images").rglob("*") if path.is_file())
    for number, path in enumerate(images):
        mask = folder / "small" / "Masks" / path.relative_to(folder / "small" / "Images").with_suffix(".png")
        large = cv2.resize(cv2.imread(str(path)), (4000, 3000), interpolation=cv2.INTER_CUBIC)
        large = np.clip(large + np.roll(noise, 131 * number, axis=0), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "photos" / f"{number}.jpg"), large, [cv2.IMWRITE_JPEG_QUALITY, 92])
        labels = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
        labels = cv2.resize(labels, (4000, 3000), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), labels)
        lines.append(f"photos/{number}.jpg,photos/{number}.png,{'train' if number else 'val'},{number}")
    (folder / "photos.csv").write_text("\n".join(lines))
    return folder / "photos.csv"


def list_pairs(nails: Path, folder: Path, count: int) -> Path:
    """Writes a CSV of evenly chosen pairs of a folder with Images/ and Masks/."""
    images = sorted(path for path in (nails / "Images").rglob("*") if path.is_file())
    chosen = images[:: max(1, len(images) // count)][:count]
    lines = ["image,mask,split,group"]
    for number, path in enumerate(chosen):
        name = path.relative_to(nails / "Images")
        split = "train" if number % 10 else "val"
        lines.append(f"Images/{name},Masks/{name.with_suffix('.png')},{split},{number}")
    (folder / "dataset.csv").write_text("\n".join(lines))
    return folder / "dataset.csv"


def epoch(loaders: list[DataLoader], number: int) -> float:
    """Returns milliseconds per image of one pass over the loaders."""
    start, count = time.perf_counter(), 0
    for loader in loaders:
        loader.sampler.set_epoch(number)
        count += sum(len(batch["row"]) for batch in loader)
    return 1e3 * (time.perf_counter() - start) / count


def compare(name: str, csv: Path, root: Path, folder: Path, options: argparse.Namespace) -> list[dict]:
    """Times the loaders over one data set."""
    modules = {}
    for kind in KINDS:
        modules[kind] = SegmentationDataModule(
            str(csv),
            str(root),
            size=options.size,
            batch_size=8,
            workers=options.workers,
            augmentation=MILD if options.mild else DEFAULT_AUGMENTATION,
            # rows are chosen and split by their number
            allow=("near-duplicate-split", "duplicate-split", "duplicate-image"),
            cache=str(folder / f"{name} cache") if kind == "cached" else "off",
        )
        modules[kind].setup("fit")
    train = {kind: module.dataset("train") for kind, module in modules.items()}
    start = time.perf_counter()
    train["arrow"].cache = ArrowCache(folder / f"{name} arrow", modules["uncached"].dataset("train"))
    arrow_build = 1e3 * (time.perf_counter() - start) / len(train["arrow"])
    loaders = {kind: (module.train_dataloader(), module.val_dataloader()) for kind, module in modules.items()}
    first = epoch(loaders["cached"], 0)
    print(f"{name}: first epoch, which writes: {first:.1f} ms per image; Arrow's build {arrow_build:.1f} ms")
    for kind in KINDS:  # the last images of a shuffled epoch are left out: a few epochs see all of them
        for number in range(1 if kind == "uncached" else 3):
            epoch(loaders[kind], number)
    rows = []
    for parts in (("train",), ("train", "val")):
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(options.repeats):
            for kind in KINDS:
                times[kind].append(epoch(loaders[kind][: len(parts)], number))
        rows.append(report(f"{name}, {' + '.join(parts)}", times, EXPECTED[name]))
    for row in range(len(train["cached"])):
        train["cached"][row]
    rows.append(report(f"{name}, stored", stored(train, options.repeats), None))
    return rows


def stored(train: dict[str, SegmentationDataset], repeats: int) -> dict[str, list[float]]:
    """Returns milliseconds per image to read every stored pixel, without augmentation."""
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        for kind, data in train.items():
            start = time.perf_counter()
            for row in range(len(data)):
                pair = data.cache.get(data.files(row), lambda: None) if data.cache else data.preprocess(row)
                for array in pair:
                    array.max()
            times[kind].append(1e3 * (time.perf_counter() - start) / len(data))
    return times


def report(name: str, times: dict[str, list[float]], expected: float | None) -> dict:
    """Prints and returns a row."""
    row = {kind: statistics.median(values) for kind, values in times.items()}
    ratio = row["uncached"] / row["cached"]
    cells = "".join(f"{row[kind]:>10.2f} ms" for kind in KINDS)
    print(f"{name:28}{cells}{ratio:>9.1f}x{expected or '-':>9}", flush=True)
    return {"name": name, **row, "ratio": ratio}


def step_time(size: int, batch: int, repeats: int) -> float:
    """Returns milliseconds per image of B0's training step, on all CPU threads."""
    network = SegFormer("b0-random").train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-5)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    masks = torch.randint(0, 2, (batch, size, size))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(images).float(), masks)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(1e3 * (time.perf_counter() - start) / batch)
    return statistics.median(times[1:])


def main() -> None:
    """Prints a row per loader and the training step's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nails", type=Path, help="folder with Images/ and Masks/")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--photos", type=int, default=25)
    parser.add_argument("--images", type=int, default=300, help="pairs of --nails that are read")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mild", action="store_true", help="augmentation of configs/scratch_b0.yaml")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        heads = "".join(f"{kind:>13}" for kind in KINDS)
        print(f"per image, {options.size} px, {options.workers} workers")
        print(f"{'':28}{heads}{'ratio':>10}{'expected':>9}")
        if options.nails:
            csv = list_pairs(options.nails, folder, options.images)
            rows += compare("nails", csv, options.nails, folder, options)
        if options.photos:
            csv = draw_photographs(folder, options.photos)
            rows += compare("12 megapixels", csv, folder, folder, options)
    step = step_time(options.size, 8, options.repeats)
    print(f"B0's training step: {step:.1f} ms per image")
    for row in rows:
        if row["name"].endswith("train"):
            faster = step / row["cached"]
            print(f"{row['name']}: the cached loader is {faster:.1f}x as fast as the step, expected 3")
    if options.json:
        options.json.write_text(json.dumps([*rows, {"name": "step", "ms": step}], indent=2) + "\n")


if __name__ == "__main__":
    main()
