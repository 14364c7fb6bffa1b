"""`nailseg predict`: many image files in, a mask file for each out."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from nailseg.errors import ConfigError, DataError, OutputError
from nailseg.imaging.overlay import encode_image
from nailseg.inference import multiprocess, segmenter
from nailseg.inference.polygons import describe_objects, to_coco, to_csv
from nailseg.inference.segmenter import Result, Segmenter
from nailseg.inference.sources import find_images, name_masks, refuse_collisions
from nailseg.model_info import SHIPPED

log = logging.getLogger("nailseg")

QUEUE_LENGTH = 2
"""Images that are read ahead, and results that wait to be written; a large one takes 100 MB."""


class Job(NamedTuple):
    """An image to predict."""

    file: Path
    image: Path  # relative
    mask: Path  # relative


class Outcome(NamedTuple):
    """What a process returns."""

    failures: list[str]  # a message per failed image
    records: list[dict[str, Any]]  # of `describe_objects`, if requested


@dataclass(frozen=True)
class Options:
    """How images are predicted and what is written; see `predict_files`."""

    out: Path
    overlays: bool
    probability: bool
    records: bool  # of `describe_objects`, for polygons.json and objects.csv
    as_index: bool
    tta: bool
    tile: int | Literal["auto"] | None


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
    """Writes an 8-bit single-channel PNG mask for every image, at the image's size.

    Args:
        paths: Files, folders, globs and CSVs. Of a folder with Images/ and Masks/ only Images/ is used.
        out: The folder for masks with the images' names: 0/255 for two classes, class indices otherwise.
        model: A model folder, checkpoint, run folder, exported file, or the name of a shipped model.
        overlays: Also write NAME.overlay.jpg beside each mask.
        as_index: Write class indices for two classes, too.
        device: cpu, cuda, …; a GPU by default if there is one.
        threshold: Probability from which on a pixel is foreground; model: the one with the best validation
            Dice. For two classes only.
        probability: Also write NAME.probability.png, 16 bits, 0..65535 for 0..1; for more than two classes
            NAME.probability.CLASS.png for each but the background.
        polygons: Also write polygons.json, COCO instance annotations of all images.
        table: Also write objects.csv, one row per image: count, areas and boxes of its objects.
        tta: Test-time augmentation: average mirrored and resized predictions, at six times the cost.
        tile: Predict large images in overlapping tiles of this many pixels; auto: the network's own size.
        resume: Skip images whose files all exist. With --polygons or --csv, no image may be done.
        devices: Number of processes, or GPUs, that share the images; under torchrun its own number counts.
        root: The folder that the paths in a CSV are relative to; its own by default.
        split: Only these rows of a CSV.

    Returns:
        Exit code: 0, or 1 if an image could not be predicted; the others are written all the same.

    Raises:
        OutputError: A file exists already, a table would lack skipped images, or `out` is a file.
        ConfigError: The device does not exist, or the paths name no image, or two with the same mask.
        DataError: A CSV is invalid.
        WeightsError: The model cannot be used.
    """
    out = Path(out)
    if blocking := [path for path in (out, *out.parents) if path.exists() and not path.is_dir()]:
        raise OutputError(f"--out {out}: expected a folder, found the file {blocking[0]}. Choose another.")
    if devices < 1:
        raise ConfigError(f"--devices {devices}: expected 1 or more processes. Leave it out for one.")
    images = find_images(paths, out, root, split)
    jobs = [Job(file, images[file], mask) for file, mask in name_masks(images).items()]
    distributed = multiprocess.is_distributed(devices)
    segment = segmenter.load(model, "cpu" if distributed else device, threshold)
    options = Options(out, overlays, probability, polygons or table, as_index, tta, tile)
    tables = {"polygons.json": to_coco} if polygons else {}
    tables |= {"objects.csv": to_csv} if table else {}
    pending = _select_pending(jobs, options, segment.class_names, list(tables), resume)
    if distributed:
        work = functools.partial(_load_and_predict, model=model, threshold=threshold, options=options)
        outcomes = multiprocess.run_distributed(work, pending, devices, device)
    else:
        outcomes = [_predict(pending, 0, segment, options)]
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    if multiprocess.get_rank() == 0:
        order = {job.mask.as_posix(): number for number, job in enumerate(jobs)}
        records = [record for outcome in outcomes for record in outcome.records]
        records.sort(key=lambda record: order[record["mask"]])
        for name, to_text in tables.items():
            write_atomically(out / name, to_text(records, segment.class_names).encode())
        log.info("%d masks in %s", len(jobs) - len(failures), out)
        for failure in failures:
            log.error("not done: %s", failure)
    return 1 if failures else 0


def name_outputs(mask: Path, options: Options, class_names: Sequence[str]) -> dict[Path, int | None]:
    """Returns the relative paths of an image's files, the mask last; a probability's with its class."""
    files: dict[Path, int | None] = {}
    if options.overlays:
        files[mask.with_suffix(".overlay.jpg")] = None
    if options.probability and len(class_names) == 2:
        files[mask.with_suffix(".probability.png")] = 1
    elif options.probability:
        safe = [re.sub(r"[^\w .+-]", "_", name) for name in class_names]
        for index, name in list(enumerate(safe))[1:]:
            number = "" if safe.count(name) == 1 else f"-{index}"
            files[mask.with_suffix(f".probability.{name}{number}.png")] = index
    return {**files, mask: None}


def _select_pending(
    jobs: list[Job], options: Options, class_names: Sequence[str], tables: list[str], resume: bool
) -> list[Job]:
    """Returns the images to predict; raises instead of overwriting a file or writing half a table."""
    out = options.out
    outputs = {job: list(name_outputs(job.mask, options, class_names)) for job in jobs}
    refuse_collisions((job.file, name) for job in jobs for name in outputs[job])
    existing = {job: [name for name in outputs[job] if (out / name).exists()] for job in jobs}
    existing_tables = [name for name in tables if (out / name).exists()]
    inputs = {job.file.resolve() for job in jobs}
    taken = [*itertools.chain.from_iterable(existing.values()), *existing_tables]
    if own := [name for name in taken if (out / name).resolve() in inputs]:
        raise ConfigError(f"--out {out}: expected a folder apart from the images, found {own[0]} among them.")
    pending = jobs
    if resume:
        pending = [job for job in jobs if len(existing[job]) < len(outputs[job])]
        done = len(jobs) - len(pending)
        if done and tables:
            raise OutputError(
                f"--resume: {' and '.join(tables)} would lack the {done} of {len(jobs)} images that are done "
                f"already. Choose another --out for complete tables, or leave out --polygons and --csv."
            )
        log.info("%d of %d images are done already", done, len(jobs))
        taken = existing_tables
    if taken:
        raise OutputError(
            f"{out}: {len(taken)} of the files to write exist already (the first: {taken[0]}) and are not "
            f"overwritten. Choose another --out, move them away, or use --resume."
        )
    return pending


def _load_and_predict(
    jobs: list[Job], rank: int, device: str | None, model: str, threshold: Any, options: Options
) -> Outcome:
    return _predict(jobs, rank, segmenter.load(model, device, threshold), options)


def _predict(jobs: list[Job], rank: int, segment: Segmenter, options: Options) -> Outcome:
    """Predicts images and writes their files; two threads read and write while the network runs."""
    outcome = Outcome([], [])
    saving: deque[tuple[Job, Future[dict[str, Any] | None]]] = deque()

    def collect() -> None:
        job, future = saving.popleft()
        try:
            if record := future.result():
                outcome.records.append(record)
        except OutputError as error:  # the image is too large for an overlay's format
            outcome.failures.append(f"{job.file}: {error}")

    with ThreadPoolExecutor(2) as pool:
        to_read = ((job, pool.submit(segmenter.to_array, job.file)) for job in jobs)
        reading = deque(itertools.islice(to_read, QUEUE_LENGTH))
        for _ in tqdm(jobs, unit="image", disable=len(jobs) < 2 or rank > 0):
            reading.extend(itertools.islice(to_read, 1))
            job, image = reading.popleft()
            try:
                result = segment(image.result(), options.tta, options.tile)
            except DataError as error:
                outcome.failures.append(str(error))
                continue
            saving.append((job, pool.submit(_save, job, result, options)))
            if len(saving) > QUEUE_LENGTH:
                collect()
        while saving:
            collect()
    return outcome


def _save(job: Job, result: Result, options: Options) -> dict[str, Any] | None:
    """Writes an image's files, the mask last, and returns its record; keeps files of an earlier run."""
    for name, class_index in name_outputs(job.mask, options, result.class_names).items():
        if (options.out / name).exists():
            continue
        if class_index is not None:
            content = encode_image(segmenter.quantize_probability(result.probability[class_index]), ".png")
        elif name == job.mask:
            content = encode_image(result.encode_mask(options.as_index), ".png")
        else:
            content = encode_image(result.overlay(), ".jpg")
        write_atomically(options.out / name, content)
    if not options.records:
        return None
    return describe_objects(job.image, job.mask, result.mask, result.probability)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(content)
    os.replace(partial, path)
