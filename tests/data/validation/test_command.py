"""The command line of `nailseg check`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nailseg.cli.main import main
from nailseg.data.manifest import load_manifest
from tests.data.planted import draw_image, nail_mask, write_data_set


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return write_data_set(tmp_path / "data")


def test_a_valid_data_set(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(data / "dataset.csv")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("masks: 0/255 read as background/nail\n")
    assert re.search(r"split train +20 +8\.14% +2\.0 \(2-2\)  128 x 96", text)
    assert text.endswith("dataset.csv: no errors\n")


def test_errors_as_text_json_and_contact_sheet(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = str(data / "dataset.csv")
    (data / "Images/3.jpg").write_bytes(b"")
    Image.fromarray(255 - nail_mask()).save(data / "Masks/8.png")
    sheet = data / "sheet.png"
    assert main(["check", csv, "--sheet", str(sheet)]) == 1
    text = capsys.readouterr().out
    assert "errors: 2\nempty-file (1):\n  Images/3.jpg: expected an image, found 0 bytes\n    ->" in text
    assert "mask-inverted (1):" in text
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] == 5 * (208 + 34) + 4 * 6
    # errors first: the inverted mask, then the broken image, a blank tile
    assert (pixels[:156, :208] != 255).any()
    assert (pixels[:156, 214:422] == 255).all()
    assert (pixels[:156, 428:636] != 255).any()
    assert main(["check", csv, "--json", "--allow", "mask-inverted"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [(issue["code"], issue["file"]) for issue in report["errors"]] == [("empty-file", "Images/3.jpg")]
    assert report["statistics"]["split"]["val"] == {
        "images": 5,
        "sizes": {"128 x 96": 5},
        "foreground": pytest.approx(0.081380, abs=1e-5),
        "objects": 2.0,
        "objects_min": 2,
        "objects_max": 2,
    }
    assert report["allowed"] == ["mask-inverted"]
    assert main(["check", csv, "--sheet", str(sheet)]) == 1
    assert "sheet.png: expected a new file" in capsys.readouterr().err
    assert main(["check", csv, "--allow", "empty-file", "mask-inverted"]) == 0
    assert "left out: 1\nempty-file (1):" in capsys.readouterr().out
    assert main(["check", csv, "--for", "test"]) == 0
    assert main(["check", csv, "--skip-bad"]) == 0


def test_the_clean_copy_is_valid(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(draw_image(0)).save(data / "Images/0.jpg", format="PNG")
    Image.fromarray(nail_mask()).convert("RGB").save(data / "Masks/1.png")
    shutil.copy(data / "Images/3.jpg", data / "Images/21.jpg")
    before = {path: path.read_bytes() for path in data.rglob("*.*")}
    copy = data.parent / "copy"
    allow = ["--allow", "extension-mismatch"]
    assert main(["check", str(data / "dataset.csv"), "--write-clean", str(copy), *allow]) == 1
    assert {path: path.read_bytes() for path in data.rglob("*.*")} == before
    assert main(["check", str(copy / "dataset.csv")]) == 0
    rows = load_manifest(copy / "dataset.csv").rows
    assert (len(rows), rows[0].image) == (29, "Images/0.png")
    with Image.open(copy / "Masks/1.png") as mask:
        assert np.array_equal(np.asarray(mask), nail_mask(0) // 255)
    capsys.readouterr()
    assert main(["check", str(data / "dataset.csv"), "--write-clean", str(copy)]) == 1
    assert "expected a new or empty folder, found files" in capsys.readouterr().err


def test_classes_mask_values_and_max_pixels(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = str(data / "dataset.csv")
    for number in range(30):
        Image.fromarray(nail_mask() // 255 * 3).save(data / f"Masks/{number}.png")
    assert main(["check", csv]) == 1
    values = ["--classes", "ground", "thumb", "--mask-values", '{"0": "ground", "3": "thumb"}']
    capsys.readouterr()
    assert main(["check", csv, *values]) == 0
    assert "0/3 read as ground/thumb" in capsys.readouterr().out
    assert main(["check", csv, *values, "--max-pixels", "100"]) == 1
    assert "too-large (60):" in capsys.readouterr().out
    assert main(["check", csv, "--mask-values", "{"]) == 2
    assert main(["check", csv, "--allow", "nothing"]) == 1
