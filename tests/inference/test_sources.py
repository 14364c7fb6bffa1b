"""Which images paths stand for, and how their masks are named."""

import cv2
import numpy as np
import pytest
from PIL import Image

from nailseg.errors import ConfigError
from nailseg.inference import sources
from tests.inference.conftest import NAMES


@pytest.fixture
def files(tmp_path):
    """Images of several formats, two of them with one stem."""
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in {
        "a.jpg": (40, 60),
        "a.png": (33, 31),
        "sub/b.JPG": (64, 64),
        "sub/c.webp": (50, 20),
    }.items():
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_folder_structure_and_suffix_of_shared_stems(predict, files, capsys) -> None:
    code, out = predict(files)
    assert code == 1, "a text file lies beside the images"
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        "a.jpg.png",
        "a.png.png",
        "sub/b.png",
        "sub/c.png",
    }
    assert cv2.imread(str(out / "sub" / "c.png"), cv2.IMREAD_UNCHANGED).shape == (50, 20)
    assert capsys.readouterr().err.count("keep the suffix") == 1


def test_globs_are_relative_to_their_fixed_part(files, tmp_path) -> None:
    found = sources.find_images([f"{files}/**/*.[jJ][pP][gG]"], tmp_path / "out")
    assert sorted(p.as_posix() for p in found.values()) == ["a.jpg", "sub/b.JPG"]


def test_two_images_with_the_same_mask(files, tmp_path) -> None:
    (files / "b.JPG").write_bytes((files / "sub" / "b.JPG").read_bytes())
    with pytest.raises(ConfigError, match=r"would both write b\.JPG\.png\. Give the folder above them"):
        sources.name_masks(sources.find_images([str(files / "b.JPG"), str(files / "sub")], tmp_path / "out"))


def test_kept_suffix_that_equals_another_name(files, tmp_path) -> None:
    (files / "a.jpg.png").write_bytes((files / "a.png").read_bytes())
    with pytest.raises(ConfigError, match=r"would both write a\.jpg\.png"):
        sources.name_masks(sources.find_images([str(files)], tmp_path / "out"))


def test_out_is_the_folder_of_the_images(files) -> None:
    with pytest.raises(ConfigError, match=r"--out .*: expected a folder apart from the images"):
        sources.find_images([str(files / "sub")], files / "sub")


def test_out_inside_the_searched_folder_is_not_searched(files) -> None:
    out = files / "masks"
    out.mkdir()
    (out / "a.png").write_bytes((files / "a.png").read_bytes())
    assert len(sources.find_images([str(files)], out)) == 4


def test_csv_lists_images(photos, tmp_path) -> None:
    table = tmp_path / "elsewhere.csv"
    lines = [f"Images/{name}.png,{split}" for name, split in zip(NAMES, ["train", "val"] * 3, strict=False)]
    table.write_text("\n".join(["image,split", *lines]))  # without a column mask
    found = sources.find_images([str(table)], tmp_path / "out", root=photos)
    assert [p.as_posix() for p in found.values()] == [f"Images/{name}.png" for name in NAMES]
    assert all(path.is_file() for path in found)
    found = sources.find_images([str(table)], tmp_path / "out", root=photos, split="val")
    assert [p.as_posix() for p in found.values()] == ["Images/1/b.png", "Images/2/d.png"]
    with pytest.raises(ConfigError, match=r"elsewhere.csv: expected .* rows of the split, found none"):
        sources.find_images([str(table)], tmp_path / "out", root=photos, split="test")
    with pytest.raises(ConfigError, match=r"--split: expected a CSV among the paths, found .*photos"):
        sources.find_images([str(photos)], tmp_path / "out", split="test")
