"""A small data set, and `nailseg predict` on its files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nailseg.cli.main import main

NAMES = ["1/a", "1/b", "2/c", "2/d", "e"]


@pytest.fixture
def photos(tmp_path) -> Path:
    """A data set of five images, with masks that must not be predicted."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        noise = rng.integers(0, 256, (48 + 8 * number, 70, 3), dtype=np.uint8)
        for folder, image in (("Images", noise), ("Masks", noise[..., 0])):
            path = tmp_path / "photos" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path / "photos"


@pytest.fixture
def predict(mixed_model, tmp_path):
    """Runs the verb on paths into a folder below tmp_path; returns the exit code and the folder."""

    def run(*args: object, out: str = "out") -> tuple[int, Path]:
        fixed = ["--model", str(mixed_model), "--out", str(tmp_path / out), "--device", "cpu"]
        return main(["predict", *map(str, args), *fixed]), tmp_path / out

    return run


def read_pngs(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}
