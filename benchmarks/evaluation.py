"""Time and memory of a test outside the network: reading, resizing, counting, images of the report.

    python benchmarks/evaluation.py [--images 400] [--size 512] [--side 432] [--weights MODEL]

A model (SegFormer-B0 with random weights unless --weights names one) tests drawn images of 432 x 432
through the Trainer and writes the report, as `nailseg test` does; the time inside the network is measured
around its forward pass, in the same run. Peak memory is the process's after a quarter of the images and
after all of them. Target: at most a quarter of the time outside the network, constant memory.
"""

from __future__ import annotations

import argparse
import csv
import logging
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from lightning.pytorch import Trainer

from nailseg.data import SegmentationDataModule
from nailseg.data.synthetic import write_sample
from nailseg.evaluation.report import write_report
from nailseg.inference.backends.torch import create_backend
from nailseg.inference.segmenter import Segmenter
from nailseg.training import SegmentationTask


def write_csv(folder: Path, count: int) -> Path:
    """Writes a CSV of the first `count` images, all in the test split."""
    path = folder / f"{count}.csv"
    images = sorted(file for file in (folder / "Images").rglob("*") if file.is_file())[:count]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mask", "split", "group"])
        for image in images:
            name = image.relative_to(folder / "Images")
            writer.writerow([f"Images/{name}", f"Masks/{name.with_suffix('.png')}", "test", name.stem])
    return path


def measure(csv_path: Path, size: int, folder: Path, weights: str) -> tuple[float, float, float]:
    """Returns seconds of test and report, seconds inside the network, and the process's peak memory in MB."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = SegmentationDataModule(csv=str(csv_path), size=size, batch_size=8)
    task = SegmentationTask(weights=weights, class_names=data.class_names, image_size=size)
    inside, began = 0.0, 0.0

    def before(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(*_: object) -> None:
        nonlocal inside
        inside += time.perf_counter() - began

    data.setup("test")  # validation of the files is not timed
    task.network.register_forward_pre_hook(before)
    task.network.register_forward_hook(after)
    trainer = Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="auto")
    start = time.perf_counter()
    trainer.test(task, data, verbose=False)
    segmenter = Segmenter(create_backend(task.network, task.info(), task.device))
    write_report(
        folder / csv_path.stem, task.image_counts, segmenter, data, "test", "", task.surface_tolerance
    )
    total = time.perf_counter() - start
    return total, inside, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Tests a quarter of the images, then all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=512, help="longer side at the network's input")
    parser.add_argument("--side", type=int, default=432, help="pixels of the drawn images")
    parser.add_argument("--weights", default="b0-random", help="a trained model finds fewer components")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "drawn"
        write_sample(folder, count=options.images, size=options.side)
        print(f"{'images':>8}{'test + report':>16}{'in the network':>16}{'outside':>10}{'peak memory':>14}")
        for count in (options.images // 4, options.images):
            # in a separate process, because a peak never decreases
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                table = write_csv(folder, count)
                future = pool.submit(measure, table, options.size, Path(temporary), options.weights)
                total, inside, memory = future.result()
            print(f"{count:>8}{total:>14.1f} s{inside:>14.1f} s{1 - inside / total:>10.1%}{memory:>11.0f} MB")


if __name__ == "__main__":
    main()
