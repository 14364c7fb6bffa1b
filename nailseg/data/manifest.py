"""The CSV: image, mask, split, group; checked rows out of it, and what was derived said."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from nailseg.data.issues import Issue, format_issues
from nailseg.data.pairing import find_mask
from nailseg.data.splitting.assign import SPLITS, assign_splits
from nailseg.errors import DataError

COLUMNS = ("image", "mask", "split", "group")
# what other people's CSVs call the same columns
ALIASES = {"images": "image", "masks": "mask"}
LINE = " line"
"""Key of a line's place in its file; no CSV has a column of that name, they are stripped."""


@dataclass(frozen=True)
class Row:
    """One line of the CSV."""

    image: str  # path relative to the data root, forward slashes
    mask: str | None  # the same for the mask; None where the row has none
    split: str  # train, val or test
    group: str  # rows of one group are never divided by a split
    extra: tuple[tuple[str, str], ...] = ()  # further columns, as text, in the CSV's order

    @property
    def folder(self) -> str:
        """The folder of the image."""
        return str(PurePosixPath(self.image).parent)


@dataclass(frozen=True)
class Manifest:
    """All rows of a CSV, in its order."""

    rows: tuple[Row, ...]
    root: Path  # folder their paths are relative to
    csv: Path  # the file they come from
    notes: tuple[str, ...] = ()  # one line for everything that was derived instead of read
    issues: tuple[Issue, ...] = ()  # what the CSV itself gets wrong; those rows are not among `rows`
    split_given: bool = True  # the CSV has a column split

    def select(self, split: str) -> list[Row]:
        """The rows of one split, in the CSV's order."""
        return [row for row in self.rows if row.split == split]

    def without(self, images: Collection[str]) -> Manifest:
        """The same without the rows of some images, and without its issues."""
        rows = tuple(row for row in self.rows if row.image not in images)
        return replace(self, rows=rows, issues=())

    def path(self, relative: str) -> Path:
        """Where a row's image or mask lies."""
        return self.root / relative


def load_manifest(
    csv_path: str | Path, root: str | Path | None = None, strict: bool = True, masks: bool = True
) -> Manifest:
    """Reads a CSV and checks its paths and splits; no image is opened.

    Accepted are `image,mask,split,group` in any order with further columns, and fewer: without `group` every
    row is its own group, a missing `split` is derived (seeded), masks are found by `Images` -> `Masks`, stem.

    Args:
        csv_path: the CSV, UTF-8.
        root: the folder the paths are relative to; the CSV's own folder by default. May itself be a symlink.
        strict: raise for rows the CSV gets wrong; otherwise leave them out and list them in `issues`.
        masks: look for masks that the CSV does not name; prediction needs none.

    Raises:
        DataError: no such file, no image column, paths that are absolute or leave the root, unknown splits,
            doubled images; all of them at once.
    """
    csv_path = Path(csv_path)
    folder = Path(root) if root is not None else csv_path.parent
    header, lines = _read_csv(csv_path)
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the data root, found no such folder. Give it with --data.root.")
    notes: list[str] = []
    issues: list[Issue] = []
    lines = _check_paths(lines, folder, csv_path, issues)
    if masks and "mask" not in header and not (strict and issues):
        lines = _derive_masks(lines, folder, issues)
        notes.append("mask: no such column; taken from the folder Masks that mirrors Images, by name")
    if "split" in header:
        lines = _check_splits(lines, csv_path, issues)
    if issues and strict:
        raise DataError(f"{csv_path}: {len(issues)} fault(s).\n{format_issues(issues)}")
    if "split" not in header and lines:
        notes.append(_derive_splits(lines))
    rows = tuple(_row(line) for line in lines)
    return Manifest(rows, folder, csv_path, tuple(notes), tuple(issues), "split" in header)


