"""Hugging Face data sets -> items: a name on the hub, a `save_to_disk` folder, or an imagefolder."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nailseg.data.importers.base import Item, Source, split_named
from nailseg.data.io.headers import read_header
from nailseg.data.io.images import read_bytes
from nailseg.data.io.masks import decode_mask_values
from nailseg.data.issues import Issue, IssueError
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.mask_inference import MaskContent, check_values, count_values, infer_encoding
from nailseg.errors import ConfigError, DataError
from nailseg.types import IGNORE_INDEX

IMAGE_COLUMNS = ("image", "images", "img", "pixel_values", "photo", "image")
MASK_COLUMNS = ("mask", "masks", "annotation", "annotations", "label", "labels", "segmentation", "label_mask")
GROUP_COLUMNS = ("group", "subject", "subject_id", "patient", "patient_id", "video", "video_id")
SUFFIXES = {"jpeg": ".jpg", "tiff": ".tif"}
SECONDS = 10
"""How long the hub may take to say whether it has a data set: without a network people should not wait."""


def read_hub(
    src: str,
    classes: Sequence[str] | None = None,
    columns: str | None = None,
    subset: str | None = None,
    mask_values: Mapping[Any, Any] | str | None = None,
) -> Source:
    """Reads a data set of image and mask columns.

    Args:
        src: folder, or `owner/name` on the hub.
        classes: names of the foreground classes, by mask value; `[nail]` by default.
        columns: `IMAGE,MASK` where the names of the columns do not tell.
        subset: the configuration of a data set that has several.
        mask_values: what mask values or colours mean, as `MaskEncoding.from_mapping` takes it, or as JSON.

    Raises:
        DataError: no such data set, no network, no such columns, masks whose values have no sure meaning.
    """
    names = ("background", *(classes or ["nail"]))
    if any("=" in name for name in names):
        message = "--classes: expected names by mask value; masks of the hub merge with --mask-values."
        raise ConfigError(message)
    if isinstance(mask_values, str):
        try:
            mask_values = dict(json.loads(mask_values))
        except (TypeError, ValueError):
            text = '{"0": "background", "255": "nail"}'
            raise ConfigError(f"--mask-values: expected JSON like {text}, found {mask_values}.") from None
    values = None if mask_values is None else MaskEncoding.from_mapping(mask_values, names)
    source = Source(class_names=list(names[1:]))
    contents: list[MaskContent] = []
    found: list[tuple[Item, str, Callable[[], bytes]]] = []
    for split, table in _load(src, subset).items():
        for item, where, read_mask in _rows(src, split, table, columns, source.faults):
            try:
                colors = values is not None and values.has_colors
                raw, lossy = decode_mask_values(read_mask(), where, colors=colors)
            except IssueError as error:
                source.faults.append(error.issue)
                continue
            contents.append(MaskContent(where, count_values(raw), lossy))
            found.append((item, where, read_mask))
    if values is None:
        values, faults = infer_encoding(contents, names)
    else:
        faults = [fault for content in contents if (fault := check_values(content, values))]
    if values is None or (faults and len(faults) == len(contents)):
        raise DataError(
            f"{src}: expected masks of {', '.join(names)}; found {faults[0]} "
            "Here the options are called --classes (names by mask value) and --mask-values."
        )
    source.faults.extend(faults)
    bad = {fault.file for fault in faults}

    def read(read_mask: Callable[[], bytes], where: str) -> np.ndarray:
        return values.apply(*decode_mask_values(read_mask(), where, colors=values.has_colors), where)

    source.items = [
        replace(item, mask=partial(read, read_mask, where))
        for item, where, read_mask in found
        if where not in bad
    ]
    source.indexed = IGNORE_INDEX in dict(values.mapping).values()
    if source.indexed and len(names) == 2:
        meaning = json.dumps({"0": names[0], "1": names[1], "255": "ignore"})
        source.notes.append(f"masks are 0, 1 and 255 (ignore). To train: --data.mask_values '{meaning}'")
    return source


def _rows(
    src: str, split: str, table: Any, columns: str | None, faults: list[Issue]
) -> Iterator[tuple[Item, str, Callable[[], bytes]]]:
    """Item, what errors call it, and what reads its mask's bytes, for every row with an image."""
    import datasets

    image, mask = _columns(src, table.features, columns)
    group = next((name for name in GROUP_COLUMNS if name in table.features), None)
    rows, lock = table.select_columns([image, mask, *([group] if group else [])]), threading.Lock()
    for name in (image, mask):  # the files' own bytes instead of decoded images
        rows = rows.cast_column(name, datasets.Image(decode=False))

    def read(number: int, column: str) -> bytes:
        with lock:  # `datasets` does not promise that several threads may read
            cell = rows[number][column]
        if not cell:
            message, fix = f"expected an image in column {column}, found none", "Leave it out: --skip-bad."
            raise IssueError("missing-file", f"{src} {split} row {number}", message, fix)
        return cell["bytes"] or read_bytes(cell["path"])

    for number in range(len(rows)):
        where = f"{src} {split} row {number}"
        try:
            kind = read_header(read(number, image), where).format
        except IssueError as error:
            faults.append(error.issue)
            continue
        row = rows[number]
        file = PurePosixPath(str(row[image]["path"] or "").replace("\\", "/")).name
        item = Item(
            f"{split}/{number:06d}{SUFFIXES.get(kind, f'.{kind}')}",
            f"{split} {number} {file}".strip(),
            split_named([split]),
            f"{group} {row[group]}" if group else None,
            partial(read, number, image),
        )
        yield item, where, partial(read, number, mask)


