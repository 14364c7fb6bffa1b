"""Networks of transformers as `Network`, compared with plain transformers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForSemanticSegmentation,
    BertConfig,
    ConvNextConfig,
    MobileNetV2Config,
    MobileNetV2ForSemanticSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from nailseg.errors import WeightsError
from nailseg.models.auto import AutoNetwork
from nailseg.training.optim import parameter_groups

NAMES = {
    "id2label": {0: "background", 1: "hand", 2: "nail"},
    "label2id": {"background": 0, "hand": 1, "nail": 2},
}


def upernet() -> UperNetForSemanticSegmentation:
    backbone = ConvNextConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = UperNetConfig(
        backbone_config=backbone, hidden_size=8, auxiliary_channels=8, auxiliary_in_channels=16, **NAMES
    )
    return UperNetForSemanticSegmentation(config)


def deeplab() -> MobileNetV2ForSemanticSegmentation:
    return MobileNetV2ForSemanticSegmentation(MobileNetV2Config(depth_multiplier=0.1, min_depth=4, **NAMES))


@pytest.fixture(params=[upernet, deeplab], ids=["upernet", "deeplab"])
def folder(request, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    request.param().save_pretrained(tmp_path / "their")
    return tmp_path / "their"


def test_logits_are_transformers(folder: Path) -> None:
    network = AutoNetwork(str(folder)).eval()
    assert network.class_names == ["background", "hand", "nail"]
    assert not network.new_head
    plain = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    pixels = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(network.logits(pixels), plain(pixel_values=pixels).logits)
        assert network(torch.zeros(1, 3, 70, 50, dtype=torch.uint8)).shape == (1, 3, 70, 50)
    assert not any("auxiliary" in name for name, _ in network.named_parameters())


def test_every_parameter_has_a_gradient_and_a_group(folder: Path) -> None:
    network = AutoNetwork(str(folder), drop_path=0.0)
    groups = parameter_groups(network, 1e-3, 0.01, 10)
    trained = [p for p in network.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(trained)
    assert all(m.momentum == 0.1 for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    network(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_other_classes_change_only_the_classifier(folder: Path) -> None:
    old = AutoNetwork(str(folder))
    for names in (["background", "nail"], ["background", "nail", "ring"]):  # fewer, and as many
        network = AutoNetwork(str(folder), names)
        assert network.new_head
        assert network.class_names == names
        before, after = old.state_dict(), network.state_dict()
        changed = {
            k for k in after if after[k].shape != before[k].shape or not torch.equal(after[k], before[k])
        }
        assert changed
        assert all("classifier" in key for key in changed)


def test_config_alone_gives_random_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    with pytest.raises(WeightsError, match=r"found an architecture. Give '.*-random' for random weights"):
        AutoNetwork(str(folder))
    network = AutoNetwork(f"{folder}-random", ["background", "nail"])
    assert network.new_head
    assert network.origin["licence"].startswith("random")


def test_missing_and_unexpected_tensors(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    lost = next(key for key in tensors if key.startswith(("decode_head.b", "mobilenet")))
    save_file({k: t for k, t in tensors.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match="found missing: "):
        AutoNetwork(str(folder), ["background", "nail"])
    save_file(tensors | {"more": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match="found unexpected: more"):
        AutoNetwork(str(folder))


def test_normalization_of_the_folder(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    )
    network = AutoNetwork(str(folder))
    assert network.mean.flatten().tolist() == pytest.approx([0.5] * 3)
    assert network.std.flatten().tolist() == pytest.approx([0.25] * 3)


@pytest.mark.parametrize(
    ("name", "millions"), [("upernet-convnext-tiny", 59.2), ("mobilenetv2-deeplabv3", 2.5)]
)
def test_baselines_need_no_file(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = AutoNetwork(f"{name}-random", ["background", "nail"])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_networks_that_do_not_segment(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"model_type 'bert': expected a type that transformers'"):
        AutoNetwork(f"{tmp_path}-random", ["a", "b"])
    (tmp_path / "config.json").write_text('{"model_type": "none such"}')
    with pytest.raises(WeightsError, match="the network's config"):
        AutoNetwork(f"{tmp_path}-random", ["a", "b"])
