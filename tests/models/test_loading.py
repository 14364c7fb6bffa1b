"""SegFormer from folders: key names, new classifiers, and errors in the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import SegformerForImageClassification, SegformerForSemanticSegmentation, SegformerModel

from nailseg.errors import ConfigError, WeightsError
from nailseg.models.segformer import SegFormer
from tests.models.conftest import LEGACY, edit_config, images, needs_legacy, old_name, same_logits


@needs_legacy
def test_legacy_reference_logits() -> None:
    network = SegFormer(str(LEGACY / "segformer-tiny-ade")).eval()
    assert len(network.class_names) == 150
    assert not network.new_head
    reference = np.load(LEGACY / "segformer-tiny-ade" / "reference.npz")
    for index in range(2):
        expected = torch.from_numpy(reference[f"logits_{index}"])
        with torch.no_grad():
            found = network.hf(pixel_values=torch.from_numpy(reference[f"pixel_values_{index}"])).logits
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@needs_legacy
def test_legacy_encoder() -> None:
    network = SegFormer(str(LEGACY / "mit-tiny"))
    assert network.class_names == ["background", "nail"]
    assert network.new_head
    stored = load_file(LEGACY / "mit-tiny" / "model.safetensors")
    loaded = {old_name(name): tensor for name, tensor in network.hf.state_dict().items()}
    encoder = {name for name in stored if name.startswith("segformer.")}
    assert len(encoder) > 100
    assert all(torch.equal(loaded[name], stored[name]) for name in encoder)


def test_old_and_new_names(tiny_folder: Path, folder: Path, edit: Callable) -> None:
    """The tiny folder under the old names and under the new ones: the same logits as plain transformers."""
    stock = SegformerForSemanticSegmentation.from_pretrained(tiny_folder)
    assert any("segformer.stages.0" in name for name in load_file(folder / "model.safetensors"))
    assert same_logits(SegFormer(str(folder)).hf, stock)
    edit(lambda tensors: {old_name(name): tensor for name, tensor in tensors.items()})
    names = set(load_file(folder / "model.safetensors"))
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in names
    assert not any("stages" in name or "linear_projections" in name for name in names)
    assert same_logits(SegFormer(str(folder)).hf, stock)


def test_pytorch_bin(tiny_folder: Path, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({old_name(name): tensor for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    stock = SegformerForSemanticSegmentation.from_pretrained(tiny_folder)
    assert same_logits(SegFormer(str(folder)).hf, stock)


def test_new_classes_change_only_the_classifier(tiny_folder: Path) -> None:
    before = SegFormer(str(tiny_folder)).hf.state_dict()
    network = SegFormer(str(tiny_folder), ["background", "thumb", "finger"])
    assert network.new_head
    assert network.class_names == ["background", "thumb", "finger"]
    assert network.hf.config.label2id == {"background": 0, "thumb": 1, "finger": 2}
    changed = {
        name
        for name, tensor in network.hf.state_dict().items()
        if tensor.shape != before[name].shape or not torch.equal(tensor, before[name])
    }
    assert changed == {"decode_head.classifier.weight", "decode_head.classifier.bias"}
    assert network.hf.decode_head.classifier.weight.abs().max() <= 16**-0.5


def test_the_same_classes_keep_the_classifier(tiny_folder: Path) -> None:
    assert not SegFormer(str(tiny_folder), ["background", "nail"]).new_head
    assert SegFormer(str(tiny_folder), ["background", "toenail"]).new_head


def test_names_for_default_labels(folder: Path) -> None:
    edit_config(folder, id2label={"0": "LABEL_0", "1": "LABEL_1"})
    assert SegFormer(str(folder)).class_names == ["LABEL_0", "LABEL_1"]
    network = SegFormer(str(folder), ["background", "nail"])
    assert network.class_names == ["background", "nail"]
    assert not network.new_head


@pytest.mark.parametrize("kind", [SegformerForImageClassification, SegformerModel])
def test_encoder_folders(tiny_folder: Path, tmp_path: Path, kind: type) -> None:
    config = kind.config_class.from_pretrained(tiny_folder)
    encoder = kind(config)
    encoder.save_pretrained(tmp_path)
    network = SegFormer(str(tmp_path))
    assert network.new_head
    assert network.class_names == ["background", "nail"]
    expected = getattr(encoder, "segformer", encoder).state_dict()
    assert all(
        torch.equal(tensor, expected[name]) for name, tensor in network.hf.segformer.state_dict().items()
    )
    # the head has the paper's initialization, not transformers'
    assert network.hf.decode_head.linear_fuse.weight.std().item() == pytest.approx((2 / 16) ** 0.5, rel=0.1)


def test_half_precision_loads_as_float32(tiny_folder: Path, tmp_path: Path) -> None:
    SegformerForSemanticSegmentation.from_pretrained(tiny_folder).half().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    network = SegFormer(str(tmp_path))
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    network.hf.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["dtype"] == "float32"


def test_saves_for_plain_transformers(tiny_folder: Path, tmp_path: Path) -> None:
    network = SegFormer(str(tiny_folder), ["background", "thumb", "finger"])
    network(images()).mean().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.sub_(0.1 * parameter.grad)
    network.hf.save_pretrained(tmp_path)
    stock, info = SegformerForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert same_logits(network.hf, stock)
    assert same_logits(SegFormer(str(tmp_path)).hf, stock)


def test_from_config(tiny_folder: Path) -> None:
    network = SegFormer(str(tiny_folder))
    again = SegFormer.from_config(network.hf.config.to_dict(), network.class_names, origin=network.origin)
    again.load_state_dict(network.state_dict())
    assert again.origin == network.origin
    assert same_logits(again.hf, network.hf)


def test_config_of_the_head_is_used(folder: Path) -> None:
    edit_config(
        folder, classifier_dropout_prob=0.4, drop_path_rate=0.9, quantization_config={"load_in_8bit": True}
    )
    config = SegFormer(str(folder), drop_path=0.2).hf.config
    assert config.classifier_dropout_prob == 0.4
    assert config.drop_path_rate == 0.2  # the argument's
    assert not hasattr(config, "quantization_config")


def test_loading_is_quiet(tiny_folder: Path, capfd: pytest.CaptureFixture) -> None:
    SegFormer(str(tiny_folder), ["background", "thumb", "finger"])
    assert "".join(capfd.readouterr()) == ""


def without(part: str) -> Callable[[dict], dict]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize("classes", [None, ["a", "b", "c"]])
@pytest.mark.parametrize(
    "part", ["decode_head.linear_fuse", "decode_head.linear_projections.3", "stages.2.blocks"]
)
def test_missing_keys(edit: Callable, part: str, classes: list[str] | None) -> None:
    folder = edit(without(part))
    with pytest.raises(WeightsError, match=rf"missing: .*{part}"):
        SegFormer(str(folder), classes)


def test_missing_classifier_is_an_error_unless_new(edit: Callable) -> None:
    folder = edit(without("classifier"))
    with pytest.raises(
        WeightsError, match=r"missing: decode_head.classifier.bias, decode_head.classifier.weight"
    ):
        SegFormer(str(folder))
    assert SegFormer(str(folder), ["a", "b", "c"]).new_head


def test_unexpected_keys(edit: Callable) -> None:
    folder = edit(lambda tensors: tensors | {"segformer.stages.0.extra": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"unexpected: segformer.stages.0.extra"):
        SegFormer(str(folder))


def test_image_classifier_with_a_decode_head_is_unexpected(edit: Callable) -> None:
    folder = edit(lambda tensors: tensors | {"classifier.weight": torch.zeros(2, 32)})
    with pytest.raises(WeightsError, match=r"unexpected: classifier.weight"):
        SegFormer(str(folder), ["a", "b", "c"])


def test_other_sizes(folder: Path) -> None:
    edit_config(folder, decoder_hidden_size=24)
    with pytest.raises(WeightsError, match=r"of another size: .*decode_head.linear_fuse.weight"):
        SegFormer(str(folder))


def test_broken_files(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"model.safetensors: expected a file with tensors"):
        SegFormer(str(folder))
    path.unlink()
    with pytest.raises(WeightsError, match=r"expected model.safetensors or pytorch_model.bin, found neither"):
        SegFormer(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config.json: expected JSON"):
        SegFormer(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"found no config.json"):
        SegFormer(str(folder))


class _Hostile:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("hostile-was-here"),))


def test_pickles_are_not_executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"segformer": _Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model.bin: expected a file with tensors.*again\."):
        SegFormer(str(folder))
    assert not (folder / "hostile-was-here").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "expected model_type 'segformer' or 'pvt_v2', found 'bert'"),
        ({"num_channels": 4}, "expected 3 channels, found 4"),
        ({"depths": "many"}, "config.json: depths: .* found 'many'"),
        ({"depths": [1, 1]}, "depths: expected 4 values, one a stage"),
        ({"id2label": {"0": "a", "7": "b"}}, "expected id2label to name classes 0, 1, 2"),
        ({"id2label": {"0": "nail"}}, "expected at least two classes"),
        ({"id2label": 5}, "expected id2label to name classes 0, 1, 2 …, found 5"),
    ],
)
def test_invalid_configs(folder: Path, change: dict, message: str) -> None:
    edit_config(folder, **change)
    with pytest.raises(WeightsError, match=message):
        SegFormer(str(folder))


@pytest.mark.parametrize("classes", [[], ["nail"], ["nail", "nail"], "nail"])
def test_invalid_class_names(tiny_folder: Path, classes: object) -> None:
    for weights in ("b0-random", str(tiny_folder)):
        with pytest.raises(ConfigError, match=r"class names: expected .* Give for example"):
            SegFormer(weights, classes)


@pytest.mark.parametrize("weights", ["b7", "./nothing/here", "runs/demo/model", "a b/c", "../nothing"])
def test_unknown_weights(weights: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # a checkout may have runs/demo
    with pytest.raises(WeightsError, match="expected a folder, a hub name such as"):
        SegFormer(weights)
