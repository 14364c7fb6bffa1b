"""Reads data sets with COCO instance annotations."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from nailseg.data.assign import find_split
from nailseg.data.importers.base import Source, label_issue, parse_label
from nailseg.data.importers.rasterize import Annotation, parse_ring, parse_run_lengths
from nailseg.data.io.images import read_bytes, read_image_size
from nailseg.data.pairing import list_images
from nailseg.errors import DataError

Images = dict[str, list[PurePosixPath]]


def read_coco(src: Path, skip_annotations: bool = False) -> Source:
    """Reads COCO instance annotations: polygons, run lengths (plain and compressed), crowds.

    Every JSON of the folder that has images, annotations and categories is read. Its images are searched by
    file_name anywhere below the folder, beside the JSON first. The path of the JSON names the split.

    Raises:
        DataError: a file that is not JSON, or no JSON with the three tables.
    """
    paths = [src] if src.is_file() else sorted(src.rglob("*.json"))
    tables = []
    for path in paths:
        try:
            content = json.loads(read_bytes(path))
        except ValueError as error:
            message = f"{path}: expected COCO JSON, found something else ({error}). Export it anew."
            raise DataError(message) from None
        names = ("images", "annotations", "categories")
        if isinstance(content, dict) and all(_is_table(content.get(name)) for name in names):
            tables.append((path, content))
    if not tables:
        raise DataError(
            f"{src}: expected a JSON with images, annotations and categories, found none in {len(paths)} "
            "JSON files. Give the COCO file, or the folder that holds it and its images."
        )
    return read_tables(find_root(src), tables, skip_annotations)


def find_root(src: Path) -> Path:
    """The folder of the images of a source, which is a folder or a file of annotations."""
    root = src if src.is_dir() else src.parent
    # annotations/instances.json beside images/
    return root.parent if src.is_file() and not list_images(root) else root


def read_tables(
    root: Path, tables: Sequence[tuple[Path, dict[str, list[dict]]]], skip_annotations: bool = False
) -> Source:
    """Reads COCO's tables (`images`, `annotations`, `categories`) of one or several files below a root."""
    images: Images = defaultdict(list)  # by file name
    for image in list_images(root):
        images[image.name].append(image)
    listed_in: dict[PurePosixPath, str] = {}  # image -> the first file that lists it
    source = Source(root, skip_annotations=skip_annotations)
    for path, content in tables:
        _read_file(PurePosixPath(path.relative_to(root).as_posix()), content, images, listed_in, source)
    source.events["images that no JSON lists, left out"] += sum(map(len, images.values())) - len(listed_in)
    return source


def _is_table(value: object) -> bool:
    """Whether this is a list of records with hashable ids."""
    if not (isinstance(value, list) and all(isinstance(entry, dict) for entry in value)):
        return False
    ids = [entry.get(key, 0) for entry in value for key in ("id", "image_id", "category_id")]
    return all(isinstance(number, int | float | str) for number in ids)


def _read_file(
    file: PurePosixPath, content: dict, images: Images, listed_in: dict[PurePosixPath, str], source: Source
) -> None:
    """Adds each image of a JSON to the source, with its annotations or with its issues."""
    # train/_annotations.coco.json and annotations/instances_train2017.json are train
    split = find_split([*file.parent.parts, *re.split(r"[^A-Za-z0-9]+", file.stem)])
    # some exporters write the same id as a number and as a text
    categories = {str(entry.get("id")): str(entry.get("name")) for entry in content["categories"]}
    source.class_names = list(dict.fromkeys([*source.class_names, *categories.values()]))
    ids = Counter(str(entry.get("id")) for entry in content["images"])
    labels: dict[Any, list[dict[str, Any]]] = defaultdict(list)  # annotations by image id
    for label in content["annotations"]:
        labels[str(label.get("image_id"))].append(label)
        if str(label.get("image_id")) not in ids:
            message = f"expected the id of an image, found image_id {label.get('image_id')}"
            source.issues.append(label_issue(f"{file} annotation {label.get('id')}", message))
    for entry in content["images"]:
        image_id, name = str(entry.get("id")), str(entry.get("file_name"))
        image = _find_image(name, file, split, images)
        size = (entry.get("height"), entry.get("width"))
        if size == (None, None) and image is not None:
            with suppress(DataError):  # the image itself is reported later
                size = read_image_size(source.root / image)
        has_size = all(type(side) is int and side > 0 for side in size)
        problems = {
            "expected one image of this name, found none or several": image is None,
            f"expected each image once, found it in {listed_in.get(image)} too": image in listed_in,
            f"expected each id once, found it {ids[image_id]} times": ids[image_id] > 1,
            f"expected its height and width, found {size[0]} and {size[1]}": image and not has_size,
        }
        where, code = f"{file} image {image_id} ({name})", "label-format" if image else "missing-file"
        found = [label_issue(where, message, code) for message, applies in problems.items() if applies]
        if image is not None:
            listed_in.setdefault(image, str(file))
        for label in [] if found else labels[image_id]:
            where = f"{file} annotation {label.get('id')} ({name})"
            found.append(parse_label(where, _parse, label, categories, size))
        group = None if entry.get("video_id") is None else f"video {entry['video_id']}"
        source.add_image(image, found, split, group, size)


def _find_image(name: str, file: PurePosixPath, split: str | None, images: Images) -> PurePosixPath | None:
    """Finds the image with this path: beside the JSON, in a folder of its split, or the only one."""
    wanted = PurePosixPath(name.replace("\\", "/"))
    found = [p for p in images.get(wanted.name, []) if p.parts[-len(wanted.parts) :] == wanted.parts]
    beside = [p for p in found if p == file.parent / name]
    of_split = [p for p in found if split is not None and find_split(p.parts[:-1]) == split]
    return next((matches[0] for matches in (beside, of_split, found) if len(matches) == 1), None)


def _parse(label: dict[str, Any], categories: dict[Any, str], size: tuple[int, int]) -> Annotation:
    category, crowd = categories.get(str(label.get("category_id"))), bool(label.get("iscrowd"))
    if category is None:
        raise ValueError(f"expected a category id of the file, found {label.get('category_id')}")
    region = label.get("segmentation")
    if isinstance(region, dict):
        if region.get("size") != list(size):
            raise ValueError(f"expected run lengths of size {list(size)}, found {region.get('size')}")
        return Annotation(category, counts=parse_run_lengths(region.get("counts"), size), crowd=crowd)
    if isinstance(region, list) and region and not any(isinstance(part, list) for part in region):
        region = [region]  # one polygon without the outer list
    if not (isinstance(region, list) and region and all(isinstance(part, list) for part in region)):
        found = region if isinstance(region, str) else "none"
        raise ValueError(f"expected a segmentation (polygons or run lengths), found {found}")
    rings = [parse_ring(part, width=size[1], height=size[0]) for part in region]
    return Annotation(category, tuple(rings), crowd=crowd)
