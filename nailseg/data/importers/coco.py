"""COCO instance annotations -> items; every annotation that cannot be read is a fault with its place."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from nailseg.data.importers.base import Source, image_item, split_named
from nailseg.data.importers.rasterize import Shape, ring, run_lengths
from nailseg.data.io.images import read_bytes
from nailseg.data.pairing import list_images
from nailseg.errors import DataError

_TABLES = ("images", "annotations", "categories")
_IDS = ("id", "image_id", "category_id")


def read_coco(src: Path) -> Source:
    """Reads COCO instance annotations: polygons, run lengths (plain and packed), crowds.

    Every JSON of the folder that has images, annotations and categories counts; its images are looked for
    by file_name anywhere below the folder, beside the JSON first. The split is what the JSON's path says.
    """
    files = [src] if src.is_file() else sorted(src.rglob("*.json"))
    root = src if src.is_dir() else src.parent
    if src.is_file() and not list_images(root):
        root = root.parent  # annotations/instances.json beside images/
    by_name: dict[str, list[PurePosixPath]] = {}
    for image in list_images(root):
        by_name.setdefault(image.name, []).append(image)
    source, seen, read = Source(), dict[PurePosixPath, str](), 0
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            content = json.loads(read_bytes(file))
        except ValueError as error:
            message = f"{file}: expected COCO JSON, found something else ({error}). Export it anew."
            raise DataError(message) from None
        if isinstance(content, dict) and all(map(_is_table, map(content.get, _TABLES))):
            _read_file(root, PurePosixPath(name), content, by_name, seen, source)
            read += 1
    if not read:
        raise DataError(
            f"{src}: expected a JSON with images, annotations and categories, found none in {len(files)} "
            "JSON files. Give the COCO file, or the folder that holds it and its images."
        )
    source.events["images that no JSON names, left out"] += sum(map(len, by_name.values())) - len(seen)
    return source


def _is_table(value: object) -> bool:
    """A list of records whose ids can be looked up."""
    return isinstance(value, list) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(key, 0), int | float | str) for key in _IDS)
        for entry in value
    )


def _read_file(
    root: Path,
    file: PurePosixPath,
    content: dict[str, list[dict[str, Any]]],
    by_name: dict[str, list[PurePosixPath]],
    seen: dict[PurePosixPath, str],
    source: Source,
) -> None:
    names = {entry.get("id"): str(entry.get("name")) for entry in content["categories"]}
    source.class_names = list(dict.fromkeys([*source.class_names, *names.values()]))
    of_image: dict[Any, list[dict[str, Any]]] = {entry.get("id"): [] for entry in content["images"]}
    for entry in content["annotations"]:
        if entry.get("image_id") in of_image:
            of_image[entry["image_id"]].append(entry)
        else:
            message = f"expected the id of an image, found image_id {entry.get('image_id')}"
            source.refuse(f"{file} annotation {entry.get('id')}", message)
    ids = Counter(entry.get("id") for entry in content["images"])
    for entry in content["images"]:
        number, name, before = entry.get("id"), entry.get("file_name"), len(source.faults)
        where = f"{file} image {number} ({name})"
        image = _find_picture(file, str(name), by_name)
        size = (entry.get("height"), entry.get("width"))
        if image is None:
            source.refuse(where, "expected one image of this name, found none or several", "missing-file")
        elif image in seen:
            source.refuse(where, f"expected each image once, found it in {seen[image]} too")
        else:
            seen[image] = str(file)
        if ids[number] > 1:
            source.refuse(where, f"expected each id once, found it {ids[number]} times")
        if not all(type(side) is int and side > 0 for side in size):
            source.refuse(where, f"expected its height and width, found {size[0]} and {size[1]}")
        shapes = []
        for annotation in of_image[number] if len(source.faults) == before else []:
            try:
                shapes.append(_shape(annotation, names, size, source.events))
            except ValueError as error:
                source.refuse(f"{file} annotation {annotation.get('id')} ({name})", str(error))
        if image is not None and len(source.faults) == before:
            split = _split_of(file) or split_named(image.parts[:-1])
            group = None if entry.get("video_id") is None else f"video {entry['video_id']}"
            source.items.append(image_item(root, image, split, group, shapes=tuple(shapes), size=size))


def _split_of(file: PurePosixPath) -> str | None:
    """train/_annotations.coco.json and annotations/instances_train2017.json speak of train."""
    return split_named([*file.parent.parts, *re.split(r"[^A-Za-z0-9]+", file.stem)])


def _find_picture(
    file: PurePosixPath, name: str, by_name: dict[str, list[PurePosixPath]]
) -> PurePosixPath | None:
    """The image that ends in `name`: beside the JSON, or in a folder of its split, or the only one."""
    wanted = PurePosixPath(name.replace("\\", "/")).parts
    found = [p for p in by_name.get(wanted[-1] if wanted else "", []) if p.parts[-len(wanted) :] == wanted]
    split = _split_of(file)
    beside = [p for p in found if p == file.parent / name]
    of_split = [p for p in found if split is not None and split_named(p.parts[:-1]) == split]
    return next((matches[0] for matches in (beside, of_split, found) if len(matches) == 1), None)


def _shape(annotation: dict[str, Any], names: dict[Any, str], size: Any, events: Counter[str]) -> Shape:
    category, crowd = names.get(annotation.get("category_id")), bool(annotation.get("iscrowd"))
    if category is None:
        raise ValueError(f"expected a category id of the file, found {annotation.get('category_id')}")
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        if list(outline.get("size") or []) != list(size):
            raise ValueError(f"expected run lengths of size {list(size)}, found {outline.get('size')}")
        return Shape(category, counts=run_lengths(outline.get("counts"), size), crowd=crowd)
    if not (isinstance(outline, list) and outline and all(isinstance(part, list) for part in outline)):
        raise ValueError("expected a segmentation (polygons or run lengths), found none")
    rings = [ring(part, size[1], size[0]) for part in outline]
    events["outlines cut at the image's border"] += any(cut for _, cut in rings)
    return Shape(category, tuple(points for points, _ in rings), crowd=crowd)
