"""Many files in, one mask file each out: `nailseg predict`."""

from __future__ import annotations

import csv
import functools
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Sequence  # the command line reads the signature
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from nailseg.data.io.masks import read_mask_values
from nailseg.errors import ConfigError, DataError, OutputError
from nailseg.imaging.overlay import encode_image
from nailseg.inference import polygons as objects
from nailseg.inference import processes, segmenter
from nailseg.inference.sources import find_images, mask_names, refuse_doubles
from nailseg.model_info import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nailseg.inference.segmenter import Result, Segmenter

log = logging.getLogger("nailseg")
T = TypeVar("T")

AHEAD = 2
"""Images that are read before their turn, and results that wait to be written: a large one is 100 MB."""


class Job(NamedTuple):
    """One image: its file, its relative path, and its mask's."""

    file: Path
    image: Path
    mask: Path


class Part(NamedTuple):
    """What came of a process's images."""

    failures: list[str]  # what was wrong with those that could not be read
    records: list[dict[str, Any]]  # `objects.describe` of the others, if wished


@dataclass(frozen=True)
class Wish:
    """How images are looked at, and what is written for each into the folder `out`; see `predict_files`."""

    out: Path
    overlays: bool
    probability: bool
    objects: bool  # lists what polygons and table are made of
    as_index: bool
    tta: bool
    tile: int | Literal["auto"] | None

    def files(self, mask: Path, class_names: Sequence[str]) -> dict[Path, int | None]:
        """Relative paths of an image's files, the mask last; with its class where it is a probability."""
        files: dict[Path, int | None] = {mask.with_suffix(".overlay.jpg"): None} if self.overlays else {}
        safe = [re.sub(r"[^\w .+-]", "_", name) for name in class_names]
        for index, name in list(enumerate(safe))[1:] if self.probability else []:
            unique = name if safe.count(name) == 1 else f"{name}-{index}"
            of_class = "" if len(class_names) == 2 else f".{unique}"
            files[mask.with_suffix(f".probability{of_class}.png")] = index
        return {**files, mask: None}


