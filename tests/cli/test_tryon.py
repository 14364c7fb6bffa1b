import cv2
import numpy as np
import pytest

import nailseg
from nailseg.cli.main import main
from nailseg.data.synthetic.sample import draw_hand
from nailseg.errors import ConfigError
from nailseg.imaging.recolor import compute_coverage, parse_color, recolor
from nailseg.inference import segmenter


def test_colours_by_name_and_number() -> None:
    assert parse_color("#c2185b") == (194, 24, 91)
    assert parse_color("crimson") == (220, 20, 60)
    assert parse_color("rgb(300, 0, 0)") == (255, 0, 0)
    with pytest.raises(ConfigError, match="expected a colour"):
        parse_color("nail")


def test_paint_has_the_colour_keeps_the_relief_and_spares_the_rest() -> None:
    image = np.full((40, 60, 3), (210, 170, 150), np.uint8)
    image[10:30, 20:40] = np.linspace(220, 150, 20)[None, :, None] * np.array([1, 0.8, 0.7])
    cover = np.zeros((40, 60), np.float32)
    cover[10:30, 20:40] = 1
    painted = recolor(image, cover, (160, 60, 80))
    assert np.array_equal(painted[cover == 0], image[cover == 0])
    assert np.abs(painted[10:30, 20:40].reshape(-1, 3).mean(0) - (160, 60, 80)).max() < 12
    light = cv2.cvtColor(painted, cv2.COLOR_RGB2LAB)[20, 20:40, 0].astype(int)
    was = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[20, 20:40, 0].astype(int)
    assert np.abs((light - light.mean()) - (was - was.mean())).max() <= 3


def test_half_a_cover_is_half_way() -> None:
    image = np.full((8, 8, 3), 120, np.uint8)
    whole, half = (recolor(image, np.full((8, 8), c, np.float32), (200, 120, 120)) for c in (1.0, 0.5))
    assert image[0, 0, 0] < half[0, 0, 0] < whole[0, 0, 0]


def test_nothing_to_paint_is_the_picture() -> None:
    image = np.full((8, 8, 3), 90, np.uint8)
    assert np.array_equal(recolor(image, np.zeros((8, 8), np.float32), (1, 2, 3)), image)


def test_a_coat_has_soft_edges_and_stays_where_something_was_found() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[20:40, 20:40] = 1
    probability = np.full((100, 100), 0.2, np.float32)
    probability[mask > 0] = 0.9
    cover = compute_coverage(mask, probability)
    assert (cover[30, 30], cover[30, 41]) == (pytest.approx(0.9), pytest.approx(0.2))
    assert not cover[60:, 60:].any()


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "hand.jpg"
    cv2.imwrite(str(path), draw_hand(np.random.default_rng(0), 90, 4)[0][..., ::-1])
    return path


def test_verb(mixed_model, photo, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["tryon", str(photo), "--color", "blue", "--model", str(mixed_model)]
    assert main(asked) == 0
    assert capsys.readouterr().out.strip() == "hand.tryon.png"
    result = nailseg.load(mixed_model)(photo)
    painted = cv2.imread("hand.tryon.png")[..., ::-1]
    assert np.array_equal(
        painted,
        recolor(result.image, compute_coverage(result.mask, result.foreground_probability()), (0, 0, 255)),
    )
    assert main(asked) == 1
    assert "not overwritten" in capsys.readouterr().err
    assert main([*asked, "--out", "hand.gif"]) == 1
    assert "expected a name that ends in .png" in capsys.readouterr().err


def test_verb_without_a_nail(mixed_model, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(segmenter, "load", lambda *_: lambda image: Nothing(image.shape[:2]))
    photo = tmp_path / "wall.png"
    cv2.imwrite(str(photo), np.full((40, 40, 3), 90, np.uint8))
    assert main(["tryon", str(photo), "--color", "blue", "--out", str(tmp_path / "x.png")]) == 1
    assert "expected nail in it, found none" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


class Nothing:
    class_names = ("background", "nail")

    def __init__(self, shape: tuple[int, int]) -> None:
        self.mask = np.zeros(shape, np.uint8)
