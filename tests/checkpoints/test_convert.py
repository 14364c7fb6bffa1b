"""Conversion of files with the original key names, made from transformers' networks."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.models.segformer import SegFormer
from tests.conftest import TINY

NVLABS = [
    (r"stages\.(\d)\.patch_embeddings\.proj", lambda m: f"patch_embed{int(m[1]) + 1}.proj"),
    (r"stages\.(\d)\.patch_embeddings\.layer_norm", lambda m: f"patch_embed{int(m[1]) + 1}.norm"),
    (r"stages\.(\d)\.blocks", lambda m: f"block{int(m[1]) + 1}"),
    (r"stages\.(\d)\.layer_norm", lambda m: f"norm{int(m[1]) + 1}"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    (r"attention\.sequence_reduction\.sequence_reduction", "attn.sr"),
    (r"attention\.sequence_reduction\.layer_norm", "attn.norm"),
    (r"attention\.q_proj", "attn.q"),
    (r"attention\.o_proj", "attn.proj"),
    (r"linear_projections\.(\d)", lambda m: f"linear_c{int(m[1]) + 1}"),
    ("linear_fuse", "linear_fuse.conv"),
    ("batch_norm", "linear_fuse.bn"),
    ("decode_head.classifier", "decode_head.linear_pred"),
]
MMSEG = [
    (r"stages\.(\d)\.patch_embeddings\.proj", r"layers.\1.0.projection"),
    (r"stages\.(\d)\.patch_embeddings\.layer_norm", r"layers.\1.0.norm"),
    (r"stages\.(\d)\.blocks", r"layers.\1.1"),
    (r"stages\.(\d)\.layer_norm", r"layers.\1.2"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    (r"attention\.sequence_reduction\.sequence_reduction", "attn.sr"),
    (r"attention\.sequence_reduction\.layer_norm", "attn.norm"),
    (r"attention\.o_proj", "attn.attn.out_proj"),
    (r"mlp\.fc1", "ffn.layers.0"),
    (r"mlp\.dwconv\.dwconv", "ffn.layers.1"),
    (r"mlp\.fc2", "ffn.layers.4"),
]


def original(
    state: dict[str, torch.Tensor], names: list, joined: str, encoder: str
) -> dict[str, torch.Tensor]:
    """The state dict as the original code would have saved it."""
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        name, tensor = key, value
        match = re.search(r"attention\.([qkv])_proj\.(\w+)", key)
        if match and match[1] in joined:
            if match[1] != joined[0]:
                continue
            keys = [key.replace(f"{joined[0]}_proj", f"{letter}_proj") for letter in joined]
            tensor = torch.cat([state[each] for each in keys])
            new = {"kv": f"attn.kv.{match[2]}", "qkv": f"attn.attn.in_proj_{match[2]}"}[joined]
            name = key.replace(match[0], new)
        for ours, theirs in names:
            name = re.sub(ours, theirs, name)
        square = re.search(r"ffn\.layers\.[04]\.weight", name)
        found[name.replace("segformer.", encoder)] = tensor[:, :, None, None] if square else tensor
    return found


@pytest.fixture
def stock() -> SegformerForSemanticSegmentation:
    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(SegformerConfig(**TINY, num_labels=5)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
        network.decode_head.batch_norm.running_var.uniform_(0.5, 2)
    return network


def nvlabs(stock) -> dict[str, torch.Tensor]:
    extra = {
        "decode_head.conv_seg.weight": torch.ones(5, 16, 1, 1),
        "decode_head.conv_seg.bias": torch.ones(5),
    }
    return original(stock.state_dict(), NVLABS, "kv", "backbone.") | extra


def test_nvlabs_file_gives_transformers_logits(stock, tmp_path: Path, capsys) -> None:
    state = nvlabs(stock)
    assert "backbone.block1.0.attn.kv.weight" in state
    assert "backbone.patch_embed1.proj.weight" in state
    assert "decode_head.linear_fuse.bn.running_mean" in state
    torch.save({"state_dict": state, "meta": {"epoch": 1}}, tmp_path / "segformer.pth")
    assert main(["convert", str(tmp_path / "segformer.pth"), str(tmp_path / "model")]) == 0
    out = capsys.readouterr()
    assert "SegFormer with 5 classes: depths [1, 1, 1, 1], widths [8, 16, 24, 32]" in out.out
    assert "non-commercial" in out.err
    pixels = torch.randn(1, 3, 64, 96)
    plain = SegformerForSemanticSegmentation.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(pixels).logits, stock(pixels).logits)
    info = model_folder.read_info(tmp_path / "model")
    assert info.origin["licence"].startswith("non-commercial")
    assert info.data == {"converted from": "segformer.pth"}
    # default labels do not bind: it can be fine-tuned for other classes
    network = model_folder.open_network(tmp_path / "model", ["background", "nail"])
    assert network.new_head
    assert not model_folder.open_network(tmp_path / "model").new_head


def test_class_names_and_licence(stock, tmp_path: Path, capsys) -> None:
    torch.save(nvlabs(stock), tmp_path / "a.pth")
    names = ["background", "a", "b", "c", "d"]
    args = ["convert", str(tmp_path / "a.pth"), str(tmp_path / "model"), "--licence", "CC0"]
    assert main([*args, "--classes", *names[:3]]) == 1
    assert "expected as many names as there are classes, 5 in" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    assert main([*args, "--classes", *names]) == 0
    info = model_folder.read_info(tmp_path / "model")
    assert (info.class_names, info.origin["licence"]) == (names, "CC0")
    assert main(args) == 1
    assert "is not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["nvlabs", "mmseg"])
def test_encoder(stock, tmp_path: Path, layout: str) -> None:
    encoder = {k: t for k, t in stock.state_dict().items() if k.startswith("segformer.")}
    if layout == "nvlabs":  # as mit_b0.pth: no prefix, ImageNet's classifier beside
        state = original(encoder, NVLABS, "kv", "") | {
            "head.weight": torch.ones(9, 32),
            "head.bias": torch.ones(9),
        }
        assert "patch_embed1.proj.weight" in state
    else:
        state = original(encoder, MMSEG, "qkv", "")
        assert "layers.0.1.0.attn.attn.in_proj_weight" in state
    torch.save(state, tmp_path / "mit.pth")
    assert main(["convert", str(tmp_path / "mit.pth"), str(tmp_path / "model")]) == 0
    network = SegFormer(str(tmp_path / "model"), ["background", "nail"]).eval()
    assert network.new_head
    assert network.origin["licence"].startswith("non-commercial")
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = network.hf.segformer(pixels).last_hidden_state
        torch.testing.assert_close(found, stock.segformer(pixels).last_hidden_state)


def test_mmsegmentations_head_is_refused(stock, tmp_path: Path, capsys) -> None:
    encoder = {k: t for k, t in stock.state_dict().items() if k.startswith("segformer.")}
    state = original(encoder, MMSEG, "qkv", "backbone.") | {
        "decode_head.convs.0.conv.weight": torch.ones(16, 8, 1, 1),
        "decode_head.convs.0.bn.weight": torch.ones(16),
        "decode_head.fusion_conv.conv.weight": torch.ones(16, 64, 1, 1),
        "decode_head.conv_seg.weight": torch.ones(5, 16, 1, 1),
    }
    torch.save({"state_dict": state}, tmp_path / "mmseg.pth")
    args = ["convert", str(tmp_path / "mmseg.pth"), str(tmp_path / "model")]
    assert main(args) == 1
    assert "found mmsegmentation's (decode_head.convs.0.conv.weight …)" in capsys.readouterr().err
    assert main([*args, "--encoder"]) == 0
    assert model_folder.open_network(tmp_path / "model").new_head


def test_invalid_files(stock, tmp_path: Path, capsys) -> None:
    def refused(content: object, *expected: str) -> None:
        torch.save(content, tmp_path / "bad.pth")
        assert main(["convert", str(tmp_path / "bad.pth"), str(tmp_path / "model")]) == 1
        error = capsys.readouterr().err
        assert all(text in error for text in expected), error
        assert not (tmp_path / "model").exists()

    state = nvlabs(stock)
    refused(state | {"neck.weight": torch.ones(1)}, "unexpected: neck.weight; missing: none")
    short = {k: t for k, t in state.items() if k != "decode_head.linear_c2.proj.bias"}
    refused(short, "missing: decode_head.linear_projections.1.proj.bias")
    refused(
        state | {"backbone.norm1.bias": torch.ones(9)},
        "expected tensors that fit each other",
        "stages.0.layer_norm",
    )
    refused({"conv1.weight": torch.ones(3)}, "expected SegFormer's tensors", "found conv1.weight")
    refused([1, 2], "expected a state dict")
    refused({"state_dict": state, "hook": Path("x")}, "tensors and plain values only", "weights_only=False")
    assert main(["convert", str(tmp_path / "none.pth"), str(tmp_path / "model")]) == 1
    assert "expected a file of weights, found none" in capsys.readouterr().err
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir())) == '["bad.pth"]'


def test_other_formats(tmp_path, capsys) -> None:
    (tmp_path / "a.pth").write_text("hello")
    assert main(["convert", str(tmp_path / "a.pth"), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "expected a file written by torch.save, found another format" in error
    assert "weights_only" not in error
