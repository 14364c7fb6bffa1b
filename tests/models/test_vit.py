"""The plain ViT segmenter: parameter count, patches, image size, model folder."""

import pytest
import torch
from torch import nn

from nailseg.checkpoints import model_folder
from nailseg.errors import ConfigError, WeightsError
from nailseg.models.vit import ViT


def test_parameter_count() -> None:
    with torch.device("meta"):
        network = ViT("vit-pet-random", ["background", "pet", "border"])
    assert sum(p.numel() for p in network.parameters()) == 86_284_806
    assert network.fixed_size == 128
    assert len(network.body.blocks) == 12
    kinds = {type(module) for module in network.modules()}
    assert not kinds & {nn.Conv2d, nn.ConvTranspose2d}


@pytest.fixture
def tiny() -> ViT:
    torch.manual_seed(0)
    return ViT("vit-tiny-random", ["background", "pet", "border"]).eval()


def test_patches_are_in_order(tiny: ViT) -> None:
    """One linear layer a patch: only its own 16 x 16 pixels change when nothing is mixed."""
    assert tiny(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 3, 64, 64)
    with torch.no_grad():
        for block in tiny.body.blocks:
            block.output.weight.zero_()  # no attention
        one = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
        other = one.clone()
        other[:, :, 16:32, 48:64] = 255 - other[:, :, 16:32, 48:64]
        changed = (tiny(one) != tiny(other)).any(1)[0]
        expected = torch.zeros(64, 64, dtype=torch.bool)
        expected[16:32, 48:64] = True
        assert not changed[~expected].any()
        assert changed[expected].float().mean() > 0.9
        # by hand: class c, row y, column x of a patch is output c * 256 + y * 16 + x
        token = torch.randn(1, 1, 32)
        tiny.body.embedding.weight.zero_()
        tiny.body.positions[:] = token
        tiny.body.blocks = nn.Identity()
        flat = tiny.head(token[0, 0])
        torch.testing.assert_close(tiny(one)[0, 2, 16 + 3, 48 + 5], flat[2 * 256 + 3 * 16 + 5])


def test_blocks_equal_torchs_pre_norm_encoder(tiny: ViT) -> None:
    block = tiny.body.blocks[0]
    layer = nn.TransformerEncoderLayer(32, 2, 128, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    pairs = {
        "self_attn.in_proj_": block.query_key_value,
        "self_attn.out_proj.": block.output,
        "linear1.": block.mlp[0],
        "linear2.": block.mlp[3],
        "norm1.": block.norm1,
        "norm2.": block.norm2,
    }
    state = {
        f"{name}{kind}": getattr(part, kind) for name, part in pairs.items() for kind in ("weight", "bias")
    }
    layer.load_state_dict(state)
    tokens = torch.randn(2, 16, 32)
    torch.testing.assert_close(block(tokens), layer(tokens))


def test_images_of_another_size_are_refused(tiny: ViT) -> None:
    with pytest.raises(
        ConfigError, match=r"expected images of 64 x 64 pixels.*found 64 x 96.*--data.resize squash"
    ):
        tiny(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
    assert ViT("vit-tiny-96-random", ["a", "b"])(torch.zeros(1, 3, 96, 96)).shape == (1, 2, 96, 96)
    with pytest.raises(ConfigError, match="multiple of 32"):
        ViT("vit-tiny-100-random", ["a", "b"])


def test_model_folder(tiny: ViT, tmp_path) -> None:
    tmp_path = model_folder.save_model_folder(
        tmp_path / "m", tiny, model_folder.describe_network(tiny, image_size=64)
    )
    assert "Plain transformers does not know this network" in (tmp_path / "README.md").read_text()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    again = ViT(str(tmp_path)).eval()
    torch.testing.assert_close(again(image), tiny(image))
    assert again.class_names == tiny.class_names
    assert not again.new_head
    other = ViT(str(tmp_path), ["background", "nail"])
    assert other.new_head
    torch.testing.assert_close(other.body.positions, tiny.body.positions)
    (tmp_path / "config.json").write_text(
        (tmp_path / "config.json").read_text().replace('"depth": 2', '"depth": 3')
    )
    with pytest.raises(WeightsError, match=r"(?s)do not fit its config.json.*blocks.2"):
        ViT(str(tmp_path))
    with pytest.raises(WeightsError, match="one of vit-pet-random, vit-small-random, vit-tiny-random"):
        ViT("vit-large-random")
