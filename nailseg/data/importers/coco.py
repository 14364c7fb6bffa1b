"""Reads data sets with COCO instance annotations."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from nailseg.data.importers.base import Source, find_split, label_issue, parse_label
from nailseg.data.importers.rasterize import Annotation, parse_ring, parse_run_lengths
from nailseg.data.io.images import read_bytes
from nailseg.data.issues import Issue
from nailseg.data.pairing import list_images
from nailseg.errors import DataError

Entry = dict[str, Any]
_TABLES = ("images", "annotations", "categories")
_IDS = ("id", "image_id", "category_id")


def read_coco(src: Path) -> Source:
    """Reads COCO instance annotations: polygons, run lengths (plain and compressed), crowds.

    Every JSON of the folder that has images, annotations and categories is read. Its images are searched by
    file_name anywhere below the folder, beside the JSON first. The path of the JSON names the split.

    Raises:
        DataError: a file that is not JSON, or no JSON with the three tables.
    """
    paths = [src] if src.is_file() else sorted(src.rglob("*.json"))
    root = src if src.is_dir() else src.parent
    if src.is_file() and not list_images(root):
        root = root.parent  # annotations/instances.json beside images/
    images: dict[str, list[PurePosixPath]] = defaultdict(list)  # by file name
    for image in list_images(root):
        images[image.name].append(image)
    listed_in: dict[PurePosixPath, str] = {}  # image -> the first JSON that lists it
    source, n_files = Source(root), 0
    for path in paths:
        try:
            content = json.loads(read_bytes(path))
        except ValueError as error:
            message = f"{path}: expected COCO JSON, found something else ({error}). Export it anew."
            raise DataError(message) from None
        if isinstance(content, dict) and all(_is_table(content.get(table)) for table in _TABLES):
            n_files += 1
            _read_file(PurePosixPath(path.relative_to(root).as_posix()), content, images, listed_in, source)
    if not n_files:
        raise DataError(
            f"{src}: expected a JSON with images, annotations and categories, found none in {len(paths)} "
            "JSON files. Give the COCO file, or the folder that holds it and its images."
        )
    n_images = sum(map(len, images.values()))
    source.events["images that no JSON lists, left out"] += n_images - len(listed_in)
    return source


def _is_table(value: object) -> bool:
    """Whether this is a list of records with hashable ids."""
    return isinstance(value, list) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(key, 0), int | float | str) for key in _IDS)
        for entry in value
    )


def _read_file(
    file: PurePosixPath,
    content: Mapping[str, list[Entry]],
    images: Mapping[str, list[PurePosixPath]],
    listed_in: dict[PurePosixPath, str],
    source: Source,
) -> None:
    """Adds each image of a JSON to the source, with its annotations or with what is wrong with them."""
    # train/_annotations.coco.json and annotations/instances_train2017.json are train
    split = find_split([*file.parent.parts, *re.split(r"[^A-Za-z0-9]+", file.stem)])
    categories = {entry.get("id"): str(entry.get("name")) for entry in content["categories"]}
    source.class_names = list(dict.fromkeys([*source.class_names, *categories.values()]))
    ids = Counter(entry.get("id") for entry in content["images"])
    labels: dict[Any, list[Entry]] = defaultdict(list)  # annotations by image id
    for entry in content["annotations"]:
        labels[entry.get("image_id")].append(entry)
        if entry.get("image_id") not in ids:
            message = f"expected the id of an image, found image_id {entry.get('image_id')}"
            source.issues.append(label_issue(f"{file} annotation {entry.get('id')}", message))
    for entry in content["images"]:
        name, number, size = (
            entry.get("file_name"),
            entry.get("id"),
            (entry.get("height"), entry.get("width")),
        )
        image = _find_image(str(name), file, split, images)
        found = _check_image(f"{file} image {number} ({name})", image, ids[number], size, listed_in)
        if image is not None:
            listed_in.setdefault(image, str(file))
        if not found:
            found = [
                parse_label(f"{file} annotation {label.get('id')} ({name})", _parse, label, categories, size)
                for label in labels[number]
            ]
        group = None if entry.get("video_id") is None else f"video {entry['video_id']}"
        source.add_image(image, found, split, group, size)


def _find_image(
    name: str, file: PurePosixPath, split: str | None, images: Mapping[str, list[PurePosixPath]]
) -> PurePosixPath | None:
    """Finds the image with this path: beside the JSON, in a folder of its split, or the only one."""
    wanted = PurePosixPath(name.replace("\\", "/"))
    found = [p for p in images.get(wanted.name, []) if p.parts[-len(wanted.parts) :] == wanted.parts]
    beside = [p for p in found if p == file.parent / name]
    of_split = [p for p in found if split is not None and find_split(p.parts[:-1]) == split]
    return next((matches[0] for matches in (beside, of_split, found) if len(matches) == 1), None)


def _check_image(
    where: str, image: PurePosixPath | None, n_ids: int, size: Any, listed_in: Mapping[PurePosixPath, str]
) -> list[Annotation | Issue]:
    """Returns the issues of the entry of an image."""
    issues: list[Annotation | Issue] = []
    if image is None:
        message = "expected one image of this name, found none or several"
        issues.append(label_issue(where, message, "missing-file"))
    elif image in listed_in:
        issues.append(label_issue(where, f"expected each image once, found it in {listed_in[image]} too"))
    if n_ids > 1:
        issues.append(label_issue(where, f"expected each id once, found it {n_ids} times"))
    if not all(type(side) is int and side > 0 for side in size):
        issues.append(label_issue(where, f"expected its height and width, found {size[0]} and {size[1]}"))
    return issues


def _parse(label: Entry, categories: Mapping[Any, str], size: tuple[int, int]) -> Annotation:
    category, crowd = categories.get(label.get("category_id")), bool(label.get("iscrowd"))
    if category is None:
        raise ValueError(f"expected a category id of the file, found {label.get('category_id')}")
    region = label.get("segmentation")
    if isinstance(region, dict):
        if region.get("size") != list(size):
            raise ValueError(f"expected run lengths of size {list(size)}, found {region.get('size')}")
        return Annotation(category, counts=parse_run_lengths(region.get("counts"), size), crowd=crowd)
    if not (isinstance(region, list) and region and all(isinstance(part, list) for part in region)):
        raise ValueError("expected a segmentation (polygons or run lengths), found none")
    rings = [parse_ring(part, width=size[1], height=size[0]) for part in region]
    return Annotation(category, tuple(rings), crowd=crowd)
