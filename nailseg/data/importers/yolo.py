"""YOLO segmentation labels -> items; every line that cannot be read is a fault with its place."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from nailseg.data.importers.base import Source, image_item, split_named
from nailseg.data.importers.rasterize import Shape, ring
from nailseg.data.io.images import read_bytes
from nailseg.data.pairing import list_images
from nailseg.errors import DataError


def read_yolo(src: Path) -> Source:
    """Reads YOLO segmentation labels: `class x1 y1 x2 y2 …` per line, shares of width and height.

    The label of `…/images/…/a.jpg` is `…/labels/…/a.txt`. An image without one has nothing on it, as YOLO
    has it, and is counted. Splits are what data.yaml says, then what the folders are called.
    """
    root, config_name, config, names = _config(src)
    source = Source(class_names=list(dict.fromkeys(names[number] for number in sorted(names))))
    said = _splits(root, config, source)
    pictures = list_images(root)
    labels = {image: _label_of(image) for image in pictures}
    shared = Counter(labels.values())
    for image, label in labels.items():
        if "images" not in [part.lower() for part in image.parts] and not (root / label).is_file():
            source.events["images outside a folder images, left out"] += 1
            continue
        before = len(source.faults)
        if shared[label] > 1:
            source.refuse(label, "expected one image for this label, found two of its name")
        splits = {split for split, place in said if image.is_relative_to(place)}
        if len(splits) > 1:
            message = f"expected one split, found {' and '.join(sorted(splits))} in {config_name}"
            source.refuse(image, message)
        split = next(iter(splits), None) or split_named(image.parts[:-1])
        shapes = _shapes(root, label, names, source)
        if len(source.faults) == before:
            source.items.append(image_item(root, image, split, shapes=tuple(shapes)))
    for text in sorted(root.rglob("*.txt")):
        label = PurePosixPath(text.relative_to(root).as_posix())
        # classes.txt: some tools keep the class names beside the labels
        among = "labels" in [part.lower() for part in label.parts[:-1]] and label.name != "classes.txt"
        if among and label not in shared:
            source.refuse(label, "expected an image of this name, found none")
    return source


def _config(src: Path) -> tuple[Path, str, dict[str, Any], dict[int, str]]:
    """The source's folder, and its data.yaml: name, content, class names by id."""
    root = src if src.is_dir() else src.parent
    usual = [root / name for name in ("data.yaml", "dataset.yaml") if (root / name).is_file()]
    found = [src] if src.is_file() else usual[:1] or sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    if len(found) != 1:
        raise DataError(
            f"{src}: expected a data.yaml that names the classes, found {len(found)} yaml files. "
            "Write one with the line `names: [nail]`, or give the right file as SRC."
        )
    try:
        config = yaml.safe_load(read_bytes(found[0]))
        names = config["names"]
        names = enumerate(names) if isinstance(names, list) else names.items()
        return root, found[0].name, config, {int(number): str(name) for number, name in names}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{found[0]}: expected class names like `names: [nail]` or `names: {{0: nail}}`, found none. "
            "Add them."
        ) from None


def _splits(root: Path, config: dict[str, Any], source: Source) -> list[tuple[str, PurePosixPath]]:
    """(split, folder or image) as data.yaml has it; paths of another machine match nothing here."""
    base = str(config.get("path") or "")
    base = base if not Path(base).is_absolute() and (root / base).is_dir() and ".." not in base else ""

    def place(entry: object) -> PurePosixPath:
        # Roboflow writes ../train/images for what lies beside data.yaml
        return PurePosixPath(base, re.sub(r"^(\.{1,2}/)+", "", str(entry).strip().replace("\\", "/")))

    said = []
    for key in ("train", "val", "valid", "test"):
        value = config.get(key) or []
        for folder in map(place, value if isinstance(value, list) else [value]):
            places = [folder]
            if folder.suffix == ".txt" and (root / folder).is_file():  # a list of images
                lines = read_bytes(root / folder).decode("utf-8-sig", "replace").splitlines()
                places = [place(line) for line in lines if line.strip()]
                for image in places:
                    if not (root / image).is_file():
                        source.refuse(folder, f"expected the image {image}, found none", "missing-file")
            said.extend((split_named([key]) or key, entry) for entry in places)
    return said


def _label_of(image: PurePosixPath) -> PurePosixPath:
    """The last folder `images` becomes `labels`; without one the label lies beside the image."""
    parts = list(image.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() == "images":
            parts[place] = "labels" if parts[place].islower() else "Labels"
            break
    return PurePosixPath(*parts)


def _shapes(root: Path, label: PurePosixPath, names: dict[int, str], source: Source) -> list[Shape]:
    if not (root / label).is_file():
        source.events["images without a label file, taken as images of nothing"] += 1
        return []
    shapes = []
    lines = read_bytes(root / label).decode("utf-8-sig", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        first, *numbers = line.split()
        number_text = first.removesuffix(".0")
        category = names.get(int(number_text)) if number_text.isdigit() else None
        try:
            if category is None:
                raise ValueError(f"expected a class id of {', '.join(map(str, names))}, found {first}")
            points, cut = ring(numbers)
        except ValueError as error:
            source.refuse(f"{label} line {number}", str(error))
            continue
        source.events["outlines cut at the image's border"] += cut
        shapes.append(Shape(category, (points,)))
    return shapes
