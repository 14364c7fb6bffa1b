"""The CSV that lists a data set: read and checked into rows, written from rows.

A CSV with only `image,mask`, or only `images`, is accepted: what it lacks is derived, with a note for each.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from nailseg.data.assign import DEFAULT_SHARE, SPLIT_NAMES, SPLITS, assign_splits
from nailseg.data.issues import Issue, format_issues
from nailseg.data.pairing import pair_folders
from nailseg.errors import DataError

COLUMNS = ("image", "mask", "split", "group")
ALIASES = {"images": "image", "masks": "mask"}
"""Other names of the columns that are accepted."""
DELIMITERS = (",", ";", "\t")
PATHS_FIX = "Give the folder that all files lie in as the data root (--data.root), or paths relative to it."


@dataclass(frozen=True)
class Row:
    """One line of the CSV."""

    image: str  # path relative to the data root, forward slashes
    mask: str | None  # the same for the mask; None where the row has none
    split: str  # train, val or test
    group: str  # a split never divides the rows of one group
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
    notes: tuple[str, ...] = ()  # one line for each column that was derived instead of read
    issues: tuple[Issue, ...] = ()  # errors in the CSV itself; those rows are not among `rows`
    split_given: bool = True  # the CSV has a column split

    def select(self, split: str) -> list[Row]:
        """The rows of one split, in the CSV's order."""
        return [row for row in self.rows if row.split == split]

    def without(self, images: Collection[str]) -> Manifest:
        """The same without the rows of some images, and without its issues."""
        rows = tuple(row for row in self.rows if row.image not in images)
        return replace(self, rows=rows, issues=())

    def path(self, relative: str) -> Path:
        """The path of a row's image or mask."""
        return self.root / relative


DEFAULT_CSV = "dataset.csv"
"""The name of the CSV that `index` and `import` write unless another is given."""


def load_manifest(
    csv_path: str | Path, root: str | Path | None = None, strict: bool = True, masks: bool = True
) -> Manifest:
    """Reads a CSV and checks its paths and splits; no image is opened.

    The columns `image,mask,split,group` may stand in any order, further ones are kept. Without `group` each
    row is its own group; a missing `split` is derived, with a fixed seed; missing masks are found as
    `pair_folders` does.

    Args:
        csv_path: the CSV, UTF-8 or UTF-16, with commas, semicolons or tabs.
        root: the folder the paths are relative to (it may be a symlink); None takes the CSV's own folder.
        strict: raise for errors in rows; otherwise leave those rows out and list the errors in `issues`.
        masks: find masks that the CSV does not name; prediction needs none.

    Raises:
        DataError: no such file, no image column, or, all in one message, paths that are absolute or leave the
            root, unknown splits and images that two rows name.
    """
    csv_path = Path(csv_path)
    folder = Path(root) if root is not None else csv_path.parent
    table = _read_csv(csv_path)
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the data root, found no such folder. Give it with --data.root.")
    notes: list[str] = []
    issues: list[Issue] = []
    split_given, mask_given = "split" in table, "mask" in table
    table = _check_paths(table, folder, csv_path.name, issues)
    if masks and not mask_given and not (strict and issues):
        table = _derive_masks(table, folder, issues)
        notes.append("mask: no such column; paired by name, as nailseg index does")
    if split_given:
        table = _check_splits(table, csv_path.name, issues)
    if issues and strict:
        raise DataError(f"{csv_path}: {len(issues)} issue(s).\n{format_issues(issues)}")
    rows = [_to_row(record) for record in table.to_dict("records")]
    if not split_given and rows:
        rows = split_rows(rows, DEFAULT_SHARE, DEFAULT_SHARE)
        shares = f"{DEFAULT_SHARE:.0%} val, {DEFAULT_SHARE:.0%} test, seed 0, the same every time"
        notes.append(f"split: no such column; derived ({shares}). nailseg index writes a CSV that states it")
    return Manifest(tuple(rows), folder, csv_path, tuple(notes), tuple(issues), split_given)


