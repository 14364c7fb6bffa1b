"""Other people's formats -> Images/, Masks/ and nails.csv; what was left out or tolerated is said.

Pictures are copied byte for byte. A picture with an EXIF orientation has two pixel grids: as stored, and
upright as viewers, browsers and this package show it. Where the source states the size (COCO) or brings a
mask, that tells which grid was labelled; where it does not, or both look alike (180 degrees, squares),
upright is assumed and said. Masks are always written for the upright picture.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import cv2
import numpy as np
from tqdm import tqdm

from nailseg.data.checks import DataFaults
from nailseg.data.exif import upright
from nailseg.data.faults import Fault, FaultError, list_faults, refuse
from nailseg.data.headers import read_header
from nailseg.data.import_choices import choose_classes, keep_splits
from nailseg.data.import_items import Item, Source
from nailseg.data.manifest import Row, write_manifest
from nailseg.data.rasterise import draw
from nailseg.data.reading import decode_image
from nailseg.errors import ConfigError, DataError, OutputError

Format = Literal["yolo", "coco", "hub"]


@dataclass(frozen=True)
class ImportReport:
    """What `import_data` wrote; `str()` of it is for people.

    Attributes:
        csv: the file written.
        class_names: by class index, background first.
        counts: rows per split.
        notes: what was tolerated, derived or left out.
    """

    csv: Path
    class_names: tuple[str, ...]
    counts: dict[str, int]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        names = f"classes: {', '.join(self.class_names)}"
        if self.class_names != ("background", "nail"):
            names += f". To train: --data.classes '{json.dumps(self.class_names)}'"
        return "\n".join([f"{self.csv}: {sum(self.counts.values())} pairs ({counts})", names, *self.notes])


@dataclass(frozen=True)
class _Task:
    """What writing one item needs to know."""

    out: Path
    classes: Mapping[str, int]
    binary: bool
    exif: str
    masks: Mapping[str, str] = field(default_factory=dict)


def import_data(
    kind: Format,
    src: str,
    out: str | Path,
    classes: Sequence[str] | None = None,
    exif: Literal["upright", "stored"] = "upright",
    resplit: bool = False,
    seed: int = 0,
    skip_bad: bool = False,
    progress: bool = True,
    **hub: Any,
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
        exif: the grid of labels on pictures with an EXIF orientation where the source does not say.
        resplit: deal splits anew (0.1 val, 0.1 test) instead of keeping the source's.
        seed: of the splits that are dealt.
        skip_bad: leave pictures with faults out and say which, instead of refusing them.
        progress: show a bar on stderr.
        **hub: what `import_hub.read_hub` takes further.

    Raises:
        DataFaults: (a `DataError`) every label and picture that cannot be used.
        DataError: nothing to import, or no source of that format.
        ConfigError: classes that the source does not have.
        OutputError: `out` is not empty, lies in the source, or cannot be written.
    """
    out = Path(out)
    _check_out(out, src)
    source = _read(kind, src, classes, hub)
    names, table, notes = choose_classes(source, classes if kind != "hub" else None)
    twice = [name for name, count in Counter(item.name for item in source.items).items() if count > 1]
    source.faults.extend(
        Fault(
            "doubled-row", name, "expected one picture of this name below Images/, found more", "Rename one."
        )
        for name in twice
    )
    _refuse(src, source.faults, skip_bad)
    items = [item for item in sorted(source.items, key=lambda item: item.name) if item.name not in twice]
    if not items:
        raise DataError(f"{src}: expected annotated pictures, found none. Check SRC and the format.")
    stems = Counter(PurePosixPath(item.name).with_suffix("") for item in items)
    masks = {  # two pictures of one stem keep their endings, as in prediction
        item.name: f"{item.name if stems[stem] > 1 else stem}.png"
        for item in items
        for stem in [PurePosixPath(item.name).with_suffix("")]
    }
    task = _Task(out, table, len(names) == 2 and not source.indexed, exif, masks)
    try:
        written = _write_all(task, items, source, progress)
        _refuse(src, source.faults, skip_bad)
        rows = [
            Row(
                f"Images/{i.name}",
                f"Masks/{masks[i.name]}",
                i.split or "",
                i.group or "",
                (("source", i.source),),
            )
            for i in written
        ]
        rows = [row if row.group else replace(row, group=row.image) for row in rows]
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
        notes.append(f"left out, {len(source.faults)} faults:\n{list_faults(source.faults)}")
    counts = Counter(row.split for row in rows)
    return ImportReport(
        out / "nails.csv", names, {s: counts[s] for s in ("train", "val", "test")}, tuple(notes)
    )


