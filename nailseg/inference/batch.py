"""`nailseg predict`: many image files in, a mask file for each out."""

import functools
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from nailseg.errors import ConfigError, DataError, OutputError, WriteError
from nailseg.files import require_writable, write_atomically
from nailseg.imaging.overlay import encode_image
from nailseg.inference import segmenter
from nailseg.inference.multiprocess import run_distributed
from nailseg.inference.polygons import describe_objects, to_coco, to_csv
from nailseg.inference.segmenter import Result, Segmenter
from nailseg.inference.sources import find_images, name_masks, refuse_collisions
from nailseg.model_info import DEFAULT_MODEL

log = logging.getLogger("nailseg")

QUEUE_LENGTH = 2
"""Images that are read ahead, and results that wait to be written; more would fill the memory."""


MEANWHILE = "another process has written it meanwhile, and it is kept"


class Job(NamedTuple):
    """An image to predict."""

    file: Path
    image: Path  # its name in tables, relative
    mask: Path  # relative to the output folder
    outputs: dict[Path, Callable[[Result], np.ndarray]]  # of `plan_outputs`, but what exists


def predict_files(
    paths: Sequence[str],
    /,
    *,
    out: str | Path,
    model: str = DEFAULT_MODEL,
    overlay: bool = False,
    index: bool = False,
    device: str | None = None,
    threshold: float | Literal["model"] | None = None,
    probability: bool = False,
    polygons: bool = False,
    csv: bool = False,
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
        out: Folder for the masks, under the images' names: 0/255 for two classes, else class indices.
        model: A model folder, checkpoint, run folder, exported file, or the name of a shipped model.
        overlay: Also write NAME.overlay.jpg beside each mask.
        index: Write class indices for two classes too.
        device: Device such as cpu or cuda; by default a GPU if there is one.
        threshold: Minimum probability of a foreground pixel; model: the threshold with the best validation
            Dice. For two classes only; by default the more probable class.
        probability: Also write NAME.probability.png, 16 bits, 0..65535 for 0..1; for more than two classes
            NAME.probability.CLASS.png for each but the background.
        polygons: Also write polygons.json, COCO instance annotations of all images.
        csv: Also write objects.csv, one row per image: uncertainty, count, areas and boxes of its objects.
        tta: Test-time augmentation: average mirrored and resized predictions, at six times the cost.
        tile: Predict in overlapping tiles with sides of this many pixels; auto: the network's own size, which
            models trained with --data.resize crop take without this option.
        resume: Skip images whose files all exist. With --polygons or --csv, no mask may exist already.
        devices: Number of processes, or GPUs, that share the images; under torchrun its own number counts.
        root: Folder that a CSV's paths are relative to; by default the CSV's own.
        split: Only these rows of a CSV.

    Returns:
        Exit code: 0, or 1 if an image could not be predicted, or a file of a folder or glob is none; the
        others are written all the same.

    Raises:
        OutputError: A file exists already, a table would lack finished images, or `out` is a file.
        ConfigError: The device does not exist, or the paths name no image, or two with the same mask.
        DataError: A CSV is invalid.
        WeightsError: The model cannot be used.
    """
    out = Path(out)
    if blocking := [path for path in (out, *out.parents) if path.exists() and not path.is_dir()]:
        raise OutputError(f"--out {out}: expected a folder, found the file {blocking[0]}. Choose another.")
    require_writable(out)
    if devices < 1:
        raise ConfigError(f"--devices {devices}: expected 1 or more processes. Leave it out for one.")
    skipped: list[Path] = []
    images = find_images(paths, out, root, split, skipped)
    masks = name_masks(images)
    # torchrun sets WORLD_SIZE and RANK
    is_distributed = devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1
    load = functools.partial(segmenter.load, model, threshold=threshold)
    # with several processes this one only needs the class names; each loads the model on its own device
    segment = load("cpu" if is_distributed else device)
    plan = functools.partial(plan_outputs, segment.class_names, overlay, probability, index)
    jobs = [Job(file, images[file], mask, plan(mask)) for file, mask in masks.items()]
    tables = {"polygons.json": to_coco} if polygons else {}
    tables |= {"objects.csv": to_csv} if csv else {}
    names = [str(job.image) for job in jobs] if tables else []
    if other := next((name for name in names if name.encode(errors="ignore").decode() != name), None):
        advice = "Rename it, or leave out --polygons and --csv"
        raise DataError(f"{other!r}: expected a file name in UTF-8 for the tables, found another. {advice}.")
    pending = _select_pending(jobs, out, list(tables), resume)
    save = functools.partial(_save, out, bool(tables))
    work = functools.partial(_predict, save=save, tta=tta, tile=tile)
    if is_distributed:
        results = run_distributed(functools.partial(work, load), pending, devices, device)
    else:
        results = work(lambda _: segment, pending, 0, device)
    failures = [result for result in results if isinstance(result, str)]
    done = len(jobs) - len(failures)
    if int(os.environ.get("RANK", "0")) == 0:
        by_mask = {result["mask"]: result for result in results if isinstance(result, dict)}
        # in the order of the images
        records = [by_mask[path] for job in jobs if (path := job.mask.as_posix()) in by_mask]
        for name, to_text in tables.items():
            path = out / name
            if path.exists():
                path = path.with_stem(f"{path.stem}-{os.getpid()}")
                failures.append(f"{out / name}: {MEANWHILE}; this table is {path.name}")
            write_atomically(path, to_text(records, segment.class_names).encode())
        log.info("%d masks in %s", done, out)
        for failure in failures:
            log.error("not done: %s", failure)
    return 1 if failures or skipped else 0


def plan_outputs(
    class_names: Sequence[str], overlay: bool, probability: bool, index: bool, mask: Path
) -> dict[Path, Callable[[Result], np.ndarray]]:
    """Returns the relative paths of an image's files, the mask last, and what draws each from a result."""
    files: dict[Path, Callable[[Result], np.ndarray]] = {}
    if overlay:
        files[mask.with_suffix(".overlay.jpg")] = Result.overlay
    if probability:
        safe = [re.sub(r"[^\w .+-]", "_", name) for name in class_names]  # characters for file names
        for number, name in enumerate(safe[1:], start=1):
            suffix = f".{name}" if safe.count(name) == 1 else f".{name}-{number}"
            path = mask.with_suffix(f".probability{suffix if len(safe) > 2 else ''}.png")
            files[path] = functools.partial(Result.encode_probability, index=number)
    files[mask] = functools.partial(Result.encode_mask, as_index=index)
    return files


def _select_pending(jobs: list[Job], out: Path, tables: list[str], resume: bool) -> list[Job]:
    """Returns the images to predict; raises instead of overwriting a file or writing an incomplete table.

    Existing masks are never predicted again, so a table could not describe them.
    """
    refuse_collisions((job.file, name) for job in jobs for name in job.outputs)
    existing_tables = [name for name in tables if (out / name).exists()]
    existing = [name for job in jobs for name in job.outputs if (out / name).exists()]
    inputs = {job.file.resolve() for job in jobs}
    if own := [name for name in existing + existing_tables if (out / name).resolve() in inputs]:
        raise ConfigError(f"--out {out}: expected a folder apart from the images, found {own[0]} among them.")
    blocking = existing_tables if resume else existing + existing_tables
    pending = jobs
    if resume:
        missing = [{n: draw for n, draw in job.outputs.items() if not (out / n).exists()} for job in jobs]
        pending = [job._replace(outputs=left) for job, left in zip(jobs, missing, strict=True) if left]
        masked = sum((out / job.mask).exists() for job in jobs)
        if masked and tables:
            lack = f"{' and '.join(tables)} would lack the {masked} of {len(jobs)} images whose masks exist"
            advice = "For complete tables leave out --resume and choose another --out; else leave out"
            raise OutputError(f"--resume: {lack} already. {advice} --polygons and --csv.")
        log.info("%d of %d images are done already", len(jobs) - len(pending), len(jobs))
    if blocking:
        raise OutputError(
            f"{out}: {len(blocking)} of the files to write exist already (the first: {blocking[0]}) and are "
            f"not overwritten. Choose another --out, move them away, or use --resume."
        )
    return pending


def _predict(
    load: Callable[..., Segmenter], jobs: list[Job], rank: int, device: str | None, save: Any, **options: Any
) -> list[dict[str, Any] | str]:
    """Predicts images and writes their files; two threads read and write while the network runs.

    Returns the records of `describe_objects`, if `save` makes any, and a message for each failed image.
    """
    results: list[dict[str, Any] | str] = []
    segment = load(device)

    def predict_readable() -> Iterator[tuple[Job, Result]]:
        images = _run_ahead(pool, lambda job: segment.read(job.file), jobs)
        for job, image in tqdm(images, unit="image", total=len(jobs), disable=len(jobs) < 2 or rank > 0):
            try:
                result = segment(image.result(), **options)
            except DataError as error:
                results.append(str(error))
            else:
                yield job, result

    with ThreadPoolExecutor(2) as pool:
        for (job, _), saved in _run_ahead(pool, lambda predicted: save(*predicted), predict_readable()):
            try:
                results.extend(saved.result())
            except WriteError:
                raise
            except OutputError as error:  # the image is too large for an overlay's format
                results.append(f"{job.file}: {error}")
    return results


def _run_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[tuple[Any, Future[Any]]]:
    """Yields each item with the future of its result, while the next `QUEUE_LENGTH` items are computed."""
    queue: deque[tuple[Any, Future[Any]]] = deque()
    for item in items:
        queue.append((item, pool.submit(function, item)))
        if len(queue) > QUEUE_LENGTH:
            yield queue.popleft()
    yield from queue


def _save(out: Path, records: bool, job: Job, result: Result) -> list[dict[str, Any]]:
    """Writes an image's files, the mask last, and returns its record if asked; keeps existing files."""
    for name, draw in job.outputs.items():
        if (out / name).exists():
            raise OutputError(f"{out / name}: {MEANWHILE}. Choose another --out for each prediction.")
        write_atomically(out / name, encode_image(draw(result), name.suffix))
    if not records:
        return []
    record = describe_objects(job.image, job.mask, result.mask, result.probability)
    return [record | {"uncertainty": round(result.uncertainty(), 4)}]
