"""Imports a data set of another format as Images/, Masks/ and dataset.csv.

Images are copied byte for byte. An image with an EXIF orientation has two pixel grids: as stored, and upright
as viewers show it. The size that the source states (COCO), or its mask, tells which grid was labelled; if
there is none or both grids have one size (180 degrees, squares), `exif` decides. Masks are always upright.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from nailseg.data.assign import SPLITS
from nailseg.data.importers.annotation_tools import TOOLS, read_annotations
from nailseg.data.importers.base import Item, Source, choose_classes, complete_splits
from nailseg.data.importers.coco import read_coco
from nailseg.data.importers.huggingface import read_hub
from nailseg.data.importers.rasterize import rasterize
from nailseg.data.importers.yolo import read_yolo
from nailseg.data.io.headers import apply_orientation, read_header
from nailseg.data.io.images import decode_image
from nailseg.data.issues import DataIssuesError, Issue, IssueError, format_issues
from nailseg.data.manifest import Row, write_manifest
from nailseg.data.mask_encoding import encode_mask
from nailseg.data.pairing import name_masks
from nailseg.data.threads import map_threads
from nailseg.errors import ConfigError, DataError, OutputError
from nailseg.imaging.overlay import encode_image
from nailseg.types import DEFAULT_CLASSES, split_class_names

READERS = {"yolo": read_yolo, "coco": read_coco} | {kind: partial(read_annotations, kind) for kind in TOOLS}


@dataclass(frozen=True)
class ImportReport:
    """What `import_dataset` wrote; `str()` gives the text that the command prints."""

    csv: Path
    class_names: tuple[str, ...]  # by class index, background first
    counts: dict[str, int]  # rows per split
    notes: tuple[str, ...]  # what was tolerated, derived or left out

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        names = f"classes: {', '.join(self.class_names)}"
        if self.class_names != DEFAULT_CLASSES:
            names += f". To train: --data.classes '{json.dumps(self.class_names)}'"
        return "\n".join([f"{self.csv}: {sum(self.counts.values())} pairs ({counts})", names, *self.notes])


def import_dataset(
    kind: Literal["yolo", "coco", "labelme", "via", "cvat", "hub"],
    src: str,
    out: str | Path,
    /,
    *,
    classes: Sequence[str] | None = None,
    exif: Literal["upright", "stored"] = "upright",
    resplit: bool = False,
    seed: int = 0,
    skip_bad: bool = False,
    skip_annotations: bool = False,
    columns: str | None = None,
    subset: str | None = None,
    mask_values: dict[str, str] | None = None,
) -> ImportReport:
    """Imports a data set of another format: writes Images/, Masks/ and dataset.csv.

    Masks are 8-bit PNG: 0/255 for two classes, class index otherwise. Splits are kept. If the source has
    train but no val, a tenth of train becomes val (and another tenth test, if that is missing too); groups
    stay whole.

    Args:
        kind: Format of the source: YOLO segmentation, COCO instances (Label Studio exports both), labelme,
            VIA, CVAT for images 1.1, or Hugging Face `datasets` and parquet files (`hub`).
        src: Folder or file to import; for `hub` also the name of a data set on the hub.
        out: New or empty folder to write to.
        classes: Foreground classes: `NAME` keeps one, `NAME=A,B` merges some, `NAME=*` merges all others; the
            rest becomes background. By default all that occur. For `hub`: names in the mask values' order.
        exif: Pixel grid of the labels on images with an EXIF orientation, if the source does not state it.
        resplit: Assign new splits (10% val, 10% test) instead of keeping the source's.
        seed: Seed of the splits that are assigned.
        skip_bad: Leave out images with issues and list them, instead of stopping.
        skip_annotations: Leave out single annotations with issues, and keep their images.
        columns: Names of the image and the mask column, IMAGE,MASK; only for `hub`.
        subset: Configuration of a data set that has several; only for `hub`.
        mask_values: JSON of value or color to class, {"0": "background", "255": "nail"}; only for `hub`.

    Raises:
        DataIssuesError: (A `DataError`) every label and image that cannot be used.
        DataError: Nothing to import, or no source of that format.
        ConfigError: Classes that the source does not have, or an option of another format.
        OutputError: `out` is not empty, lies in the source, or cannot be written.
    """
    classes = classes and split_class_names(classes)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: expected a new or empty folder, found something. Import into another one.")
    if Path(src).is_dir() and out.resolve().is_relative_to(Path(src).resolve()):
        raise OutputError(f"{out}: expected a folder outside {src}, found one in it. Import elsewhere.")
    hub_options = {"columns": columns, "subset": subset, "mask_values": mask_values}
    given = ", ".join(name for name, value in hub_options.items() if value is not None)
    if kind == "hub":
        source = read_hub(src, classes, **hub_options)
    elif given:
        raise ConfigError(f"expected {given} with the format hub only, found {kind}. Leave it out.")
    elif not Path(src).exists():
        raise DataError(f"{src}: expected a folder or file to import, found nothing. Check the path.")
    else:
        source = READERS[kind](Path(src), skip_annotations)
    masks = _name_masks(source)
    if source.issues and not skip_bad:
        raise DataIssuesError(src, source.issues)
    items = sorted((item for item in source.items if item.name in masks), key=lambda item: item.name)
    if not items:
        first = f" The first of {len(source.issues)} issues: {source.issues[0]}" if source.issues else ""
        raise DataError(f"{src}: expected annotated images, found none. Check SRC and the format.{first}")
    class_names, class_indices = ("background", *source.class_names), {}
    if kind != "hub":
        class_names, class_indices = choose_classes(source, classes)

    def write(item: Item) -> tuple[Row, Counter[str]] | Issue:
        image, mask = f"Images/{item.name}", f"Masks/{masks[item.name]}"
        try:
            data = item.read()
            array, events = _make_mask(item, data, class_indices, exif)
        except IssueError as error:
            return error.issue
        values = encode_mask(array, len(class_names), source.indexed)
        for file, content in ((image, data), (mask, encode_image(values, ".png"))):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_bytes(content)
        return Row(image, mask, item.split or "", item.group or image, (("source", item.source),)), events

    rows: list[Row] = []
    try:
        for result in map_threads(write, items, "importing"):
            if isinstance(result, Issue):
                source.issues.append(result)
            else:
                rows.append(result[0])
                source.events.update(result[1])
        if source.issues and not skip_bad:
            raise DataIssuesError(src, source.issues)
        rows = complete_splits(source, rows, resplit, seed)
        write_manifest(out / "dataset.csv", rows)
    except BaseException as error:  # an interrupted import must not leave what looks like a data set
        shutil.rmtree(out / "Images", ignore_errors=True)
        shutil.rmtree(out / "Masks", ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputError(f"{out}: expected to write there, found {error.strerror}.") from None
        raise
    notes = source.notes + [f"{count} {event}" for event, count in source.events.items() if count]
    if source.issues:
        notes.append(f"left out, {len(source.issues)} issues:\n{format_issues(source.issues)}")
    counts = {split: sum(row.split == split for row in rows) for split in SPLITS}
    return ImportReport(out / "dataset.csv", class_names, counts, tuple(notes))


def _name_masks(source: Source) -> dict[str, PurePosixPath]:
    """The mask of each image, both by name; images that would share a file with others become issues."""
    masks = name_masks([PurePosixPath(item.name) for item in source.items])
    image_counts, mask_counts = Counter(item.name for item in source.items), Counter(masks.values())
    names: dict[str, PurePosixPath] = {}
    for image, mask in masks.items():
        if image_counts[str(image)] > 1:
            message = "expected one image of this name below Images/, found more"
        elif mask_counts[mask] > 1:
            message = f"expected a mask of its own, found another image for Masks/{mask}"
        else:
            names[str(image)] = mask
            continue
        source.issues.append(Issue("duplicate-row", str(image), message, "Rename one."))
    return names


def _make_mask(
    item: Item, data: bytes, class_indices: Mapping[str, int], exif: str
) -> tuple[np.ndarray, Counter[str]]:
    """The mask of the upright image, uint8 (H, W), class index, and counts of what was tolerated."""
    header = read_header(data, item.source)
    stored, upright = (header.height, header.width), decode_image(data, item.source).pixels.shape[:2]
    mask, stated = None, item.size
    if item.mask:
        mask = item.mask()
        stated = mask.shape
    is_unclear = header.orientation != 1 and (stated is None or stored == upright)
    size = stated or (stored if exif == "stored" else upright)
    if size not in (upright, stored):
        expected = f"expected labels for {upright[1]} x {upright[0]} (width x height)"
        fix = "Pair it with the right image, or leave it out with --skip-bad."
        raise IssueError("size-mismatch", item.source, f"{expected}, found {size[1]} x {size[0]}", fix)
    events: Counter[str] = Counter()
    if mask is None:
        mask, events = rasterize(item.annotations, class_indices, size)
    is_stored = exif == "stored" if is_unclear else size != upright
    if is_stored:
        mask = apply_orientation(mask, header.orientation)
    events[f"images with an EXIF orientation, labels taken as {exif} (--exif)"] += is_unclear
    return mask, events