def predict_files(
    paths: Sequence[str],
    *,
    out: str | Path,
    model: str = SHIPPED,
    overlays: bool = False,
    as_index: bool = False,
    device: str | None = None,
    threshold: float | Literal["model"] | None = None,
    probability: bool = False,
    polygons: bool = False,
    table: bool = False,
    tta: bool = False,
    tile: int | Literal["auto"] | None = None,
    resume: bool = False,
    devices: int = 1,
    root: str | Path | None = None,
    split: Literal["train", "val", "test"] | None = None,
) -> int:
    """Writes an 8-bit single-channel PNG for every image, at the image's size.

    Args:
        paths: as `inputs.find_images` takes them.
        model: as `predictor.load` takes it.
        out: the folder for masks; 0/255 for two classes, class indices otherwise.
        overlays: also write NAME.overlay.jpg beside each mask.
        as_index: class indices for two classes too.
        device: as `predictor.load` takes it.
        threshold: as `predictor.load` takes it.
        probability: also write NAME.probability.png, 16 bits, 0..65535 for 0..1; of more than two classes
            NAME.probability.CLASS.png for each but the background.
        polygons: also write polygons.json, COCO instance annotations of all images.
        table: also write objects.csv, one row per image.
        tta: as `views.look` takes it.
        tile: as `views.look` takes it.
        resume: leave out images whose files all exist. Polygons and table, which alone are written anew,
            tell of them too: as the polygons did before, else by their mask and therefore without a score.
        devices: processes that share the images; under torchrun its own number.
        root: as `inputs.find_images` takes it.
        split: as `inputs.find_images` takes it.

    Returns:
        Exit code: 0, or 1 if an image could not be read; the others are done all the same.

    Raises:
        OutputError: a file exists already and is not resumed; nothing is overwritten. Or `out` is a file.
        ConfigError: no such device, or the paths name no image, or two that cannot be kept apart.
        DataError: a CSV that cannot be trusted.
        WeightsError: the model cannot be used.
    """
    out = Path(out)
    if blocking := [path for path in (out, *out.parents) if path.exists() and not path.is_dir()]:
        raise OutputError(f"--out {out}: expected a folder, found the file {blocking[0]}. Choose another.")
    if devices < 1:
        raise ConfigError(f"--devices {devices}: expected 1 or more processes. Leave it out for one.")
    found = find_images(paths, out, root, split)
    jobs = [Job(file, found[file], mask) for file, mask in mask_names(found).items()]
    several = processes.is_split(devices)
    segment = segmenter.load(model, "cpu" if several else device, threshold)
    wish = Wish(out, overlays, probability, polygons or table, as_index, tta, tile)
    shared = {"polygons.json": objects.as_coco} if polygons else {}
    shared |= {"objects.csv": objects.as_table} if table else {}
    left = _left(jobs, wish, segment.class_names, resume, [name for name in shared if (out / name).exists()])
    told = _told(jobs, out, list(shared))
    if several:
        work = functools.partial(_load_and_predict, model=model, threshold=threshold, wish=wish)
        parts = processes.run_split(work, left, devices, device)
    else:
        parts = [_predict(left, 0, segment, wish)]
    failures = [failure for part in parts for failure in part.failures]
    if processes.rank() > 0:
        return 1 if failures else 0
    if shared:
        known = {record["mask"]: record for part in parts for record in part.records}
        records = _all_records(jobs, known, told, wish, segment.class_names)
        for name, as_text in shared.items():
            write_file(out / name, as_text(records, segment.class_names).encode())
    log.info("%d masks in %s", len(jobs) - len(failures), out)
    for failure in failures:
        log.error("not done: %s", failure)
    return 1 if failures else 0


def _left(
    jobs: list[Job], wish: Wish, class_names: Sequence[str], resume: bool, shared: list[str]
) -> list[Job]:
    """The images that are to be done; refuses to overwrite their files, or `shared` ones that are there."""
    written = {job: list(wish.files(job.mask, class_names)) for job in jobs}
    refuse_doubles((job.file, name) for job, names in written.items() for name in names)
    there = {job: [name for name in names if (wish.out / name).exists()] for job, names in written.items()}
    taken = [*(name for names in there.values() for name in names), *shared]
    pictures = {job.file.resolve() for job in jobs}
    if own := [name for name in taken if (wish.out / name).resolve() in pictures]:
        raise ConfigError(
            f"--out {wish.out}: expected a folder apart from the images, found {own[0]} among them."
        )
    if resume:
        left = [job for job in jobs if len(there[job]) < len(written[job])]
        log.info("%d of %d images are done already", len(jobs) - len(left), len(jobs))
        return left
    if taken:
        raise OutputError(
            f"{wish.out}: {len(taken)} of the files to write exist already (the first: {taken[0]}) and are "
            f"not overwritten. Choose another --out, move them away, or use --resume."
        )
    return jobs


def _told(jobs: list[Job], out: Path, shared: list[str]) -> dict[str, dict[str, Any]]:
    """What an earlier run's polygons tell of each image; refuses lists that tell of other images too."""
    named = {job.image.as_posix() for job in jobs}
    told: dict[str, dict[str, Any]] = {}
    for path in (out / name for name in shared if (out / name).exists()):
        try:
            if path.suffix == ".json":
                images = told = objects.read_coco(path.read_text())
            else:
                images = {row["image"]: {} for row in csv.DictReader(path.read_text().splitlines())}
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{path}: expected what an earlier run wrote, found something else. Move it away."
            ) from error
        if others := images.keys() - named:
            raise OutputError(
                f"{path}: expected only images that are named now, found {len(others)} others (the first: "
                f"{min(others)}), which would be lost. Name them too, or choose another --out."
            )
    return told