def _check_out(out: Path, src: str) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: expected a new or empty folder, found something. Import into another one.")
    if Path(src).is_dir() and out.resolve().is_relative_to(Path(src).resolve()):
        raise OutputError(f"{out}: expected a folder outside {src}, found one in it. Import elsewhere.")


def _read(kind: Format, src: str, classes: Sequence[str] | None, hub: dict[str, Any]) -> Source:
    if kind == "hub":
        from nailseg.data.import_hub import read_hub

        return read_hub(src, classes, **hub)
    from nailseg.data.import_coco import read_coco
    from nailseg.data.import_yolo import read_yolo

    if hub:
        raise ConfigError(f"expected {', '.join(hub)} with the format hub alone, found {kind}. Leave it out.")
    if not Path(src).exists():
        raise DataError(f"{src}: expected a folder or file to import, found nothing. Check the path.")
    return {"yolo": read_yolo, "coco": read_coco}[kind](Path(src))


def _refuse(src: str, faults: Sequence[Fault], skip_bad: bool) -> None:
    if faults and not skip_bad:
        raise DataFaults(src, faults)


def _write_all(task: _Task, items: Sequence[Item], source: Source, progress: bool) -> list[Item]:
    """Writes pictures and masks; gives those that went well, adds the faults of the others."""
    written = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        results = pool.map(lambda item: _write(task, item), items)
        bar = tqdm(
            results, "importing", len(items), unit="image", file=sys.stderr, disable=not progress, leave=False
        )
        for item, result in zip(items, bar, strict=True):
            if isinstance(result, Fault):
                source.faults.append(result)
            else:
                source.events.update(result)
                written.append(item)
    return written


def _write(task: _Task, item: Item) -> Counter[str] | Fault:
    try:
        data = item.read()
        size = decode_image(data, item.source).shape[:2]
        mask, events = _mask(task, item, data, size)
    except FaultError as error:
        return error.fault
    image, target = task.out / "Images" / item.name, task.out / "Masks" / task.masks[item.name]
    for path in (image, target):
        path.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(data)
    target.write_bytes(cv2.imencode(".png", mask * np.uint8(255) if task.binary else mask)[1].tobytes())
    return events


def _mask(task: _Task, item: Item, data: bytes, size: tuple[int, int]) -> tuple[np.ndarray, Counter[str]]:
    """The mask of the upright picture, uint8 (H, W), class index."""
    header = read_header(data, item.source)
    stored = (header.height, header.width) if header.orientation != 1 else size
    given = item.mask() if item.mask else None
    stated = given.shape[:2] if given is not None else item.size
    unsure = header.orientation != 1 and (stated is None or stored == size)
    if stated is None:
        stated = stored if task.exif == "stored" else size
    if stated not in (size, stored):
        raise refuse(
            "size-mismatch",
            item.source,
            f"expected labels for {size[1]} x {size[0]} (width x height), found {stated[1]} x {stated[0]}",
            "Pair it with the right picture, or leave it out with --skip-bad.",
        )
    turn = task.exif == "stored" if unsure else stated != size
    mask, events = draw(item.shapes, task.classes, stated) if given is None else (given, Counter[str]())
    said = {
        "annotations too small to cover a pixel": events["vanished"],
        "annotations with overlapping rings, united as pycocotools does": events["united"],
        f"pictures with an EXIF orientation, labels taken as {task.exif} (--exif)": int(unsure),
    }
    return upright(mask, header.orientation) if turn else mask, Counter(said)
