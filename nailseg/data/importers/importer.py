"""Other people's formats -> Images/, Masks/ and nails.csv; what was left out or tolerated is said.

Images are copied byte for byte. An image with an EXIF orientation has two pixel grids: as stored, and
upright as viewers, browsers and this package show it. Where the source states the size (COCO) or brings a
mask, that tells which grid was labelled; where it does not, or both look alike (180 degrees, squares),
upright is assumed and said. Masks are always written for the upright image.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from nailseg.data.assign import SPLITS
from nailseg.data.importers.base import Item, Source, choose_classes, keep_splits
from nailseg.data.importers.rasterize import draw
from nailseg.data.io.headers import apply_orientation, read_header
from nailseg.data.io.images import decode_image
from nailseg.data.issues import DataIssuesError, Issue, IssueError, format_issues
from nailseg.data.manifest import Row, write_manifest
from nailseg.data.threads import map_threads
from nailseg.errors import ConfigError, DataError, OutputError
from nailseg.imaging.overlay import encode_image

Format = Literal["yolo", "coco", "hub"]


@dataclass(frozen=True)
class ImportReport:
    """What `import_dataset` wrote; `str()` of it is for people."""

    csv: Path  # the file written
    class_names: tuple[str, ...]  # by class index, background first
    counts: dict[str, int]  # rows per split
    notes: tuple[str, ...]  # what was tolerated, derived or left out

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        names = f"classes: {', '.join(self.class_names)}"
        if self.class_names != ("background", "nail"):
            names += f". To train: --data.classes '{json.dumps(self.class_names)}'"
        return "\n".join([f"{self.csv}: {sum(self.counts.values())} pairs ({counts})", names, *self.notes])


def import_dataset(
    kind: Format,
    src: str,
    out: str | Path,
    *,
    classes: Sequence[str] | None = None,
    exif: Literal["upright", "stored"] = "upright",
    resplit: bool = False,
    seed: int = 0,
    skip_bad: bool = False,
    columns: str | None = None,
    subset: str | None = None,
    mask_values: dict[str, str] | None = None,
    progress: bool = True,
) -> ImportReport:
    """Reads a source in a foreign format and writes Images/, Masks/ and nails.csv.

    Masks are 8-bit PNG: 0/255 for two classes, class index otherwise. Splits are kept; a source that has
    train without val gives a tenth of train to val (and one to test, if that is missing too), groups whole.

    Args:
        kind: the format.
        src: folder or file; for `hub` also the name of a data set on the Hugging Face hub.
        out: new or empty folder.
        classes: `NAME` keeps a class, `NAME=A,B` merges some, `NAME=*` all that are left; the rest becomes
            background. By default every class that occurs. For `hub`: the foreground's names by mask value.
        exif: the grid of labels on images with an EXIF orientation where the source does not say.
        resplit: deal splits anew (0.1 val, 0.1 test) instead of keeping the source's.
        seed: of the splits that are dealt.
        skip_bad: leave images with faults out and say which, instead of refusing them.
        progress: show a bar on stderr.
        columns: names of the image and the mask column, IMAGE,MASK; only for `hub`.
        subset: name of the data set's configuration; only for `hub`.
        mask_values: class name of each mask value or color, as for `--data.mask_values`; only for `hub`.

    Raises:
        DataIssuesError: (a `DataError`) every label and image that cannot be used.
        DataError: nothing to import, or no source of that format.
        ConfigError: classes that the source does not have.
        OutputError: `out` is not empty, lies in the source, or cannot be written.
    """
    out = Path(out)
    _check_out(out, src)
    hub = {"columns": columns, "subset": subset, "mask_values": mask_values}
    source = _read(kind, src, classes, {key: value for key, value in hub.items() if value is not None})
    names, table, notes = choose_classes(source, classes if kind != "hub" else None)
    twice = [name for name, count in Counter(item.name for item in source.items).items() if count > 1]
    for name in twice:
        message = "expected one image of this name below Images/, found more"
        source.faults.append(Issue("duplicate-row", name, message, "Rename one."))
    _refuse(src, source.faults, skip_bad)
    items = [item for item in sorted(source.items, key=lambda item: item.name) if item.name not in twice]
    if not items:
        raise DataError(f"{src}: expected annotated images, found none. Check SRC and the format.")
    stems = [str(PurePosixPath(item.name).with_suffix("")) for item in items]
    shared = Counter(stems)
    # two images of one stem keep their endings, as in prediction
    jobs = [(i, f"{i.name if shared[stem] > 1 else stem}.png") for i, stem in zip(items, stems, strict=True)]
    scale = 255 if len(names) == 2 and not source.indexed else 1

    def write(job: tuple[Item, str]) -> Counter[str] | Issue:
        try:
            return _write(*job, out, table, scale, exif)
        except IssueError as error:
            return error.issue

    try:
        rows = []
        results = map_threads(write, jobs, "importing", progress)
        for (item, mask), result in zip(jobs, results, strict=True):
            if isinstance(result, Issue):
                source.faults.append(result)
                continue
            source.events.update(result)
            image, extra = f"Images/{item.name}", (("source", item.source),)
            rows.append(Row(image, f"Masks/{mask}", item.split or "", item.group or image, extra))
        _refuse(src, source.faults, skip_bad)
        rows = keep_splits(rows, resplit, seed, notes, src)
        write_manifest(out / "nails.csv", rows)
    except BaseException as error:  # an interrupted import too leaves nothing that looks like a data set
        for name in ("Images", "Masks"):
            shutil.rmtree(out / name, ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputError(f"{out}: expected to write there, found {error.strerror}.") from None
        raise
    notes.extend(source.notes)
    notes.extend(f"{count} {event}" for event, count in source.events.items() if count)
    if source.faults:
        notes.append(f"left out, {len(source.faults)} faults:\n{format_issues(source.faults)}")
    said = Counter(row.split for row in rows)
    counts = {split: said[split] for split in SPLITS}
    return ImportReport(out / "nails.csv", names, counts, tuple(notes))


def _check_out(out: Path, src: str) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: expected a new or empty folder, found something. Import into another one.")
    if Path(src).is_dir() and out.resolve().is_relative_to(Path(src).resolve()):
        raise OutputError(f"{out}: expected a folder outside {src}, found one in it. Import elsewhere.")


def _read(kind: Format, src: str, classes: Sequence[str] | None, hub: dict[str, Any]) -> Source:
    if kind == "hub":
        from nailseg.data.importers.huggingface import read_hub

        return read_hub(src, classes, **hub)
    from nailseg.data.importers.coco import read_coco
    from nailseg.data.importers.yolo import read_yolo

    if hub:
        raise ConfigError(f"expected {', '.join(hub)} with the format hub alone, found {kind}. Leave it out.")
    if not Path(src).exists():
        raise DataError(f"{src}: expected a folder or file to import, found nothing. Check the path.")
    return {"yolo": read_yolo, "coco": read_coco}[kind](Path(src))


def _refuse(src: str, faults: Sequence[Issue], skip_bad: bool) -> None:
    if faults and not skip_bad:
        raise DataIssuesError(src, faults)


def _write(
    item: Item, mask_name: str, out: Path, classes: Mapping[str, int], scale: int, exif: str
) -> Counter[str]:
    """Writes an image and its mask; gives what was tolerated."""
    data = item.read()
    size = decode_image(data, item.source).shape[:2]
    mask, events = _mask(item, data, size, classes, exif)
    image, target = out / "Images" / item.name, out / "Masks" / mask_name
    for path in (image, target):
        path.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(data)
    target.write_bytes(encode_image(mask * np.uint8(scale), ".png"))
    return events


def _mask(
    item: Item, data: bytes, size: tuple[int, int], classes: Mapping[str, int], exif: str
) -> tuple[np.ndarray, Counter[str]]:
    """The mask of the upright image of `size`, uint8 (H, W), class index."""
    header = read_header(data, item.source)
    stored = (header.height, header.width) if header.orientation != 1 else size
    given = item.mask() if item.mask else None
    stated = given.shape[:2] if given is not None else item.size
    unsure = header.orientation != 1 and (stated is None or stored == size)
    if stated is None:
        stated = stored if exif == "stored" else size
    if stated not in (size, stored):
        found = f"(width x height), found {stated[1]} x {stated[0]}"
        message, fix = f"expected labels for {size[1]} x {size[0]} {found}", "Pair it with the right image"
        raise IssueError("size-mismatch", item.source, message, f"{fix}, or leave it out with --skip-bad.")
    turn = exif == "stored" if unsure else stated != size
    mask, events = draw(item.shapes, classes, stated) if given is None else (given, Counter[str]())
    said = {
        "annotations too small to cover a pixel": events["vanished"],
        "annotations with overlapping rings, united as pycocotools does": events["united"],
        f"images with an EXIF orientation, labels taken as {exif} (--exif)": int(unsure),
    }
    return apply_orientation(mask, header.orientation) if turn else mask, Counter(said)
