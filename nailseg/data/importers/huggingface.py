"""Reads Hugging Face data sets: on the hub, saved to disk, as parquet files, or as an imagefolder."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from huggingface_hub import HfApi, constants

from nailseg.data.assign import find_split
from nailseg.data.importers.base import Item, Source
from nailseg.data.io.headers import IMAGE_SUFFIXES, read_header
from nailseg.data.io.images import read_bytes
from nailseg.data.io.masks import decode_mask_values
from nailseg.data.issues import IssueError
from nailseg.data.mask_content import MaskContent
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.mask_inference import infer_encoding
from nailseg.errors import ConfigError, DataError
from nailseg.imaging.overlay import encode_image
from nailseg.types import IGNORE_INDEX

IMAGE_COLUMNS = ("image", "images", "img", "pixel_values", "photo", "picture")
MASK_COLUMNS = ("mask", "masks", "annotation", "annotations", "label", "labels", "segmentation", "label_mask")
GROUP_COLUMNS = ("group", "subject", "subject_id", "patient", "patient_id", "video", "video_id")
TIMEOUT = 10  # seconds that the hub may take to answer whether it has a data set
_LOCK = threading.Lock()


def read_hub(
    src: str, classes: Sequence[str] | None, columns: str | None, subset: str | None, mask_values: dict | None
) -> Source:
    """Reads a data set with a column of images and one of masks; the options are `import_dataset`'s.

    Raises:
        DataError: no such data set, no network, no such columns, masks whose encoding is not clear.
    """
    names = ("background", *(classes or ["nail"]))
    if any("=" in name for name in names):
        raise ConfigError("--classes: expected names by mask value; --mask-values merges masks of the hub.")
    encoding = None if mask_values is None else MaskEncoding.from_mapping(mask_values, names)
    has_colors = encoding is not None and encoding.has_colors
    source = Source(class_names=list(names[1:]))
    contents: list[MaskContent] = []

    def read_mask(where: str, read_values: Callable[[], bytes]) -> np.ndarray:  # once the encoding is known
        values, lossy, _ = decode_mask_values(read_values(), where, colors=encoding.has_colors)
        return encoding.apply(values, lossy, where)

    for split, whole_table in _load(src, subset).items():
        table, image, mask, group = _select_columns(src, whole_table, columns)
        for number in range(len(table)):
            where = f"{src} {split} row {number}"
            read_image, read_values = (partial(_read_cell, table, number, c, where) for c in (image, mask))
            try:
                kind = read_header(read_image(), where).format
                decoded = decode_mask_values(read_values(), where, colors=has_colors)
            except IssueError as error:
                source.issues.append(error.issue)
                continue
            contents.append(MaskContent.from_values(where, *decoded))
            row, suffix = table[number], next(s for s, known in IMAGE_SUFFIXES.items() if known == kind)
            path = row[image]["path"] if isinstance(row[image], dict) else ""
            file = PureWindowsPath(path or "").name  # takes forward slashes, too
            name, origin = f"{split}/{number:06d}{suffix}", f"{split} {number} {file}".strip()
            group_name = f"{group} {row[group]}" if group else None
            read = partial(read_mask, where, read_values)
            source.items.append(Item(name, origin, find_split([split]), group_name, read_image, mask=read))
    encoding, issues = infer_encoding(contents, names, encoding)
    if encoding is None or (issues and len(issues) == len(contents)):
        raise DataError(
            f"{src}: expected masks of {', '.join(names)}; found {issues[0]} "
            "Here the options are called --classes (names by mask value) and --mask-values."
        )
    source.issues += issues
    bad = {issue.file for issue in issues}
    pairs = zip(source.items, contents, strict=True)
    source.items = [item for item, content in pairs if content.file not in bad]
    source.indexed = IGNORE_INDEX in dict(encoding.mapping).values()
    if source.indexed and len(names) == 2:
        meaning = json.dumps({"0": names[0], "1": names[1], "255": "ignore"})
        source.notes.append(f"masks are 0, 1 and 255 (ignore). To train: --data.mask_values '{meaning}'")
    return source


def _read_cell(table: Any, number: int, column: str, where: str) -> bytes:
    """The bytes of the image or mask file of a row."""
    with _LOCK:  # `datasets` does not promise that several threads may read
        cell = table[number][column]
    if not cell:
        message, fix = f"expected an image in column {column}, found none", "Leave it out: --skip-bad."
        raise IssueError("missing-file", where, message, fix)
    if isinstance(cell, dict):
        return cell["bytes"] or read_bytes(cell["path"])
    array = np.asarray(cell)
    if array.min(initial=0) < 0 or array.max(initial=0) > 65535 or not np.array_equal(array, np.rint(array)):
        message = "expected whole numbers from 0 to 65535, found others"
        raise IssueError("image-format", where, message, "Write images as files, or as uint8 arrays.")
    kind = np.uint8 if array.max(initial=0) <= 255 else np.uint16
    return encode_image(array.astype(kind), ".png")


def _load(src: str, subset: str | None) -> dict[str, Any]:
    folder = Path(src)
    try:
        import datasets
    except ImportError as error:
        missing = f"nailseg import hub needs the package datasets, which cannot be imported ({error})."
        raise ConfigError(f"{missing} Run: pip install datasets") from error
    try:
        if not folder.exists() and not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(src, timeout=TIMEOUT)  # fails sooner than `datasets`
        if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(src)
        elif (
            files := [folder] if folder.suffix == ".parquet" else sorted(map(str, folder.rglob("*.parquet")))
        ):
            by_split = defaultdict(list)  # names begin with the split, as in train-00000-of-00001.parquet
            for file in map(str, files):
                by_split[find_split([Path(file).stem.split("-")[0]]) or "all"].append(file)
            loaded = datasets.load_dataset("parquet", data_files=by_split)
        elif folder.exists():
            loaded = datasets.load_dataset("imagefolder", data_dir=src)
        else:
            loaded = datasets.load_dataset(src, subset)
    except Exception as error:  # whatever the libraries and the network can raise
        raise DataError(
            f"{src}: expected a folder, or owner/name on the hub, that the datasets library opens; found "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}. Check SRC, --subset, the network "
            "and access (hf auth login); HF_HUB_OFFLINE=1 uses what was downloaded before."
        ) from None
    return dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or "all"): loaded}


def _holds_files(feature: Any) -> bool:
    """Whether a column has image files: decoded by `datasets`, as bytes, or as parquet stores images."""
    import datasets

    is_struct = isinstance(feature, dict) and feature.keys() >= {"bytes", "path"}
    return isinstance(feature, datasets.Image) or getattr(feature, "dtype", "") == "binary" or is_struct


def _holds_arrays(feature: Any) -> bool:
    """Whether a column has arrays (H, W) or (H, W, 3), fixed or as nested lists."""
    import datasets

    if isinstance(feature, datasets.Array2D | datasets.Array3D):
        return True
    inner = getattr(feature, "feature", None)
    return getattr(inner, "feature", None) is not None


def _select_columns(src: str, table: Any, requested: str | None) -> tuple[Any, str, str, str | None]:
    """A table of the image, mask and group columns alone, and their names."""
    import datasets

    features = table.features
    columns = [name for name, kind in features.items() if _holds_files(kind) or _holds_arrays(kind)]
    if requested is not None:
        found = [name.strip() for name in requested.split(",")]
    else:
        known = (IMAGE_COLUMNS, MASK_COLUMNS)
        found = [next((c for c in columns if c.lower() in names), None) for names in known]
        if len(columns) == 2 and found.count(None) == 1:
            found = [name or next(c for c in columns if c not in found) for name in found]
    if len(found) != 2 or not set(found) <= set(columns) or found[0] == found[1]:
        raise DataError(
            f"{src}: expected a column of images and one of masks, found image columns "
            f"{', '.join(columns) or '(none)'} among {', '.join(features)}. Name them: --columns image,mask"
        )
    group = next((name for name in GROUP_COLUMNS if name in features), None)
    table = table.select_columns([*found, group] if group else found)
    for name in found:  # the files' own bytes instead of decoded images
        if _holds_files(features[name]):
            table = table.cast_column(name, datasets.Image(decode=False))
    return table, found[0], found[1], group