def _load_and_predict(
    jobs: list[Job], rank: int, device: str | None, model: str, threshold: Any, wish: Wish
) -> Part:
    return _predict(jobs, rank, segmenter.load(model, device, threshold), wish)


def _predict(jobs: list[Job], rank: int, segment: Segmenter, wish: Wish) -> Part:
    """Predicts images and writes what is wished; reading and writing go on beside the network."""
    failures: list[str] = []
    writing: deque[tuple[Job, Future[dict[str, Any] | None]]] = deque()
    records: list[dict[str, Any]] = []

    def finish(job: Job, saved: Future[dict[str, Any] | None]) -> None:
        try:
            if record := saved.result():
                records.append(record)
        except OutputError as error:  # an overlay that its format cannot hold
            failures.append(f"{job.file}: {error}")

    with ThreadPoolExecutor(2) as pool:
        reading = ((job, pool.submit(segmenter.as_array, job.file)) for job in jobs)
        shown = tqdm(_ahead(reading), total=len(jobs), unit="image", disable=len(jobs) < 2 or rank > 0)
        for job, image in shown:
            try:
                result = segment(image.result(), wish.tta, wish.tile)
            except DataError as error:
                failures.append(str(error))
                continue
            writing.append((job, pool.submit(_save, job, result, wish)))
            if len(writing) > AHEAD:
                finish(*writing.popleft())
        for one in writing:
            finish(*one)
    return Part(failures, records)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each taken `AHEAD` turns before its own."""
    waiting = deque(itertools.islice(items, AHEAD))
    for item in items:
        waiting.append(item)
        yield waiting.popleft()
    yield from waiting


def _save(job: Job, result: Result, wish: Wish) -> dict[str, Any] | None:
    """Writes an image's files, the mask last; returns its objects if its mask was not there already."""
    record = None
    if wish.objects and not (wish.out / job.mask).exists():
        record = objects.describe(job.image, job.mask, result.mask, result.probability)
    for name, index in wish.files(job.mask, result.class_names).items():
        if not (wish.out / name).exists():  # an earlier run's
            write_file(wish.out / name, _encoded(result, name, index, wish))
    return record


def _encoded(result: Result, name: Path, index: int | None, wish: Wish) -> bytes:
    """The bytes of an overlay (.jpg), of a class's probability, or of the mask."""
    if name.suffix == ".jpg":
        return encode_image(result.overlay(), ".jpg")
    if index is not None:
        return encode_image(segmenter.in_16_bits(result.probability[index]), ".png")
    return encode_image(result.mask_pixels(wish.as_index), ".png")


def _all_records(
    jobs: list[Job],
    known: dict[str, dict[str, Any]],
    told: dict[str, dict[str, Any]],
    wish: Wish,
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """The records of all images with a mask, in order; of an earlier run its own, or read off the mask."""
    records = []
    for job in jobs:
        record = known.get(job.mask.as_posix())
        if record is None and job.image.as_posix() in told:
            record = told[job.image.as_posix()] | {"mask": job.mask.as_posix()}
        elif record is None and (wish.out / job.mask).exists():
            mask = read_mask_values(wish.out / job.mask)
            if mask.ndim != 2 or (len(class_names) > 2 and mask.max() >= len(class_names)):
                raise DataError(
                    f"{wish.out / job.mask}: expected a mask that an earlier run wrote, "
                    f"of {len(class_names)} classes, found another image. Move it away, and resume again."
                )
            # two classes are 0/255, or 0/1 if an earlier run was told so
            mask = (mask > 0).view(np.uint8) if len(class_names) == 2 else mask
            record = objects.describe(job.image, job.mask, mask)
        if record is not None:
            records.append(record)
    return records


def write_file(path: Path, content: bytes) -> None:
    """Writes all of a file or nothing: a mask that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(content)
    os.replace(scratch, path)
