"""The CSV: all columns, fewer columns, and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from nailseg.data.manifest import Row, load_manifest, write_manifest
from nailseg.errors import DataError


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def draw(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / name)


def test_all_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "n.csv", "image,mask,split,group,camera", "a/1.jpg,m/1.png,train,anna,x",
                 "a/2.jpg,m/2.png,val,,y", "a/3.jpg,,test,bea,")  # fmt: skip
    manifest = load_manifest(path)
    assert manifest.rows == (
        Row("a/1.jpg", "m/1.png", "train", "anna", (("camera", "x"),)),
        Row("a/2.jpg", "m/2.png", "val", "a/2.jpg", (("camera", "y"),)),
        Row("a/3.jpg", None, "test", "bea", (("camera", ""),)),
    )
    assert manifest.root == tmp_path
    assert manifest.path("a/1.jpg") == tmp_path / "a" / "1.jpg"
    assert manifest.select("val") == [manifest.rows[1]]
    assert manifest.notes == ()


def test_columns_in_any_order_with_spaces_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_bytes(b"\xef\xbb\xbfsplit, Mask ,image\r\nvalid, m/a.png ,a.jpg\r\n")
    assert load_manifest(path).rows == (Row("a.jpg", "m/a.png", "val", "a.jpg"),)


def test_write_and_read_round_trip(tmp_path: Path) -> None:
    rows = (
        Row("ä,b.jpg", "m.png", "train", "g 1", (("x", '"q"'),)),
        Row("c.jpg", None, "val", "c.jpg", (("x", ""),)),
    )
    write_manifest(tmp_path / "n.csv", rows)
    assert load_manifest(tmp_path / "n.csv").rows == rows


def test_data_root_elsewhere_and_symlinked(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    path = write(tmp_path / "n.csv", "image,mask,split", "a.jpg,a.png,train")
    assert load_manifest(path, tmp_path / "link").root == tmp_path / "link"
    with pytest.raises(DataError, match=r"nowhere: expected the data root.*--data\.root"):
        load_manifest(path, tmp_path / "nowhere")


def test_a_column_images_alone(tmp_path: Path) -> None:
    names = [f"{folder}/{k}" for folder in (1, 2) for k in range(10)]
    draw(tmp_path, *(f"Images/{name}.png" for name in names), *(f"Masks/{name}.png" for name in names))
    pandas.DataFrame({"images": [f"Images/{name}.png" for name in names]}).to_csv(
        tmp_path / "n.csv", index_label="index"
    )
    manifest = load_manifest(tmp_path / "n.csv")
    assert [row.mask for row in manifest.rows] == [f"Masks/{name}.png" for name in names]
    assert {split: len(manifest.select(split)) for split in ("train", "val", "test")} == {
        "train": 16,
        "val": 2,
        "test": 2,
    }
    assert [note.split(":")[0] for note in manifest.notes] == ["mask", "split"]
    assert "seed 0" in manifest.notes[1]
    assert manifest.rows == load_manifest(tmp_path / "n.csv").rows
    assert manifest.rows[3].extra == (("index", "3"),)


def test_masks_that_cannot_be_derived_are_listed_together(tmp_path: Path) -> None:
    draw(tmp_path, "images/a.jpg", "images/b.jpg", "masks/b.png", "masks/b.bmp", "photos/c.jpg")
    path = write(tmp_path / "n.csv", "images", "images/a.jpg", "images/b.jpg", "photos/c.jpg")
    with pytest.raises(
        DataError, match=r"(?s)3 issue.*a\.jpg.*found none.*masks/b\.bmp and masks/b\.png.*c\.jpg"
    ):
        load_manifest(path)


@pytest.mark.parametrize(
    "bad", ["/etc/passwd", "../a.jpg", "x/../../a.jpg", "C:\\a.jpg", "\\\\host\\a.jpg", "x\\..\\a"]
)
@pytest.mark.parametrize("column", ["image", "mask"])
def test_paths_never_leave_the_root(tmp_path: Path, bad: str, column: str) -> None:
    values = {"image": "a.jpg", "mask": "a.png", column: bad}
    path = write(tmp_path / "n.csv", "image,mask,split", f"{values['image']},{values['mask']},train")
    with pytest.raises(DataError, match=r"(?s)path-outside.*n\.csv line 2: expected .*--data\.root"):
        load_manifest(path)


def test_links_out_of_the_root_are_an_error(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    draw(tmp_path, "out/a.png")
    (root / "folder").symlink_to(tmp_path / "out")
    (root / "b.png").symlink_to(tmp_path / "out" / "a.png")
    path = write(root / "n.csv", "image,mask,split", "folder/a.png,b.png,train")
    with pytest.raises(DataError, match=r"(?s)folder/a\.png is a link out of the root.*b\.png is a link"):
        load_manifest(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found an empty file"),
        ("file,label\na,b\n", "expected a column image .*found file, label"),
        ("image,mask,split\n", "found only the header"),
        ("image,image\na,b\n", "expected each column once"),
        ("image,images\na,b\n", "expected each column once"),
        ("image,,split,\na,b,train,x\n", r"each column once, found image, \(no name\), split, \(no name\)"),
        (",label\na,b\n", r"expected a column image .*found \(no name\), label"),
        ("image,mask,split\na,b\n", "line 2: expected 3 columns, found 2"),
        ("image,mask,split\na,b,train,x\n", "line 2: expected 3 columns, found 4.*Quote values"),
        ("image,mask,split\n\n \na,b\n", "line 4: expected 3 columns, found 2"),
        ("image,mask,split\n\na,b,dev\n", "line 3: expected split train"),
        ('\nimage,mask,split\n"a\nb",b,train\n../c,b,train\n', "line 5: expected a path inside"),
        ('image,mask,split\na,"b,train\n', r"expected a CSV .*\(unexpected end of data\)"),
        (
            "image,mask,split\na,b,dev\n",
            r"(?s)unknown-split.*line 2: expected split train, val or test; found dev",
        ),
        ("image,mask,split\na,b,\n", "found nothing"),
        ("image,mask,split\n,b,train\n", r"(?s)missing-path.*line 2"),
        ("image,mask,split\na,b,train\na,c,val\n", r"(?s)duplicate-row.*line 3: a is in line 2"),
    ],
)
def test_csvs_with_errors(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "n.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        load_manifest(tmp_path / "n.csv")


def test_a_missing_csv_and_a_binary_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"n\.csv: expected a CSV.*nailseg index"):
        load_manifest(tmp_path / "n.csv")
    (tmp_path / "n.csv").write_bytes(b"image\n\xff\xfe\x80")
    with pytest.raises(DataError, match="expected a CSV in UTF-8"):
        load_manifest(tmp_path / "n.csv")
    with pytest.raises(DataError, match=r"expected a CSV, found a folder.*nailseg index"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
def test_what_spreadsheets_write(tmp_path: Path, delimiter: str, encoding: str) -> None:
    lines = [
        ["image", "mask", "split", "note"],
        ["ä/1.jpg", "m/1.png", "TRAIN", "a"],
        ["2.jpg", "2.png", "Val", ""],
    ]
    text = "\r\n".join(delimiter.join(line) for line in [*lines, ["", "", "", ""], [""]]) + "\r\n"
    bom = b"\xff\xfe" if encoding == "utf-16-le-bom" else b""
    (tmp_path / "n.csv").write_bytes(bom + text.encode(encoding.replace("-bom", "")))
    assert load_manifest(tmp_path / "n.csv").rows == (
        Row("ä/1.jpg", "m/1.png", "train", "ä/1.jpg", (("note", "a"),)),
        Row("2.jpg", "2.png", "val", "2.jpg", (("note", ""),)),
    )


def test_absolute_paths_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    inside, outside = tmp_path / "data" / "a.jpg", tmp_path / "b.jpg"
    path = write(tmp_path / "n.csv", "image,mask,split", f"{inside},m.png,train")
    assert load_manifest(path, tmp_path / "data").rows[0].image == "a.jpg"
    write(path, "image,mask,split", f"{outside},m.png,train")
    with pytest.raises(DataError, match="path-outside"):
        load_manifest(path, tmp_path / "data")
    write(path, "image,mask,split", f"{tmp_path}/data/../b.jpg,m.png,train")
    with pytest.raises(DataError, match="path-outside"):
        load_manifest(path, tmp_path / "data")


def test_a_folder_as_csv_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected a CSV, found a folder. Give the CSV in it, or .*nailseg index"
    ):
        load_manifest(tmp_path)
