"""Every architecture through the command line: train, resume, test, predict; and the registry."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import ConvNextConfig, SegformerForSemanticSegmentation, UperNetConfig

import nailseg.models
from nailseg import train
from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.errors import ConfigError
from nailseg.models.registry import network_class
from nailseg.models.segformer import SegFormer
from nailseg.models.vit import ViT
from nailseg.training.task import SegmentationTask


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture
def weights(tiny_folder: Path, tmp_path: Path) -> dict[str, str]:
    """Something small to start from, for each architecture."""
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=stages)
    UperNetConfig(backbone_config=backbone, hidden_size=8, use_auxiliary_head=False).save_pretrained(
        tmp_path / "upernet"
    )
    upernet = f"{tmp_path / 'upernet'}-random"
    return {"mix_transformer": str(tiny_folder), "vit": "vit-tiny-random", "auto": upernet}


@pytest.mark.parametrize("name", ["mix_transformer", "vit", "auto"])
def test_a_run(name: str, weights, drawn: Path, tmp_path: Path, capsys) -> None:
    data = [f"--data.csv={drawn / 'dataset.csv'}", "--data.workers=0", "--trainer.accelerator=cpu"]
    args = [
        *data,
        "--data.size=64",
        "--data.batch_size=4",
        "--trainer.enable_progress_bar=false",
        "--name=run",
    ]
    args += [f"--model.name={name}", f"--model.weights={weights[name]}", "--trainer.max_epochs=1"]
    args += ["--model.lr=1e-3", *(["--data.resize=squash"] if name == "vit" else [])]
    assert train.main(args) == 0, capsys.readouterr().err
    run = tmp_path / "runs" / "run"
    assert train.main(["--resume=runs/run", "--trainer.max_epochs=2"]) == 0, capsys.readouterr().err
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    info = model_folder.read_info(run / "model")
    assert (info.architecture, info.image_size) == (name, 64)
    assert info.metrics["n_images"] == 6
    folder = model_folder.open_network(run / "model").eval()
    best = model_folder.open_network(run / "checkpoints" / "best.ckpt").eval()
    assert type(folder) is type(best) is network_class(name)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(best(image), folder(image))
    # as it is: neither config nor --model.name
    assert main(["test", *data, "--model.weights=runs/run/model"]) == 0, capsys.readouterr().err
    (image_file,) = sorted((drawn / "Images" / "2").glob("*"))[:1]
    assert main(["predict", str(image_file), "--model=runs/run", "--out=out"]) == 0
    assert (tmp_path / "out" / f"{image_file.stem}.png").is_file()
    if name == "vit":  # one size: test-time augmentation mirrors only
        assert main(["predict", str(image_file), "--model=runs/run", "--out=tta", "--tta"]) == 0
        assert (tmp_path / "tta" / f"{image_file.stem}.png").is_file()
    if name == "mix_transformer":  # its folder is also a SegFormer's
        plain = SegformerForSemanticSegmentation.from_pretrained(run / "model").eval()
        pixels = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(plain(pixels).logits, folder.logits(pixels), rtol=1e-4, atol=1e-5)
        assert type(model_folder.open_network(run / "model", name="segformer")) is SegFormer
        with pytest.raises(ConfigError, match="which is mix_transformer"):  # other key names
            model_folder.open_network(run / "checkpoints" / "best.ckpt", name="segformer")


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    network = ViT("vit-tiny-random", ["background", "nail"])
    model_folder.save_model_folder(
        tmp_path / "m", network, model_folder.describe_network(network, image_size=64)
    )
    with pytest.raises(
        ConfigError, match=r"segformer: expected weights of that.*m, which is vit. Give --model.name vit"
    ):
        SegmentationTask(weights=str(tmp_path / "m"), name="segformer")


def test_vit_requires_its_size(capsys, drawn: Path) -> None:
    args = [
        "fit",
        f"--data.csv={drawn / 'dataset.csv'}",
        "--model.name=vit",
        "--model.weights=vit-tiny-random",
    ]
    assert main([*args, "--data.size=64"]) == 1
    assert "found size 64, resize keep. Give --data.size 64 --data.eval_size null" in capsys.readouterr().err
    assert main([*args, "--data.size=96", "--data.resize=squash"]) == 1
    assert (
        "expected squashed images of 64 x 64 pixels, because its positions are learned; found size 96"
        in capsys.readouterr().err
    )
    assert not Path("runs").exists()


def test_default_architecture(tiny_folder: Path) -> None:
    assert model_folder.ModelInfo.from_dict({"class_names": ["a", "b"]}, "here").architecture == "segformer"
    assert type(model_folder.open_network(tiny_folder)) is SegFormer
    with pytest.raises(
        ConfigError,
        match="expected one of segformer, mix_transformer, efficientnet, vit, auto",
    ):
        network_class("unet")


def test_networks_do_not_import_lightning() -> None:
    for file in Path(nailseg.models.__file__).parent.glob("*.py"):
        assert not re.search(r"^\s*(from|import) (lightning|pytorch_lightning)", file.read_text(), re.M), file


def test_packages_are_lazy() -> None:
    code = (
        "import sys, nailseg.models, nailseg.checkpoints\n"
        "assert not {'torch', 'transformers', 'lightning'} & set(sys.modules)\n"
        "from nailseg.models import Network, SegFormer, build_network\n"
        "from nailseg.checkpoints import open_network, save_model_folder\n"
        "assert issubclass(SegFormer, Network)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = nailseg.models.other
