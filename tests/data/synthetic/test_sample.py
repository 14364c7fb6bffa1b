"""The drawn data is repeatable, sorted by number of nails, and not separable by colour."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from nailseg.data.synthetic.hand import Light, paint_hand, place_hand, pose_hand
from nailseg.data.synthetic.sample import draw_hand, write_sample
from nailseg.errors import OutputError

NAILS = {"1": (0, 2), "2": (3, 4), "3": (5, 5), "4": (6, 10)}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_sample(tmp_path_factory.mktemp("sample"), count=48, size=128)


def mask_of(image: Path) -> np.ndarray:
    path = image.parents[2] / "Masks" / image.parent.name / f"{image.stem}.png"
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert mask is not None, path
    return mask


def lab_pixels(images: list[Path], each: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Lab colours (N, 3) and nail or not (N,) of all pixels, or of `each` per image."""
    colors, nails = [], []
    rng = np.random.default_rng(0)
    for path in images:
        lab = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2LAB).reshape(-1, 3)
        nail = mask_of(path).reshape(-1) > 0
        pick = slice(None) if each is None else rng.choice(len(lab), each, replace=False)
        colors.append(lab[pick])
        nails.append(nail[pick])
    return np.concatenate(colors) / 255.0, np.concatenate(nails)


def test_pairs_lie_in_the_folder_of_their_number_of_nails(sample):
    assert len(sample) == len(set(sample)) == 48
    assert {path.parent.name for path in sample} == set(NAILS)
    for path in sample:
        mask = mask_of(path)
        image = cv2.imread(str(path))
        assert path.suffix == ".jpg"
        assert image.shape[:2] == mask.shape
        assert mask.dtype == np.uint8
        assert mask.ndim == 2
        assert set(np.unique(mask)) <= {0, 255}
        # neighbouring nails may touch and a finger may cross a nail: regions only bound the number
        regions = cv2.connectedComponents(mask)[0] - 1
        low, high = NAILS[path.parent.name]
        assert (regions > 0) == (low > 0 or mask.any())
        assert regions <= high + 2


def test_most_images_count_right(sample):
    right = 0
    for path in sample:
        regions = cv2.connectedComponents(mask_of(path))[0] - 1
        low, high = NAILS[path.parent.name]
        right += low <= regions <= high
    assert right >= 0.8 * len(sample)


def test_some_images_have_no_nail_and_lie_in_the_first_folder(sample):
    empty = [path for path in sample if not mask_of(path).any()]
    assert 0 < len(empty) <= len(sample) / 5
    assert {path.parent.name for path in empty} == {"1"}


def test_sizes_differ(sample):
    shapes = {mask_of(path).shape for path in sample}
    assert any(height > width for height, width in shapes)
    assert any(height < width for height, width in shapes)
    assert (128, 128) in shapes


def test_the_same_seed_gives_the_same_bytes_and_a_larger_set_begins_with_the_smaller(tmp_path):
    few = write_sample(tmp_path / "a", count=3, size=64, seed=7)
    more = write_sample(tmp_path / "b", count=5, size=64, seed=7)
    other = write_sample(tmp_path / "c", count=3, size=64, seed=8)
    assert [path.name for path in more[:3]] == [path.name for path in few]
    for a, b in zip(few, more, strict=False):
        assert a.read_bytes() == b.read_bytes()
        assert np.array_equal(mask_of(a), mask_of(b))
    assert all(a.read_bytes() != c.read_bytes() for a, c in zip(few, other, strict=True))


@pytest.mark.parametrize("fingers", [0, 1, 4, 5, 7, 10])
def test_a_hand_shows_the_nails_asked_for(fingers):
    regions = []
    for seed in range(6):
        image, mask = draw_hand(np.random.default_rng(seed), 160, fingers)
        assert image.shape == (160, 160, 3)
        assert mask.shape == (160, 160)
        assert image.dtype == mask.dtype == np.uint8
        assert mask.max(initial=0) == (fingers > 0)
        regions.append(cv2.connectedComponents(mask)[0] - 1)
    assert abs(np.median(regions) - fingers) <= 1


def test_nails_are_large_enough_to_be_learned():
    widths = []
    for seed in range(12):
        _, mask = draw_hand(np.random.default_rng(seed), 256, 5)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        widths += [min(cv2.minAreaRect(contour)[1]) for contour in contours]
    assert np.median(widths) >= 10


def test_edges_are_antialiased():
    """A hand in front of a background has pixels that are neither: the cover is a share."""
    rng = np.random.default_rng(0)
    limbs = pose_hand(rng, "back", (0, 1, 2, 3, 4))
    limbs = place_hand(rng, limbs, np.array([(10.0, 10.0), (118.0, 118.0)]), 40, 2.0)
    light = Light(rng)
    _, cover, nails = paint_hand(rng, limbs, (128, 128), np.array([200.0, 150, 120]), None, light)
    assert nails.shape == (5, 128, 128)
    for part in (cover, *nails):
        assert part.min() >= 0
        assert part.max() <= 1
        assert ((part > 0.1) & (part < 0.9)).sum() > 10
    assert np.all(nails.sum(axis=(1, 2)) > 20)


def test_color_regression_does_not_find_the_nails(tmp_path):
    """Logistic regression on Lab colour, trained on one part and thresholded at its best on the other."""
    images = write_sample(tmp_path, count=64, size=128, seed=1)
    colors, nails = lab_pixels(images[:48], each=1500)
    model = LogisticRegression(class_weight="balanced", max_iter=300).fit(colors, nails)
    held_out, truth = lab_pixels(images[48:])
    score = model.predict_proba(held_out)[:, 1]
    dice = []
    for threshold in np.linspace(0.05, 0.95, 19):
        found = score > threshold
        dice.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert 0.02 < max(dice) < 0.6


def test_nothing_is_overwritten(tmp_path):
    write_sample(tmp_path, count=1, size=64)
    with pytest.raises(OutputError, match=r"Images.*new or empty.*another folder"):
        write_sample(tmp_path, count=1, size=64)


def test_a_refused_folder_stays_as_it_was(tmp_path):
    (tmp_path / "Masks").mkdir()
    (tmp_path / "Masks" / "a.png").touch()
    with pytest.raises(OutputError, match="Masks"):
        write_sample(tmp_path, count=1, size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["Masks"]


def test_empty_folders_are_fine(tmp_path):
    (tmp_path / "Images").mkdir()
    (tmp_path / "Masks").mkdir()
    assert len(write_sample(tmp_path, count=1, size=64)) == 1


def test_a_wrong_number_of_fingers_is_refused():
    with pytest.raises(ValueError, match="0 to 10 nails, found 11"):
        draw_hand(np.random.default_rng(0), 64, 11)
