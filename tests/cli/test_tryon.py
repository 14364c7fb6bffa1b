import cv2
import numpy as np
import pytest

import nailseg
from nailseg.cli.main import main
from nailseg.data.synthetic.sample import draw_hand
from nailseg.imaging.recolor import compute_coverage, recolor
from nailseg.inference import segmenter


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
    monkeypatch.setattr(segmenter, "load", lambda *_: lambda photo: Nothing())
    photo = tmp_path / "wall.png"
    cv2.imwrite(str(photo), np.full((40, 40, 3), 90, np.uint8))
    assert main(["tryon", str(photo), "--color", "blue", "--out", str(tmp_path / "x.png")]) == 1
    assert "expected nail in it, found none" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


class Nothing:
    class_names, mask = ("background", "nail"), np.zeros((40, 40), np.uint8)