def find_group_splits(rows: Iterable[Row]) -> dict[str, set[str]]:
    """The splits each group lies in."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.group, set()).add(row.split)
    return found


def write_manifest(csv_path: str | Path, rows: Sequence[Row]) -> None:
    """Writes rows as `image,mask,split,group` and their further columns; the caller made sure that it may."""
    extra = list(dict.fromkeys(name for row in rows for name, _ in row.extra))
    with open(csv_path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *extra])
        for row in rows:
            more = dict(row.extra)
            writer.writerow(
                [row.image, row.mask or "", row.split, row.group, *(more.get(n, "") for n in extra)]
            )


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front of the first column's name
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            names = [(name or "").strip() for name in reader.fieldnames or []]
            header = [
                ALIASES.get(name.lower(), name.lower() if name.lower() in COLUMNS else name) for name in names
            ]
            reader.fieldnames = header
            lines = [dict(line) for line in reader]
    except FileNotFoundError:
        raise DataError(
            f"{path}: expected a CSV with the columns image,mask,split,group; found nothing. "
            f"Make it with: nailseg index {path.parent}"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        message = f"{path}: expected a CSV in UTF-8, found something else ({error}). Save it as CSV."
        raise DataError(message) from None
    said = ", ".join(filter(None, header)) or "an empty file"
    short = next((n for n, line in enumerate(lines, 2) if None in line or None in line.values()), None)
    if "image" not in header:
        problem = f": expected a column image (or images), found {said}. Make the CSV with: nailseg index DIR"
    elif len(set(header)) < len(header):
        problem = f": expected each column once, found {','.join(header)}. Rename one of them."
    elif not lines:
        problem = ": expected at least one row, found only the header. Make it with: nailseg index DIR"
    elif short is not None:
        problem = f" line {short}: expected {len(header)} columns, found another number. "
        problem += "Quote values that hold commas."
    else:
        return header, [{key: value.strip() for key, value in line.items()} for line in lines]
    raise DataError(f"{path}{problem}")


def _check_paths(
    lines: list[dict[str, str]], root: Path, csv_path: Path, issues: list[Issue]
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
            wrong.append(Issue("missing-path", where, "expected an image, found nothing", "Name it."))
        for column in ("image", "mask"):
            value = line.get(column, "")
            message = _path_fault(value, root, real_root, inside)
            if message:
                fix = "Give paths relative to the data root (--data.root), and keep the files inside it."
                wrong.append(Issue("path-outside", where, message, fix))
            elif value:
                line[column] = PurePosixPath(value.replace("\\", "/")).as_posix()
        image = line["image"]
        if image and image in seen:
            message = f"{image} stands in line {seen[image]} already"
            wrong.append(Issue("duplicate-row", where, message, "Delete one."))
        seen.setdefault(image, number)
        issues.extend(wrong)
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
    leaves = path.is_symlink() and not path.resolve().is_relative_to(real_root)
    if value and (leaves or not inside[path.parent]):
        return f"{value} is a link out of the root"
    return None


def _derive_masks(lines: list[dict[str, str]], root: Path, issues: list[Issue]) -> list[dict[str, str]]:
    listings: dict[PurePosixPath, dict[str, list[str]]] = {}
    good = []
    for line in lines:
        matches = find_mask(root, line["image"], listings)
        if len(matches) == 1:
            good.append({**line, "mask": matches[0]})
            continue
        found = " and ".join(matches) or "none"
        message = f"expected one mask of the same name in the folder Masks that mirrors Images, found {found}"
        issues.append(
            Issue("missing-file", line["image"], message, "Put it there, or add a column mask to the CSV.")
        )
    return good


def _check_splits(lines: list[dict[str, str]], csv_path: Path, issues: list[Issue]) -> list[dict[str, str]]:
    for line in lines:
        line["split"] = {"valid": "val", "validation": "val"}.get(line["split"], line["split"])
        if line["split"] not in SPLITS:
            message = f"expected split train, val or test; found {line['split'] or 'nothing'!s}"
            fix = "Correct it, or drop the column split."
            issues.append(Issue("unknown-split", line[LINE], message, fix))
    return [line for line in lines if line["split"] in SPLITS]


def _derive_splits(lines: list[dict[str, str]]) -> str:
    val, test, seed = 0.1, 0.1, 0
    groups = [line.get("group") or line["image"] for line in lines]
    folders = [str(PurePosixPath(line["image"]).parent) for line in lines]
    for line, split in zip(lines, assign_splits(groups, folders, val, test, seed), strict=True):
        line["split"] = split
    return (
        f"split: no such column; derived ({val:.0%} val, {test:.0%} test, seed {seed}, the same every time). "
        "nailseg index writes a CSV that states it"
    )


def _row(line: dict[str, str]) -> Row:
    extra = tuple((key, value) for key, value in line.items() if key and key not in (*COLUMNS, LINE))
    return Row(
        line["image"], line.get("mask") or None, line["split"], line.get("group") or line["image"], extra
    )
