"""Every config parses, says what it is for, and drives every verb with a tiny network."""

import json
from pathlib import Path

import pytest
import yaml

from nailseg import train
from nailseg.cli.main import main

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


def test_the_promised_configs_exist() -> None:
    names = {path.stem for path in CONFIGS}
    assert {"b0", "b1", "b2", "b3", "b4", "b5", "scratch_b0", "finetune_small", "demo", "vit_pet"} <= names


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_is_short_and_has_a_header(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 30
    header = [line for line in lines[:6] if line.startswith("#")]
    assert len(header) >= 3
    assert any(f"--config {path.name}" in line for line in header)
    assert "Data:" in "".join(header)
    assert "Result:" in "".join(header)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_tiny_run_through_every_verb(path: Path, drawn, tiny_folder, tmp_path) -> None:
    content = yaml.safe_load(path.read_text())
    own = {"vit": "vit-tiny-random", "efficientnet": "lite0-random"}
    weights = own.get(content["model"].get("name"), tiny_folder)
    args = [
        "--config",
        path.name,
        f"--data.csv={drawn / 'dataset.csv'}",
        f"--model.weights={weights}",
        "--data.classes=[background,nail]",
        "--data.size=64",
        "--data.batch_size=4",
        "--data.workers=0",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=1",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.accumulate_grad_batches=1",
        "--trainer.enable_progress_bar=false",
    ]
    assert train.main(args) == 0
    run = tmp_path / "runs" / path.stem
    saved = yaml.safe_load((run / "config.yaml").read_text())
    for option, value in content["model"].items():
        assert option == "weights" or saved["model"][option] == value, "what the config says reaches the run"
    assert json.loads((run / "test" / "metrics.json").read_text())["n_images"] == 6
    for verb in ("validate", "test"):
        assert main([verb, f"--config={run / 'config.yaml'}"]) == 0
    (image,) = sorted((drawn / "Images" / "2").glob("*"))[:1]
    assert main(["predict", str(image), "--model", str(run / "model"), "--out", str(tmp_path / "out")]) == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"{image.stem}.png"]


def test_the_sweep_names_options_that_exist(drawn, tiny_folder, tmp_path) -> None:
    sweep = yaml.safe_load((CONFIGS[0].parents[1] / "experiments" / "sweep.yaml").read_text())
    fixed = [word for word in sweep["command"] if word.startswith("--") and "--data." not in word]
    chosen = {name: given.get("values", [given.get("min")])[0] for name, given in sweep["parameters"].items()}
    small = {"data.size": 64, "data.eval_size": 64, "data.batch_size": 4, "data.workers": 0}
    small |= {"trainer.max_epochs": 1, "trainer.check_val_every_n_epoch": 1, "trainer.accelerator": "cpu"}
    options = [f"--{name}={value}" for name, value in (chosen | small).items()]
    data = [f"--data.csv={drawn / 'dataset.csv'}", f"--model.weights={tiny_folder}"]
    assert sweep["program"] == "nailseg.train"
    assert train.main([*fixed, *data, *options]) == 0
    header = (tmp_path / "runs" / "scratch_b0" / "metrics.csv").read_text().partition("\n")[0]
    assert sweep["metric"]["name"] in header.split(",")