def split_rows(
    rows: Sequence[Row], val: float, test: float, seed: int = 0, strata: Sequence[str] | None = None
) -> list[Row]:
    """Assigns splits as `assign_splits` does, to rows without one; by default, the folders are the strata."""
    strata = strata or [row.folder for row in rows]
    open_rows = [(row.group, stratum) for row, stratum in zip(rows, strata, strict=True) if not row.split]
    splits = iter(assign_splits([g for g, _ in open_rows], [s for _, s in open_rows], val, test, seed))
    return [row if row.split else replace(row, split=next(splits)) for row in rows]


def find_group_splits(rows: Iterable[Row]) -> dict[str, set[str]]:
    """The splits of each group's rows."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.group, set()).add(row.split)
    return found


def write_manifest(csv_path: str | Path, rows: Sequence[Row]) -> None:
    """Writes rows as `image,mask,split,group` and their further columns; an existing file is overwritten."""
    records = [{name: getattr(row, name) for name in COLUMNS} | dict(row.extra) for row in rows]
    extra = dict.fromkeys(name for row in rows for name, _ in row.extra)
    table = pd.DataFrame(records, columns=[*COLUMNS, *extra], dtype=object)
    table.to_csv(csv_path, index=False, lineterminator="\n", encoding="utf-8")


def _read_csv(path: Path) -> pd.DataFrame:
    """The CSV as text, without spaces around values; the index holds line numbers, the first line is 1."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError("a pipe, socket or device")  # to open it would wait for a writer
        data = path.read_bytes()
        # Excel's Unicode text begins with a byte order mark; UTF-8 may, too
        encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        file = io.StringIO(data.decode(encoding), newline="")
        delimiter = _find_delimiter(file.readline())
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        lines = [(reader.line_num, [value.strip() for value in values]) for values in reader]
    except FileNotFoundError:
        raise DataError(
            f"{path}: expected a CSV with the columns image,mask,split,group; found nothing. "
            f"Make it with: nailseg index {path.parent}"
        ) from None
    except IsADirectoryError:
        raise DataError(
            f"{path}: expected a CSV, found a folder. Give the CSV in it, or make one: nailseg index {path}"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        found = f"expected a CSV in UTF-8 or UTF-16, found something else ({error})"
        raise DataError(f"{path}: {found}. Save it as CSV, and quote values that hold commas.") from None
    lines = [(line, values) for line, values in lines if any(values)]  # spreadsheets add empty rows
    header = [_name_column(name) for name in lines[0][1]] if lines else []
    rest = dict(lines[1:])
    for line, values in rest.items():
        if len(values) != len(header):
            found = f"expected {len(header)} columns, found {len(values)}"
            raise DataError(f"{path} line {line}: {found}. Quote values that hold commas.")
    found = ", ".join(name or "(no name)" for name in header) or "an empty file"
    if "image" not in header:
        problem = f"a column image (or images), found {found}. Make the CSV with: nailseg index DIR"
    elif len(set(header)) < len(header):
        problem = f"each column once, found {found}. Rename one of them."
    elif not rest:
        problem = "at least one row, found only the header. Make it with: nailseg index DIR"
    else:
        return pd.DataFrame.from_dict(rest, orient="index", columns=header)
    raise DataError(f"{path}: expected {problem}")


def _find_delimiter(header: str) -> str:
    """The delimiter, comma, semicolon or tab, that gives a column `image`; a comma where none does."""
    for delimiter in DELIMITERS:
        columns = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
        if "image" in [_name_column(name.strip()) for name in columns]:
            return delimiter
    return ","


def _name_column(name: str) -> str:
    """The name of one of our columns in lower case; another column's as it is."""
    low = ALIASES.get(name.lower(), name.lower())
    return low if low in COLUMNS else name


def _check_paths(table: pd.DataFrame, root: Path, csv_name: str, issues: list[Issue]) -> pd.DataFrame:
    """Adds the issues of paths, and returns the other rows with forward slashes in their paths."""
    real_root = root.resolve()
    # cached by folder: resolving every file would take seconds
    # realpath, unlike resolve, ends at a link in a loop, which is found missing when it is read
    is_inside = cache(lambda folder: Path(os.path.realpath(folder)).is_relative_to(real_root))
    first_lines: dict[str, int] = {}
    columns = [column for column in ("image", "mask") if column in table]
    table = table.assign(**{column: table[column].map(_make_relative, root=real_root) for column in columns})
    wrong: set[int] = set()
    for line, *paths in table[columns].itertuples():
        image = _to_posix(paths[0])
        problems = [_find_path_problem(path, root, is_inside) for path in paths]
        found = [("path-outside", problem, PATHS_FIX) for problem in filter(None, problems)]
        if not image:
            found.insert(0, ("missing-path", "expected an image, found nothing", "Name it."))
        elif first_lines.setdefault(image, line) != line:
            found.append(("duplicate-row", f"{image} is in line {first_lines[image]} already", "Delete one."))
        issues += [Issue(code, f"{csv_name} line {line}", message, fix) for code, message, fix in found]
        if found:
            wrong.add(line)
    table = table.drop(index=list(wrong))
    return table.assign(**{column: table[column].map(_to_posix) for column in columns})


def _make_relative(value: str, root: Path) -> str:
    """An absolute path below the root, relative to it; any other path unchanged."""
    path = Path(value)
    is_below = path.is_absolute() and ".." not in path.parts and path.is_relative_to(root)
    return path.relative_to(root).as_posix() if is_below else value


def _find_path_problem(value: str, root: Path, is_inside: Callable[[Path], bool]) -> str | None:
    """Why a path is not inside the root, None if it is."""
    if PurePosixPath(value).is_absolute() or PureWindowsPath(value).drive or value.startswith("\\"):
        return f"expected a relative path, found {value}"
    value = value.replace("\\", "/")
    if "\0" in value:
        return f"expected a path, found a null character in {value!r}"
    if ".." in value.split("/"):
        return f"expected a path inside the root, found {value}"
    path = root / value
    if value and not (is_inside(path.parent) and (not path.is_symlink() or is_inside(path))):
        return f"{value} is a link out of the root"
    return None


def _to_posix(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).as_posix() if path else ""


def _derive_masks(table: pd.DataFrame, root: Path, issues: list[Issue]) -> pd.DataFrame:
    pairs = pair_folders(root)
    masks, doubtful = dict(pairs.pairs), {_name_below_side(names[0]): names for names in pairs.ambiguous}
    for image in table["image"][~table["image"].isin(masks)]:
        found = " and ".join(doubtful.get(_name_below_side(image), ())) or "none"
        message = f"expected one mask, by name, where `nailseg index` finds masks; found {found}"
        issues.append(Issue("missing-file", image, message, "Put it there, or add a column mask to the CSV."))
    return table.assign(mask=table["image"].map(masks)).dropna(subset="mask")


def _name_below_side(file: str) -> PurePosixPath:
    """A path without its first folder, images or masks, and without its suffix."""
    return PurePosixPath(*PurePosixPath(file).with_suffix("").parts[1:])


def _check_splits(table: pd.DataFrame, csv_name: str, issues: list[Issue]) -> pd.DataFrame:
    table = table.assign(split=[SPLIT_NAMES.get(split.lower(), split) for split in table["split"]])
    known = table["split"].isin(SPLITS)
    for line, split in table["split"][~known].items():
        message = f"expected split train, val or test; found {split or 'nothing'}"
        fix = "Correct it, or drop the column split."
        issues.append(Issue("unknown-split", f"{csv_name} line {line}", message, fix))
    return table[known]


def _to_row(record: dict[str, str]) -> Row:
    image, mask, group = record["image"], record.get("mask") or None, record.get("group")
    extra = tuple((name, value) for name, value in record.items() if name and name not in COLUMNS)
    return Row(image, mask, record.get("split", ""), group or image, extra)
