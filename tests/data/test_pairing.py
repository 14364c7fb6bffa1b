"""Pairing of images with masks by path and stem."""

from __future__ import annotations

from pathlib import Path

import pytest

from nailseg.data.pairing import pair_folders


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("Images/1/a.JPG", "Masks/1/a.png"),
        ("Images/a.jpeg", "Masks/a.PNG"),
        ("images/a.webp", "masks/a.bmp"),
        ("IMAGES/x/y/a.tif", "MASKS/x/y/a.tiff"),
        ("train/images/a.jpg", "train/masks/a.png"),
        ("Images/1/a.b.c.jpg", "Masks/1/a.b.c.png"),
        ("images/.hidden/../a.jpg", "masks/a.jpg"),
    ],
)
def test_layouts(tmp_path: Path, image: str, mask: str) -> None:
    touch(tmp_path, "images/.hidden/x.jpg") if ".hidden" in image else None
    image = image.replace(".hidden/../", "")
    touch(tmp_path, image, mask)
    found = pair_folders(tmp_path)
    assert found.pairs == ((image, mask),)
    assert (found.unpaired_images, found.unpaired_masks, found.ambiguous) == ((), (), ())


def test_pairs_are_made_by_name_and_what_is_left_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "Images/1/a.jpg", "Images/1/b.jpg", "Images/2/c.jpg", "Images/1/d.jpg", "Images/1/d.png",
          "Masks/1/b.png", "Masks/2/b.png", "Masks/2/c.png", "Masks/1/d.png", "Masks/notes.txt", "photo.jpg",
          "Images/1/.x.jpg")  # fmt: skip
    found = pair_folders(tmp_path)
    assert found.pairs == (("Images/1/b.jpg", "Masks/1/b.png"), ("Images/2/c.jpg", "Masks/2/c.png"))
    assert found.unpaired_images == ("Images/1/a.jpg",)
    assert found.unpaired_masks == ("Masks/2/b.png",)
    assert found.ambiguous == (("Images/1/d.jpg", "Images/1/d.png"),)
