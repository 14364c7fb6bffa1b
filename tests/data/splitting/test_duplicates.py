"""Duplicates (the same bytes) and near-duplicates of a data set."""

from __future__ import annotations

import numpy as np

from nailseg.data.splitting.duplicates import compute_signature, find_duplicates
from tests.data.planted import draw_image


def test_equal_files_are_exact_and_copies_are_near_duplicates() -> None:
    image, other = draw_image(0), draw_image(1)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    files = {"a": (b"1", image), "b": (b"2", other), "c": (b"1", image), "d": (b"3", mirrored)}
    signatures = {name: compute_signature(data, pixels) for name, (data, pixels) in files.items()}
    assert find_duplicates(signatures) == [("a", "c", True), ("a", "d", False)]


def test_fewer_than_two_images_have_no_duplicates() -> None:
    assert find_duplicates({}) == []
    assert find_duplicates({"a": compute_signature(b"1", draw_image(0))}) == []