def _load(src: str, subset: str | None) -> dict[str, Any]:
    """Splits by name. Imports of `datasets` take seconds, so the hub is asked first whether it is there."""
    folder = Path(src)
    if not folder.exists():
        _ask_hub(src)
    import datasets

    try:
        if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(src)
        elif folder.exists():
            loaded = datasets.load_dataset("imagefolder", data_dir=src)
        else:
            loaded = datasets.load_dataset(src, subset)
    except Exception as error:  # whatever the library, its readers and the network can raise
        raise DataError(
            f"{src}: expected a data set that the datasets library opens, found {_say(error, 300)}. "
            "Check SRC, --subset and the network."
        ) from None
    return dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or "all"): loaded}


def _ask_hub(src: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return  # what is cached can be loaded
    try:
        HfApi().dataset_info(src, timeout=SECONDS)
    except HFValidationError:
        message = f"{src}: expected a folder or owner/name on the hub, found neither. Check it."
        raise DataError(message) from None
    except Exception as error:  # the HTTP library underneath changes its names between releases
        raise DataError(
            f"{src}: expected a folder, or a data set on the hub; found no such folder, and the hub gave "
            f"{_say(error, 200)}. Check name, network and access (hf auth login); "
            "HF_HUB_OFFLINE=1 uses what was downloaded before."
        ) from None


def _say(error: Exception, limit: int) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:limit]}"


def _columns(src: str, features: Mapping[str, Any], wanted: str | None) -> tuple[str, str]:
    import datasets

    pictures = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    if wanted is not None:
        found = [name.strip() for name in wanted.split(",")]
    else:
        known = (IMAGE_COLUMNS, MASK_COLUMNS)
        found = [next((n for n in pictures if n.lower() in names), None) for names in known]
        if None in found and len(pictures) == 2 and found != [None, None]:
            found = [name or next(n for n in pictures if n not in found) for name in found]
    if len(found) != 2 or not set(found) <= set(pictures) or found[0] == found[1]:
        raise DataError(
            f"{src}: expected a column of images and one of masks, found image columns "
            f"{', '.join(pictures) or '(none)'} among {', '.join(features)}. Name them: --columns image,mask"
        )
    return found[0], found[1]
