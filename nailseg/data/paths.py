"""The paths in a CSV: inside the data root, forward slashes, each image once."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from nailseg.data.faults import Fault

LINE = " line"
"""Key of a line's place in its file; no CSV has a column of that name, they are stripped."""


def check_paths(
    lines: list[dict[str, str]], root: Path, csv_path: Path, faults: list[Fault]
) -> list[dict[str, str]]:
    """Notes what is wrong, brings paths to forward slashes, and returns the lines without fault."""
    real_root = root.resolve()
    # parent folder -> lies within the root; resolving every file would cost seconds
    inside: dict[Path, bool] = {}
    seen: dict[str, int] = {}
    good = []
    for number, line in enumerate(lines, start=2):
        where = f"{csv_path.name} line {number}"
        line[LINE] = where
        wrong = []
        if not line["image"]:
            wrong.append(Fault("missing-path", where, "expected an image, found nothing", "Name it."))
        for column in ("image", "mask"):
            value = line.get(column, "")
            message = _path_fault(value, root, real_root, inside)
            if message:
                fix = "Give paths relative to the data root (--data.root), and keep the files inside it."
                wrong.append(Fault("path-outside", where, message, fix))
            elif value:
                line[column] = PurePosixPath(value.replace("\\", "/")).as_posix()
        image = line["image"]
        if image and image in seen:
            message = f"{image} stands in line {seen[image]} already"
            wrong.append(Fault("doubled-row", where, message, "Delete one."))
        seen.setdefault(image, number)
        faults.extend(wrong)
        if not wrong:
            good.append(line)
    return good


def _path_fault(value: str, root: Path, real_root: Path, inside: dict[Path, bool]) -> str | None:
    """What makes a path leave the root, None if nothing does."""
    if PurePosixPath(value).is_absolute() or PureWindowsPath(value).drive or value.startswith("\\"):
        return f"expected a relative path, found {value}"
    value = value.replace("\\", "/")
    if ".." in value.split("/"):
        return f"expected a path inside the root, found {value}"
    path = root / value
    if path.parent not in inside:
        inside[path.parent] = path.parent.resolve().is_relative_to(real_root)
    if value and (
        not inside[path.parent] or (path.is_symlink() and not path.resolve().is_relative_to(real_root))
    ):
        return f"{value} is a link out of the root"
    return None
