"""A model of streets says nothing about nails: not in its card, report, log, checks or tables."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from nailseg.cli.main import main


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(24):
        rng = np.random.default_rng(number)
        mask = np.zeros((64, 64), np.uint8)
        mask[40:60, 5:55] = 1
        mask[int(rng.integers(5, 20)) :, 10:20][:10] = 2
        image = rng.integers(0, 200, (64, 64, 3)).astype(np.uint8) + mask[..., None] * 25
        for folder, pixels in (("Images", image), ("Masks", mask)):
            (tmp_path / "street" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / f"street/{folder}/{number}.png"), pixels)
    return tmp_path / "street"


def test_nothing_about_nails(street: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = ["background", "road", "car"]
    assert main(["index", str(street), "--no-near-duplicates"]) == 0
    allow = "--data.allow=[near-duplicate-split,duplicate-split,duplicate-image]"
    args = ["--data.csv", "street/dataset.csv", "--data.classes", *classes, "--data.size=64", allow]
    args += ["--data.workers=0", f"--model.weights={tiny_folder}", "--trainer.max_epochs=1", "--name=s"]
    assert main(["train", *args, "--trainer.logger=false"]) == 0
    codes = ["near-duplicate-split", "duplicate-split", "duplicate-image"]
    main(["check", "street/dataset.csv", "--classes", *classes, "--allow", *codes])
    assert main(["predict", "street/Images", "--model", "runs/s", "--out", "m", "--csv", "--polygons"]) == 0
    written = [capsys.readouterr(), *(Path(p).read_text() for p in Path("runs/s").rglob("*.json"))]
    texts = [
        *written[0],
        *written[1:],
        Path("runs/s/model/README.md").read_text(),
        Path("m/objects.csv").read_text(),
    ]
    texts.append(re.sub(r"data:image/[^\"]+", "", Path("runs/s/test/report.html").read_text()))
    for text in texts:
        assert not re.findall(r"(?i)\b(?:finger)?nails?\b", text.replace("street", ""))
