"""SegFormer: architectures, initialization and forward pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import SegformerForSemanticSegmentation

from nailseg.errors import WeightsError
from nailseg.models.mix_transformer import ARCHITECTURES
from nailseg.models.segformer import SegFormer
from tests.models.conftest import images


@pytest.mark.parametrize(
    # the paper's table 6 counts 3.8, 13.7, 27.5, 47.3, 64.1 and 84.7 M with 150 classes
    ("name", "millions"),
    [("b0", 3.71), ("b1", 13.68), ("b2", 27.35), ("b3", 47.22), ("b4", 63.99), ("b5", 84.59)],
)
def test_parameter_counts(name: str, millions: float) -> None:
    depths, widths, decoder = ARCHITECTURES[name]
    config = {"depths": depths, "hidden_sizes": widths, "decoder_hidden_size": decoder}
    with torch.device("meta"):  # counting needs no memory
        network = SegFormer.from_config(config, ["background", "nail"])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


@pytest.fixture(scope="module")
def b0() -> SegFormer:
    torch.manual_seed(0)
    return SegFormer("b0-random")


def test_b0_with_random_weights(b0: SegFormer) -> None:
    assert b0.class_names == ["background", "nail"]
    assert b0.new_head
    assert b0.training
    assert b0.hf.training
    assert b0.origin["licence"] == "random initialisation, no licence attached"
    assert b0.hf.config._attn_implementation == "sdpa"
    rates = [
        b.drop_path.drop_prob
        for s in b0.hf.segformer.stages
        for b in s.blocks
        if hasattr(b.drop_path, "drop_prob")
    ]
    assert rates == pytest.approx([0.1 * i / 7 for i in range(1, 8)])


def test_initialization_is_the_papers(b0: SegFormer) -> None:
    for name, part in b0.hf.segformer.named_modules():
        if isinstance(part, nn.Conv2d):
            std = (2 / (part.kernel_size[0] ** 2 * part.out_channels / part.groups)) ** 0.5
        elif isinstance(part, nn.Linear):
            std = 0.02
        elif isinstance(part, nn.LayerNorm):
            assert part.weight.eq(1).all(), name
            assert part.bias.eq(0).all(), name
            continue
        else:
            continue
        assert part.weight.std().item() == pytest.approx(std, rel=0.1), name
        assert part.bias.eq(0).all(), name
    assert b0.hf.decode_head.linear_fuse.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.05)
    assert b0.hf.decode_head.classifier.weight.abs().max() <= 256**-0.5


# forward


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 40)], ids=str)
def test_any_size(tiny_folder: Path, size: tuple[int, int]) -> None:
    network = SegFormer(str(tiny_folder))
    logits = network(images(*size))
    assert logits.shape == (2, 2, *size)
    assert logits.dtype == torch.float32


def test_normalization_inside(tiny_folder: Path) -> None:
    network = SegFormer(str(tiny_folder)).eval()
    stock = SegformerForSemanticSegmentation.from_pretrained(tiny_folder).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        small = stock(pixels).logits
        expected = nn.functional.interpolate(small, size=(64, 64), mode="bilinear", align_corners=False)
        for image in (images(), images().float(), images().double()):
            assert (network(image) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert not any("mean" in name.split(".")[-1] and "running" not in name for name in network.state_dict())
    assert set(network.hf.state_dict()) == set(stock.state_dict())


def test_mean_and_std_of_the_folder(folder: Path) -> None:
    preprocessor = {"image_mean": [0.5, 0.25, 0.5], "image_std": [0.1, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    network = SegFormer(str(folder))
    assert network.mean.flatten().tolist() == [0.5, 0.25, 0.5]
    assert network.std.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_std": [1, 0, 1]}))
    with pytest.raises(WeightsError, match="three positive standard deviations, found"):
        SegFormer(str(folder))


def test_trains_after_inference_mode(tiny_folder: Path) -> None:
    network = SegFormer(str(tiny_folder)).eval()
    with torch.inference_mode():
        network(images())
    network.train()(images()).mean().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_compiles(tiny_folder: Path) -> None:
    """One graph without a break; the code generator is torch's own."""
    network = SegFormer(str(tiny_folder)).eval()
    with torch.no_grad():
        expected = network(images())  # transformers adds hooks at the first call, which cannot be traced
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        assert torch.equal(compiled(images()), expected)


def test_exports_with_dynamic_sizes(tiny_folder: Path) -> None:
    network = SegFormer(str(tiny_folder)).eval()
    auto = torch.export.Dim.AUTO
    program = torch.export.export(network, (images(64, 96),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    image = images(65, 97)[:1].repeat(3, 1, 1, 1)
    with torch.no_grad():
        assert (program.module()(image) - network(image)).abs().max() < 1e-5
