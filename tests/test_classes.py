"""Class names and class weights: every spelling, on every command that takes them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.utils.class_weight import compute_class_weight

from nailseg.cli.main import main
from nailseg.data import SegmentationDataModule
from nailseg.errors import ConfigError
from nailseg.model_info import read_info
from nailseg.training import SegmentationTask

NAMES = ["background", "road", "car"]
SPELLINGS = {
    "words": NAMES,
    "a list": ["[background,road,car]"],
    "a list with spaces": ["[background, road, car]"],
    "a list in words": ["[background,", "road,", "car]"],
    "JSON": ['["background", "road", "car"]'],
    "commas": ["background,road,car"],
}


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images with indices 0..2; class 2 is ten times rarer than 1."""
    folder = tmp_path_factory.mktemp("street")
    lines = ["image,mask,split"]
    for number in range(30):
        rng = np.random.default_rng(number)
        mask = np.zeros((64, 64), np.uint8)
        mask[40:60, 5:55] = 1
        mask[int(rng.integers(5, 20)) :, 10:20][:10] = 2
        image = rng.integers(0, 200, (64, 64, 3)).astype(np.uint8) + mask[..., None] * 25
        cv2.imwrite(str(folder / f"{number}.png"), image)
        cv2.imwrite(str(folder / f"m{number}.png"), mask)
        lines.append(
            f"{number}.png,m{number}.png,{'train' if number < 20 else 'val' if number < 25 else 'test'}"
        )
    (folder / "dataset.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("verb", ["check", "fit", "train", "import", "convert"])
def test_every_spelling_on_every_command(
    verb: str, spelling: str, street: Path, tiny_folder, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    words, table = SPELLINGS[spelling], str(street / "dataset.csv")
    if verb == "check":
        assert main(["check", table, "--classes", *words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["mask_encoding"]["class_names"] == NAMES
    elif verb in ("fit", "train"):
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--data.csv", table, "--data.classes", *words, "--data.size=64", "--print_config"])
        assert "  classes:\n  - background\n  - road\n  - car\n" in capsys.readouterr().out
    elif verb == "import":
        assert main(["import", "hub", str(street), "out", "--classes", *words]) == 1  # no such data set
        assert "classes" not in capsys.readouterr().err
    else:
        weights = tmp_path / "weights.pth"
        torch.save({"x": torch.zeros(1)}, weights)
        assert main(["convert", str(weights), "out", "--classes", *words]) == 1
        assert "--classes" not in capsys.readouterr().err


def test_balanced_weights_are_those_of_scikit_learn(street: Path) -> None:
    data = SegmentationDataModule(
        csv=str(street / "dataset.csv"), classes=NAMES, size=64, workers=0, class_weights="balanced"
    )
    data.setup("fit")
    pixels = np.concatenate([cv2.imread(str(street / f"m{n}.png"), 0).ravel() for n in range(20)])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=pixels)
    assert data.class_weights == pytest.approx(expected)
    assert data.facts()["data"]["class weights"] == data.class_weights


@pytest.mark.parametrize("given", [[1.0, 2.0], [1.0, -1.0, 2.0], [0.0, 0.0, 0.0]])
def test_invalid_weights(given: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"--data.class_weights: expected"):
        SegmentationDataModule(csv="x.csv", classes=NAMES, class_weights=given)


def test_weights_and_focal_loss_reach_the_training(
    street: Path, tiny_folder, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["--data.csv", str(street / "dataset.csv"), "--data.classes", *NAMES, "--data.size", "64"]
    args += ["--data.workers", "0", "--model.weights", str(tiny_folder), "--trainer.max_epochs", "1"]
    args += [
        "--data.class_weights",
        "[0.5,1,8]",
        "--model.focal_weight",
        "1",
        "--model.cross_entropy_weight",
        "0",
    ]
    assert main(["fit", *args, "--trainer.logger", "false", "--name", "a"]) == 0
    assert read_info("runs/a/model").data["class weights"] == [0.5, 1.0, 8.0]
    header = Path("runs/a/metrics.csv").read_text().splitlines()[0]
    assert "train/focal_loss" in header


def test_the_task_takes_the_weights_of_the_data(street: Path, tiny_folder) -> None:
    data = SegmentationDataModule(
        csv=str(street / "dataset.csv"), classes=NAMES, size=64, workers=0, class_weights=[1.0, 2.0, 3.0]
    )
    task = SegmentationTask(weights=str(tiny_folder), class_names=NAMES, image_size=64)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(max_steps=1, accelerator="cpu", enable_model_summary=False, **options).fit(task, data)
    assert task.class_weights.tolist() == [1.0, 2.0, 3.0]
