"""Mask encodings inferred from the values of a whole set."""

from __future__ import annotations

import numpy as np
import pytest

from nailseg.data.mask_content import MaskContent, count_classes, count_values
from nailseg.data.mask_inference import infer_encoding

TWO = ["background", "nail"]


THREE = ["background", "nail", "skin"]


def content(name: str, *values: int, lossy: bool = False, share: int = 100) -> MaskContent:
    """Background in 1000 pixels, every further value in 100."""
    return MaskContent(name, {value: 1000 if value == 0 else share for value in values}, lossy)


@pytest.mark.parametrize(
    ("values", "names", "said"),
    [
        ([(0, 255), (0,), (255,)], TWO, "0/255 read as background/nail"),
        ([(0, 1), (0,), (1,)], TWO, "0/1 read as background/nail"),
        ([(0, 1), (0, 1, 255)], TWO, "0/1/255 read as background/nail/ignore"),
        ([(0, 65535), (0,)], TWO, "0/65535 read as background/nail"),
        ([(0,), (0,)], TWO, "0/255 read as background/nail"),
        ([(0, 1), (0, 2), (0,)], THREE, "0/1/2 read as background/nail/skin"),
        ([(0, 2, 255), (0,)], THREE, "0/1/2/255 read as background/nail/skin/ignore"),
    ],
)
def test_encodings_that_are_inferred(values: list[tuple[int, ...]], names: list[str], said: str) -> None:
    found, issues = infer_encoding([content(f"{k}.png", *own) for k, own in enumerate(values)], names)
    assert issues == []
    assert found is not None
    assert found.describe() == said


def test_jpeg_masks_beside_png_masks() -> None:
    greys = MaskContent("a.jpg", {0: 1000, 3: 20, 90: 5, 250: 100, 255: 200}, lossy=True)
    found, issues = infer_encoding([greys, content("b.png", 0, 255)], TWO)
    assert issues == []
    assert found is not None
    assert found.mapping == ((0, 0), (255, 1))
    assert not found.antialiased
    assert count_classes(greys, found) == {0: 1025, 1: 300}


def test_one_gray_level_over_an_area_is_an_error() -> None:
    flat = MaskContent("a.png", {0: 8520, 128: 480, 255: 216})
    _, issues = infer_encoding([flat, content("b.png", 0, 255)], TWO)
    assert [(issue.code, issue.file) for issue in issues] == [("mask-values", "a.png")]
    assert "found also 128 in 5.21% of the pixels" in issues[0].message


def test_antialiased_edges_in_png_are_thresholded() -> None:
    soft = MaskContent("a.png", {0: 1000, 1: 4, 100: 5, 140: 5, 255: 200})
    found, issues = infer_encoding([soft, content("b.png", 0, 255)], TWO)
    assert issues == []
    assert found is not None
    assert found.describe() == "0/255 read as background/nail (greys above 127 as 255)"
    assert found.apply(np.array([[0, 127, 128, 255]], np.uint8)).tolist() == [[0, 0, 1, 1]]


def test_mixed_sets_are_an_error_of_the_rarer_encoding() -> None:
    files = [content("a.png", 0, 255), content("b.png", 0, 255), content("c.png", 0, 1), content("d.png", 0)]
    found, issues = infer_encoding(files, TWO)
    assert found is None
    assert [(issue.code, issue.file) for issue in issues] == [("mask-mixed", "c.png")]
    assert "2 as 0/255, 1 as 0/1" in issues[0].message
    assert "--data.mask_values" in issues[0].fix


@pytest.mark.parametrize(
    ("bad", "names", "words"),
    [
        (content("x.png", 0, 128, 255, share=400), TWO, "expected 0/255.* found also 128 in"),
        (content("x.png", 0, 2), TWO, "found also 2 in"),
        (content("x.png", 0, 7), THREE, r"class indices 0\.\.2, or 255 for ignore; found also 7"),
        (content("x.png", 0, 300), TWO, "found also 300"),
        (content("x.jpg", 0, 1, 2, lossy=True), THREE, "lossy file"),
        (content("x.jpg", 0, 1, 2, lossy=True), TWO, "found 2 as the brightest value"),
        (content("x.jpg", 0, *range(60, 200), lossy=True), TWO, "between 64 and 191"),
        (MaskContent("x.png", {(0, 0, 0): 9, (255, 0, 0): 9}), TWO, "found colors #000000, #ff0000"),
        (MaskContent("x.png", {(k, 0, 1): 1 for k in range(257)}), TWO, "more than 256 colors"),
    ],
)
def test_values_without_a_class_are_issues_of_their_file(
    bad: MaskContent, names: list[str], words: str
) -> None:
    good = content("good.png", 0, 1)
    _, issues = infer_encoding([good, bad], names)
    assert [issue.file for issue in issues] == [bad.file]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(str(issues[0]))


def test_count_values() -> None:
    raw = np.array([[0, 0, 255], [7, 0, 255]], np.uint8)
    assert count_values(raw) == {0: 3, 7: 1, 255: 2}
    assert count_values(raw.astype(np.uint16) * 257) == {0: 3, 1799: 1, 65535: 2}
    assert count_values(np.stack([raw, raw * 0, raw * 0], axis=2)) == {
        (0, 0, 0): 3,
        (255, 0, 0): 2,
        (7, 0, 0): 1,
    }
