import json

import pytest
import torch
from transformers import SegformerForSemanticSegmentation

from nailseg.checkpoints import model_folder
from nailseg.errors import OutputError, WeightsError
from nailseg.models.segformer import SegFormer


@pytest.fixture
def network(tiny_folder) -> SegFormer:
    torch.manual_seed(0)
    return SegFormer(str(tiny_folder), ["background", "nail"]).eval()


@pytest.fixture
def folder(network: SegFormer, tmp_path):
    info = model_folder.describe_network(network, image_size=64, metrics={"n_images": 3, "dice_nail": 0.5})
    return model_folder.save_model_folder(tmp_path / "model", network, info)


def test_plain_transformers_gives_the_same_logits(network: SegFormer, folder) -> None:
    pixels = torch.randn(2, 3, 64, 96)
    plain = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        expected, found = plain(pixel_values=pixels).logits, network.hf(pixel_values=pixels).logits
    assert (expected - found).abs().max() <= 1e-5 * expected.abs().max()
    assert plain.config.id2label == {0: "background", 1: "nail"}


def test_folder_is_complete(folder) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "nailseg.json",
        "README.md",
    }
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["image_processor_type"] == "SegformerImageProcessor"
    assert processor["size"] == {"height": 64, "width": 64}
    card = (folder / "README.md").read_text()
    assert "| dice_nail | 0.5000 |" in card
    assert "On 3 held-out test images" in card


def test_open_network_reads_a_written_folder(network: SegFormer, folder) -> None:
    again = model_folder.open_network(folder).eval()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(again(image), network(image))
    assert not again.new_head
    assert again.origin == network.origin


def test_nothing_is_overwritten(network: SegFormer, folder) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match="exists and is not overwritten"):
        model_folder.save_model_folder(folder, network, model_folder.describe_network(network))
    assert (folder / "model.safetensors").read_bytes() == before


def test_folder_with_other_logits_is_removed(network: SegFormer, tmp_path, monkeypatch) -> None:
    save = type(network.hf).save_pretrained

    def save_wrongly(hf, target, **kwargs):
        with torch.no_grad():
            hf.decode_head.classifier.bias += 1
        save(hf, target, **kwargs)
        with torch.no_grad():
            hf.decode_head.classifier.bias -= 1

    monkeypatch.setattr(type(network.hf), "save_pretrained", save_wrongly)
    with pytest.raises(WeightsError, match="logits differ"):
        model_folder.save_model_folder(tmp_path / "model", network, model_folder.describe_network(network))
    assert list(tmp_path.iterdir()) == []


def test_unique_path(tmp_path) -> None:
    for expected in ("run", "run-2", "run-3"):
        path = model_folder.unique_path(tmp_path / "run")
        assert path.name == expected
        path.mkdir()


@pytest.fixture
def checkpoint(network: SegFormer, tmp_path):
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    facts = model_folder.checkpoint_metadata(network, model_folder.describe_network(network, image_size=64))
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": state, model_folder.CHECKPOINT_KEY: facts}, path)
    return path


def test_checkpoint_is_complete(network: SegFormer, checkpoint) -> None:
    again = model_folder.open_network(checkpoint).eval()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(again(image), network(image))
    assert model_folder.read_model_info(checkpoint).image_size == 64


def test_other_class_names_are_refused(checkpoint) -> None:
    with pytest.raises(
        WeightsError, match=r"trained for the classes \['background', 'nail'\].*--data.classes"
    ):
        model_folder.open_network(checkpoint, ["background", "hand"])


def test_invalid_checkpoints(checkpoint, tmp_path) -> None:
    with pytest.raises(WeightsError, match="no such checkpoint"):
        model_folder.open_network(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    with pytest.raises(WeightsError, match="tensors and plain values only"):
        model_folder.open_network(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(WeightsError, match="not written by nailseg"):
        model_folder.open_network(tmp_path / "other.ckpt")
    content = torch.load(checkpoint)
    del content["state_dict"]["network.hf.decode_head.classifier.bias"]
    torch.save(content, tmp_path / "short.ckpt")
    with pytest.raises(WeightsError, match=r"(?s)do not fit its own config.*classifier.bias"):
        model_folder.open_network(tmp_path / "short.ckpt")


class Hostile:
    def __reduce__(self):
        return print, ("executed",)


def test_checkpoints_are_not_executed(tmp_path, capsys) -> None:
    torch.save({"state_dict": {}, model_folder.CHECKPOINT_KEY: Hostile()}, tmp_path / "hostile.ckpt")
    with pytest.raises(WeightsError, match="tensors and plain values only"):
        model_folder.open_network(tmp_path / "hostile.ckpt")
    assert "executed" not in capsys.readouterr().out
