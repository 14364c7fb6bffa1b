"""Reads YOLO segmentation data sets: images, label files and data.yaml."""

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from nailseg.data.importers.base import Source, label_issue, parse_label
from nailseg.data.importers.rasterize import Annotation, parse_ring
from nailseg.data.io.images import read_bytes
from nailseg.data.pairing import list_images
from nailseg.errors import DataError


def read_yolo(src: Path, skip_annotations: bool = False) -> Source:
    """Reads YOLO segmentation labels: `class x1 y1 x2 y2 …` per line, shares of width and height.

    The label of `…/images/…/a.jpg` is `…/labels/…/a.txt`. An image without a label file is all background, as
    in YOLO, and is counted. Splits come from the folders that data.yaml names, else from folder names.

    Raises:
        DataError: no data.yaml or classes.txt, no class names in it, or images of a split listed in a file.
    """
    config_path, config, names = _read_config(src)
    root, split_folders = config_path.parent, _list_split_folders(config_path, config)
    class_names = list(dict.fromkeys(names[number] for number in sorted(names)))
    source = Source(root, class_names=class_names, skip_annotations=skip_annotations)
    folders = Counter(folder for _, folder in split_folders)
    if shared := sorted({str(folder) for folder, count in folders.items() if count > 1}):
        split_folders = [(split, folder) for split, folder in split_folders if folders[folder] == 1]
        source.notes.append(f"{shared[0]}: given for several splits in {config_path.name}, split anew")
    labels = {image: _find_label(image) for image in list_images(root)}
    counts = Counter(labels.values())
    for image, label in labels.items():
        text = b""
        if (root / label).is_file():
            text = read_bytes(root / label)
        elif "images" in [part.lower() for part in image.parts]:
            source.events["images without a label file, taken as background"] += 1
        else:
            source.events["images outside a folder images, left out"] += 1
            continue
        lines = enumerate(text.decode("utf-8-sig", "replace").splitlines(), start=1)
        found = [parse_label(f"{label} line {n}", _parse, line, names) for n, line in lines if line.strip()]
        if text and counts[label] > 1:
            found.append(label_issue(label, "expected one image for this label, found two of its name"))
        splits = sorted({split for split, folder in split_folders if image.is_relative_to(folder)})
        if len(splits) > 1:
            message = f"expected one split, found {' and '.join(splits)} in {config_path.name}"
            found.append(label_issue(image, message))
        source.add_image(image, found, splits[0] if splits else None)
    for path in sorted(root.rglob("*.txt")):
        label = PurePosixPath(path.relative_to(root).as_posix())
        is_label = "labels" in [part.lower() for part in label.parts[:-1]]
        # classes.txt: some tools keep the class names beside the labels
        if is_label and label not in counts and label.name != "classes.txt":
            source.issues.append(label_issue(label, "expected an image of this name, found none"))
    return source


def _read_config(src: Path) -> tuple[Path, dict[str, Any], dict[int, str]]:
    """The path and the content of data.yaml, and its class names by id."""
    usual = [src / name for name in ("data.yaml", "dataset.yaml") if (src / name).is_file()]
    found = [src] if src.is_file() else usual[:1] or sorted([*src.glob("*.yaml"), *src.glob("*.yml")])
    classes = src / "classes.txt"
    if not found and classes.is_file():  # as Label Studio exports it
        lines = classes.read_text(encoding="utf-8-sig").split("\n")
        return classes, {}, dict(enumerate(line.strip() for line in lines if line.strip()))
    if len(found) != 1:
        message = f"{src}: expected a data.yaml that names the classes, found {len(found)} yaml files. "
        raise DataError(message + "Write one with the line `names: [nail]`, or give the right file as SRC.")
    try:
        config = yaml.safe_load(read_bytes(found[0]))
        names = config["names"]
        names = enumerate(names) if isinstance(names, list) else names.items()
        return found[0], config, {int(number): str(name) for number, name in names}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        expected = "expected class names like `names: [nail]` or `names: {0: nail}`, found none. Add them."
        raise DataError(f"{found[0]}: {expected}") from None


def _list_split_folders(config_path: Path, config: dict[str, Any]) -> list[tuple[str, PurePosixPath]]:
    """Pairs of a split and a folder that data.yaml names; the paths of another machine contain no image."""
    base = str(config.get("path") or "")
    if Path(base).is_absolute() or ".." in base or not (config_path.parent / base).is_dir():
        base = ""
    found = []
    for key, split in {"train": "train", "val": "val", "valid": "val", "test": "test"}.items():
        value = config.get(key) or []
        for entry in value if isinstance(value, list) else [value]:
            # Roboflow writes ../train/images for what lies beside data.yaml
            folder = re.sub(r"^(\.{1,2}/)+", "", str(entry).strip().replace("\\", "/"))
            if folder.endswith(".txt") and (config_path.parent / base / folder).is_file():
                message = f"{config_path}: expected folders of images for {key}, found the list {folder}. "
                raise DataError(message + "Name folders, or delete the line; --resplit assigns new splits.")
            found.append((split, PurePosixPath(base, folder)))
    return found


def _find_label(image: PurePosixPath) -> PurePosixPath:
    """The last folder `images` becomes `labels`; without one the label lies beside the image."""
    parts = list(image.with_suffix(".txt").parts)
    if places := [place for place, part in enumerate(parts[:-1]) if part.lower() == "images"]:
        parts[places[-1]] = "labels" if parts[places[-1]].islower() else "Labels"
    return PurePosixPath(*parts)


def _parse(line: str, names: dict[int, str]) -> Annotation:
    first, *numbers = line.split()
    number = first.removesuffix(".0")
    if not number.isdecimal() or int(number) not in names:
        raise ValueError(f"expected a class id of {', '.join(map(str, names))}, found {first}")
    return Annotation(names[int(number)], (parse_ring(numbers),))
