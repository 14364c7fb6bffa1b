"""The models that ship with the package: files, card, and use in every place."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open

import nailseg
from nailseg import train
from nailseg.checkpoints import model_folder
from nailseg.checkpoints.model_card import render_model_card
from nailseg.cli.main import main
from nailseg.data.io.images import read_image
from nailseg.data.synthetic.sample import write_sample
from nailseg.model_info import SHIPPED

FOLDERS = {name: Path(nailseg.__file__).parent / "weights" / name for name in SHIPPED}
each_model = pytest.mark.parametrize("name", SHIPPED)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hands")
    write_sample(folder, count=6, size=256, seed=3)
    return folder


@each_model
def test_size_and_precision(name: str) -> None:
    folder = FOLDERS[name]
    assert (folder / "model.safetensors").stat().st_size <= 8_000_000
    with safe_open(folder / "model.safetensors", "pt") as file:
        kinds = {str(file.get_slice(key).get_dtype()) for key in file.keys()}  # noqa: SIM118
    assert kinds <= {"F16", "I64"}
    if name == "nailseg-b0":  # which plain transformers loads
        assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


@each_model
def test_card_has_origin_and_metrics(name: str) -> None:
    info = model_folder.read_info(FOLDERS[name])
    card = (FOLDERS[name] / "README.md").read_text()
    for text in ("nails_segmentation-vsf0o", "Roboflow Universe", "CC BY 4.0"):
        assert text in card
        assert text in info.origin["weights"]
    assert "non-commercial" not in info.origin["licence"]
    assert f"{info.metrics['dice_nail']:.4f}" in card
    assert info.metrics["intervals"]["dice_nail"]
    assert info.data["fingerprint"]
    assert 0 < info.threshold < 1


@each_model
def test_card_is_up_to_date(name: str) -> None:
    generated = render_model_card(name, model_folder.read_info(FOLDERS[name])).split("---\n", 2)[2]
    assert generated in (FOLDERS[name] / "README.md").read_text()


def test_the_default_model_sees_no_nails_on_blanks() -> None:
    segment = nailseg.load(device="cpu")
    x = np.linspace(0, 255, 432).astype(np.uint8)
    ramp = np.broadcast_to(x[None, :, None], (432, 432, 3)).copy()
    noise = np.random.default_rng(0).integers(0, 256, (432, 432, 3), np.uint8)
    flats = [np.full((432, 432, 3), color, np.uint8) for color in ((128, 128, 128), (226, 172, 138))]
    for image in (ramp, noise, *flats):
        assert (segment(image).mask > 0).mean() <= 0.001


@each_model
def test_it_finds_nails(hands, name: str) -> None:
    segment = nailseg.load(name)
    hits = false = missed = 0
    for image in sorted((hands / "Images").rglob("*.*")):
        (truth_file,) = (hands / "Masks").rglob(f"{image.stem}.*")
        truth = read_image(truth_file)[..., 0] > 127
        found = segment(image).mask > 0
        hits += (found & truth).sum()
        false += (found & ~truth).sum()
        missed += (~found & truth).sum()
    # it was trained on photographs: on drawings a low Dice is enough
    assert 2 * hits / (2 * hits + false + missed) > 0.3


@each_model
def test_every_command_accepts_its_name(hands, tmp_path, name: str) -> None:
    image = next(iter(sorted((hands / "Images").rglob("*.*"))))
    assert main(["predict", str(image), "--model", name, "--out", "masks"]) == 0
    assert main(["index", str(hands), "--out", "dataset.csv", "--val", "0.3", "--test", "0.3"]) == 0
    data = ["--data.csv=dataset.csv", f"--data.root={hands}", "--data.workers=0"]
    assert main(["test", f"--model.weights={name}", *data, "--trainer.accelerator=cpu"]) == 0
    assert json.loads((tmp_path / "runs" / name / "test" / "metrics.json").read_text())["n_images"]


def test_fine_tuned_models_keep_its_origin(hands, tmp_path) -> None:
    assert main(["index", str(hands), "--out", "dataset.csv", "--val", "0.3", "--test", "0"]) == 0
    args = ["--config=finetune_small.yaml", "--data.csv=dataset.csv", f"--data.root={hands}"]
    args += ["--data.workers=0", "--data.size=64", "--data.eval_size=64"]
    assert train.main([*args, "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]) == 0
    run = tmp_path / "runs" / "finetune_small"
    assert "vsf0o" in model_folder.read_info(run / "model").origin["weights"]
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["weights"] == "nailseg-b0"


def test_local_folder_of_that_name_is_preferred(tmp_path) -> None:
    (tmp_path / "nailseg-b0").mkdir()
    assert model_folder.locate("nailseg-b0") == "nailseg-b0"
    (tmp_path / "nailseg-b0").rmdir()
    assert Path(model_folder.locate("nailseg-b0")) == FOLDERS["nailseg-b0"]


def test_probabilities_sum_to_one(hands) -> None:
    result = nailseg.load()(next(iter(sorted((hands / "Images").rglob("*.*")))))
    assert np.allclose(result.probability.sum(0), 1, atol=1e-5)
    assert (result.mask == (result.probability[1] > result.probability[0])).mean() > 0.9999


@each_model
def test_fine_tuning_takes_the_architecture_of_the_weights(hands, tmp_path, name: str) -> None:
    assert main(["index", str(hands), "--out", "dataset.csv", "--val", "0.3", "--test", "0"]) == 0
    args = ["--data.csv=dataset.csv", f"--data.root={hands}", "--data.workers=0", "--data.size=64"]
    args += [f"--model.weights={name}", "--name=tuned", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    assert main(["fit", *args]) == 0
    info = model_folder.read_info(tmp_path / "runs" / "tuned" / "model")
    assert info.architecture == {"nailseg-lite0": "efficientnet", "nailseg-b0": "segformer"}[name]
    assert main(["fit", "--resume=runs/tuned", "--trainer.max_epochs=2"]) == 0
