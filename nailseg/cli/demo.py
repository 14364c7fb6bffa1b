"""`make demo`: from nothing to a tested model in minutes, through the command line that everybody uses."""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from nailseg.cli.main import guarded
from nailseg.cli.main import main as nailseg
from nailseg.data.io.images import read_image
from nailseg.errors import NailsegError
from nailseg.imaging import overlay

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA = Path("demo")
PICTURES = 6  # in the final image


def demo(options: Sequence[str] = (), count: int = 400) -> Path:
    """Draws, indexes, trains, tests, predicts; prints a table and the path of one image.

    Args:
        options: further options of the training, as typed.
        count: how many images to draw, if they are not there yet.

    Returns:
        The run folder.
    """
    start = time.perf_counter()
    if not (DATA / "Images").exists():
        _run("sample", str(DATA), "--count", str(count))
    if not (DATA / "nails.csv").exists():
        _run("index", str(DATA), "--val", "0.15", "--test", "0.15")
    from nailseg import train

    training = time.perf_counter()
    fixed = ["--config", "demo.yaml", "--data.csv", str(DATA / "nails.csv"), "--trainer.logger", "false"]
    fixed += ["--trainer.devices", "1"]  # further processes would repeat all of this
    cli = train.run("fit", [*fixed, *options], test_after_fit=True)
    run = cli.folder
    trained = time.perf_counter()
    with (DATA / "nails.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    pictures = [str(DATA / row["image"]) for row in rows]
    _run("predict", *pictures, "--model", str(run / "model"), "--out", str(run / "predictions"))

    # every few, so that all the folders are seen
    chosen = rows[:: max(1, len(rows) // PICTURES)][:PICTURES]
    _draw(run, chosen)
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    print(
        f"\n  test images   {metrics['n_images']}"
        f"\n  Dice of nail  {metrics['dice_nail']:.3f}"
        f"\n  IoU of nail   {metrics['iou_nail']:.3f}"
        f"\n  training      {trained - training:.0f} s"
        f"\n  all of it     {time.perf_counter() - start:.0f} s"
        f"\n\n  report        {run / 'test' / 'report.html'}"
        f"\n  image       {run / 'demo.png'} (image, truth, prediction)"
    )
    return run


def _run(*args: str) -> None:
    if code := nailseg(args):
        raise NailsegError(
            f"`nailseg {' '.join(args)}` ended with exit code {code}; its message stands above."
        )


def _draw(run: Path, rows: list[dict[str, str]]) -> None:
    sheet = []
    for row in rows:
        image, truth = read_image(DATA / row["image"]), read_image(DATA / row["mask"])[..., 0] > 127
        name = Path(row["image"]).with_suffix(".png").name
        found = cv2.imread(os.fspath(run / "predictions" / name), cv2.IMREAD_GRAYSCALE) > 127
        sheet.append(
            overlay.concat_horizontal(
                [image, overlay.draw_overlay(image, truth), overlay.draw_overlay(image, found)]
            )
        )
    overlay.write_png(run / "demo.png", overlay.concat_vertical(sheet))


if __name__ == "__main__":
    sys.exit(guarded(demo))
