"""PVT v2 encoders as SegFormers: features of transformers' `PvtV2Model`, licences, errors in the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    PvtV2Config,
    PvtV2ForImageClassification,
    PvtV2Model,
    SegformerForSemanticSegmentation,
)
from transformers import logging as hf_logging

from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.errors import WeightsError
from nailseg.models import pretrained
from nailseg.models.decode_head import DecodeHead
from nailseg.models.registry import build_network
from nailseg.models.segformer import SegFormer
from tests.models.conftest import edit_config, images, same_logits
from tests.models.test_pretrained import cache, fill  # noqa: F401 (a fixture)

TINY = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
SHAPES = {
    "b0": {},
    "b1": {"hidden_sizes": [64, 128, 320, 512]},
    "b5-like": TINY | {"depths": [1, 2, 3, 1], "mlp_ratios": [4, 4, 4, 4]},
}


@pytest.fixture(autouse=True)
def without_bars() -> None:
    hf_logging.disable_progress_bar()


def save_pvt(folder: Path, kind: type = PvtV2ForImageClassification, **fields: object) -> torch.nn.Module:
    """Saves a PVT of noise in all tensors, and returns it."""
    torch.manual_seed(0)
    stock = kind(PvtV2Config(**fields, num_labels=10)).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    stock.save_pretrained(folder)
    return stock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pvt(tmp_path / "pvt", **TINY)
    return tmp_path / "pvt"


@pytest.fixture
def edit(folder: Path) -> Callable[[Callable[[dict], dict]], Path]:
    def apply(change: Callable[[dict], dict]) -> Path:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, {"format": "pt"})
        return folder

    return apply


@pytest.mark.parametrize("architecture", ["segformer", "mix_transformer"])
@pytest.mark.parametrize(("eps", "limit"), [(1e-5, 1e-5), (1e-6, 3e-5)])  # SegFormer's, and PVT's own
@pytest.mark.parametrize("kind", [PvtV2ForImageClassification, PvtV2Model])
@pytest.mark.parametrize("shape", SHAPES)
def test_features_are_those_of_transformers(
    tmp_path: Path, shape: str, kind: type, architecture: str, eps: float, limit: float
) -> None:
    stock = save_pvt(tmp_path, kind, **SHAPES[shape], layer_norm_eps=eps)
    network = build_network(str(tmp_path), name=architecture).eval()
    encoder = getattr(stock, "pvt_v2", stock)
    for size in ((64, 96), (65, 97), (131, 75)):
        pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = encoder(pixels, output_hidden_states=True).hidden_states
            if architecture == "segformer":
                found = network.encoder(pixels, output_hidden_states=True).hidden_states
            else:
                found = network.encoder(pixels)
        assert len(found) == len(expected) == 4
        for a, b in zip(found, expected, strict=True):
            assert (a - b).abs().max() <= limit * b.abs().max()


@pytest.mark.parametrize(
    ("fields", "width"), [({}, 256), ({"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3]}, 768)]
)
def test_the_head_is_the_papers(tmp_path: Path, fields: dict, width: int) -> None:
    save_pvt(tmp_path, **fields)
    network = SegFormer(str(tmp_path), ["background", "nail"])
    assert network.new_head
    assert network.training
    head = network.hf.decode_head
    assert isinstance(head, DecodeHead)
    assert network.hf.config.decoder_hidden_size == width
    assert head.linear_fuse.weight.std().item() == pytest.approx((2 / width) ** 0.5, rel=0.05)
    assert head.linear_projections[0].proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert head.classifier.weight.abs().max() <= width**-0.5


def test_a_config_without_its_defaults(folder: Path) -> None:
    """Some versions of transformers leave them out, and PVT's differ from SegFormer's."""
    file = folder / "config.json"
    content = json.loads(file.read_text())
    del content["mlp_ratios"]
    file.write_text(json.dumps(content))
    assert SegFormer(str(folder)).hf.config.mlp_ratios == [8, 8, 4, 4]


def test_the_model_folder_is_a_plain_segformer(folder: Path, tmp_path: Path) -> None:
    network = SegFormer(str(folder), ["background", "thumb", "nail"])
    network(images()).mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    info = model_folder.describe_network(network)
    model_folder.save_model_folder(tmp_path / "model", network, info)
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (saved["model_type"], saved["mlp_ratios"]) == ("segformer", [8, 8, 4, 4])
    assert not {"linear_attention", "qkv_bias", "out_features"} & set(saved)
    stock, report = SegformerForSemanticSegmentation.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(report.values())
    assert same_logits(network.hf, stock)
    assert same_logits(model_folder.open_network(tmp_path / "model").hf, stock)
    again = SegFormer.from_config(network.config_dict(), network.class_names)  # as a checkpoint does
    again.load_state_dict(network.state_dict())
    assert same_logits(again.hf, network.hf)


def test_mean_and_std_of_the_folder(folder: Path) -> None:
    assert SegFormer(str(folder)).mean.flatten().tolist() == pytest.approx(list(pretrained.IMAGENET_MEAN))
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.25, 0.5]}')
    assert SegFormer(str(folder)).mean.flatten().tolist() == [0.5, 0.25, 0.5]


# licence


def test_licence_of_the_hub(cache: Path, folder: Path, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    (folder / "preprocessor_config.json").write_text("{}")
    fill(cache, "OpenGVLab/pvt_v2_b0", folder)
    fill(cache, "OpenGVLab/other", folder)
    fill(cache, "somebody/pvt_v2_b0", folder)
    assert SegFormer("OpenGVLab/pvt_v2_b0").origin == {
        "weights": "OpenGVLab/pvt_v2_b0",
        "licence": "Apache-2.0",
    }
    for name in ("OpenGVLab/other", "somebody/pvt_v2_b0"):
        assert SegFormer(name).origin == {"weights": name, "licence": pretrained.UNKNOWN_LICENCE}
    assert not caplog.records


def test_licence_of_a_folder_is_not_guessed(folder: Path, tmp_path: Path, monkeypatch) -> None:
    assert SegFormer(str(folder)).origin == {"weights": str(folder), "licence": pretrained.UNKNOWN_LICENCE}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OpenGVLab").mkdir()
    folder.rename(tmp_path / "OpenGVLab" / "pvt_v2_b0")  # a folder of that name is not the hub's
    assert SegFormer("OpenGVLab/pvt_v2_b0").origin["licence"] == pretrained.UNKNOWN_LICENCE
    edit_config(Path("OpenGVLab/pvt_v2_b0"), _name_or_path="OpenGVLab/pvt_v2_b3")
    expected = {"weights": "OpenGVLab/pvt_v2_b3", "licence": "Apache-2.0"}
    assert SegFormer("OpenGVLab/pvt_v2_b0").origin == expected


# planted failures


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear_attention": True}, r"config.json: linear_attention: expected false, found true.*pvt_v2_b0"),
        ({"qkv_bias": False}, r"config.json: qkv_bias: expected true, found false"),
        ({"linear_attention": "no"}, r"config.json: linear_attention: .*valid boolean, found 'no'"),
        ({"qkv_bias": 1}, r"config.json: qkv_bias: .*valid boolean, found 1"),
        ({"layer_norm_eps": 1e-3}, r"config.json: layer_norm_eps: .*less than or equal to .*found 0.001"),
        ({"layer_norm_eps": 0}, r"config.json: layer_norm_eps: .*greater than 0"),
        ({"drop_path_rate": 2}, r"config.json: drop_path_rate: .*found 2"),
        ({"image_size": "large"}, r"config.json: image_size.*found 'large'"),
        ({"image_size": [224, -1]}, r"config.json: image_size.*found \[224, -1\]"),
        ({"depths": "many"}, r"config.json: depths: .*found 'many'"),
        ({"depths": [10**6, 1, 1, 1]}, r"config.json: depths.*found 1000000"),
        ({"mlp_ratios": [8, 8, 4]}, r"config.json: mlp_ratios: expected 4 values, one a stage"),
        ({"mlp_ratios": [8, 8, 4, -4]}, r"config.json: mlp_ratios.*found -4"),
        ({"mlp_ratios": [4, 4, 4, 4]}, r"of another size: .*stages.0.blocks.0.mlp.fc1.weight"),
        ({"patch_sizes": [[7, 7], 3, 3, 3]}, r"config.json: patch_sizes.*found \[7, 7\]"),
        ({"num_channels": 4}, r"config.json: expected 3 channels, found 4"),
        ({"hidden_act": "nothing"}, r"no network can be built from its config.json"),
        ({"num_attention_heads": [3, 3, 3, 3]}, r"expected exactly the tensors .*attention.k_proj"),
        ({"model_type": "pvt"}, r"expected model_type 'segformer' or 'pvt_v2', found 'pvt'"),
    ],
    ids=str,
)
def test_invalid_configs(folder: Path, change: dict, message: str) -> None:
    edit_config(folder, **change)
    with pytest.raises(WeightsError, match=message):
        SegFormer(str(folder))


def test_linear_attention_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_pvt(tmp_path, **TINY, linear_attention=True)
    with pytest.raises(WeightsError, match="linear_attention: expected false, found true") as caught:
        SegFormer(str(tmp_path))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("key", "translated"),
    [
        ("layers.2.blocks.0.attention.spatial_reduction.weight", "sequence_reduction.sequence_reduction"),
        ("layers.0.blocks.0.attention.query.bias", "stages.0.blocks.0.attention.q_proj.bias"),
        ("layers.3.layer_norm.weight", "stages.3.layer_norm.weight"),
        ("layers.1.blocks.0.mlp.dwconv.dwconv.bias", "stages.1.blocks.0.mlp.dwconv.dwconv.bias"),
    ],
)
def test_missing_keys(edit: Callable, key: str, translated: str) -> None:
    folder = edit(lambda tensors: {name: t for name, t in tensors.items() if not name.endswith(key)})
    with pytest.raises(WeightsError, match=rf"missing: .*{translated}"):
        SegFormer(str(folder))


@pytest.mark.parametrize(
    "key",
    [
        "pvt_v2.encoder.layers.0.extra",
        "pvt_v2.encoder.layers.4.layer_norm.bias",
        "encoder.layers.0.layer_norm.bias",  # beside pvt_v2.encoder…: not the same tensor twice
        "neck.weight",
    ],
)
def test_unexpected_keys(edit: Callable, key: str) -> None:
    folder = edit(lambda tensors: tensors | {key: torch.zeros(8)})
    with pytest.raises(WeightsError, match=r"unexpected: \S*(extra|stages\.4|layer_norm\.bias|neck)"):
        SegFormer(str(folder))


def test_other_sizes(edit: Callable) -> None:
    key = "pvt_v2.encoder.layers.1.patch_embedding.proj.weight"
    folder = edit(lambda tensors: tensors | {key: torch.zeros(16, 8, 5, 5)})
    with pytest.raises(WeightsError, match=r"of another size: segformer.stages.1.patch_embeddings.proj"):
        SegFormer(str(folder))


# the authors' files


def save_authors_file(path: Path, **fields: object) -> PvtV2ForImageClassification:
    """Saves a state dict in the names of the PVT repository: `block1.0.attn.q`, `attn.kv`, `patch_embed1`."""
    stock = save_pvt(path.with_suffix(""), **fields)
    tensors = {}
    for name, tensor in stock.state_dict().items():
        parts = name.removeprefix("pvt_v2.encoder.").split(".")
        if parts[0] == "classifier":
            tensors[f"head.{parts[1]}"] = tensor
            continue
        stage, rest = int(parts[1]) + 1, ".".join(parts[2:])
        rest = rest.replace("patch_embedding.layer_norm", "patch_embedding.norm")
        for ours, theirs in (
            ("patch_embedding.", f"patch_embed{stage}."),
            ("blocks.", f"block{stage}."),
            ("attention.spatial_reduction.", "attn.sr."),
            ("attention.layer_norm.", "attn.norm."),
            ("layer_norm_", "norm"),
            ("layer_norm.", f"norm{stage}."),
            ("attention.query.", "attn.q."),
            ("attention.proj.", "attn.proj."),
            ("mlp.dense", "mlp.fc"),
        ):
            rest = rest.replace(ours, theirs)
        tensors[rest] = tensor
    for name in [name for name in tensors if ".attention.key." in name]:
        value = tensors.pop(name.replace(".key.", ".value."))
        tensors[name.replace("attention.key.", "attn.kv.")] = torch.cat([tensors.pop(name), value])
    assert "block1.0.attn.kv.weight" in tensors
    assert not any("attention" in name for name in tensors)
    torch.save(tensors, path)
    return stock


def test_a_file_of_the_authors(tmp_path: Path) -> None:
    stock = save_authors_file(tmp_path / "pvt_v2_b0.pth")
    assert main(["convert", str(tmp_path / "pvt_v2_b0.pth"), str(tmp_path / "model")]) == 0
    network = SegFormer(str(tmp_path / "model")).eval()
    assert network.origin == {"weights": "pvt_v2_b0.pth", "licence": "Apache-2.0"}
    assert network.new_head
    assert network.hf.config.mlp_ratios == [8, 8, 4, 4]
    assert network.hf.config.decoder_hidden_size == 256
    pixels = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        expected = stock.pvt_v2(pixels).last_hidden_state
        found = network.encoder(pixels).last_hidden_state
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_b5_needs_a_licence(tmp_path: Path, capsys) -> None:
    fields = TINY | {"depths": [3, 6, 40, 3], "mlp_ratios": [4, 4, 4, 4]}
    save_authors_file(tmp_path / "b5.pth", **fields)
    args = ["convert", str(tmp_path / "b5.pth"), str(tmp_path / "model")]
    assert main(args) == 1
    error = capsys.readouterr().err
    assert "MiT-B5 and the authors' PVTv2-B5 have the same tensors" in error
    assert "--licence Apache-2.0" in error
    assert not (tmp_path / "model").exists()
    assert main([*args, "--licence", "Apache-2.0"]) == 0
    assert model_folder.read_info(tmp_path / "model").origin["licence"] == "Apache-2.0"


# the command line


def test_train_predict_and_export(folder: Path, drawn: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    args = [
        "train",
        f"--data.csv={drawn / 'dataset.csv'}",
        f"--model.weights={folder}",
        "--config=pvt_b0.yaml",
        *("--data.size=64", "--data.batch_size=4", "--data.workers=0"),
        *("--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"),
    ]
    assert main(args) == 0
    model = tmp_path / "runs" / "pvt_b0" / "model"
    assert json.loads((model / "config.json").read_text())["model_type"] == "segformer"
    assert model_folder.read_info(model).origin["licence"] == pretrained.UNKNOWN_LICENCE
    (image,) = sorted((drawn / "Images" / "2").glob("*"))[:1]
    assert main(["predict", str(image), "--model", str(model), "--out", str(tmp_path / "out")]) == 0
    out = tmp_path / "export"
    assert main(["export", str(model), "--format", "onnx", "--out", str(out)]) == 0  # it compares with torch
