"""The implementation from the paper with transformers' weights: logits, gradients, folders."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SegformerForSemanticSegmentation

from nailseg.errors import WeightsError
from nailseg.models.mix_segformer import MixSegFormer, transformers_name
from nailseg.models.mix_transformer import AllMLPDecoder
from nailseg.models.segformer import SegFormer
from tests.models.conftest import LEGACY, needs_legacy


@pytest.fixture
def pair(tiny_folder: Path) -> tuple[SegformerForSemanticSegmentation, MixSegFormer]:
    """transformers' model and ours, with the same weights."""
    stock = SegformerForSemanticSegmentation.from_pretrained(tiny_folder).eval()
    return stock, MixSegFormer(str(tiny_folder), drop_path=0.0).eval()


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (40, 131)])
def test_logits_and_gradients_are_transformers(pair, size) -> None:
    stock, ours = pair
    torch.manual_seed(0)
    one = torch.randn(2, 3, *size, requires_grad=True)
    two = one.detach().clone().requires_grad_()
    expected, found = stock(pixel_values=one).logits, ours.logits(two)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    expected.square().mean().backward()
    found.square().mean().backward()
    theirs = dict(stock.named_parameters()) | {"pixels": one}
    mine = {transformers_name(name): p for name, p in ours.paper.named_parameters()} | {"pixels": two}
    assert mine.keys() == theirs.keys()
    for name, parameter in theirs.items():
        difference = (mine[name].grad - parameter.grad).abs().max()
        scale = max(parameter.grad.abs().max(), 1e-4 * max(p.grad.abs().max() for p in theirs.values()))
        assert difference <= 1e-5 * scale, name


def test_decoder_equals_the_decode_head(pair) -> None:
    paper = pair[1].paper
    widths = [p.proj.in_features for p in paper.decode_head.linear_projections]
    plain = AllMLPDecoder(widths, 16, 2).eval()
    plain.load_state_dict(paper.decode_head.state_dict())
    maps = paper.encoder(torch.randn(1, 3, 65, 97))
    torch.testing.assert_close(plain(maps), paper.decode_head(maps), rtol=1e-5, atol=1e-6)


@needs_legacy
@pytest.mark.parametrize("folder", ["segformer-tiny-ade", "mit-tiny"])
def test_old_checkpoints(folder: str) -> None:
    torch.manual_seed(0)
    ours = MixSegFormer(str(LEGACY / folder)).eval()
    torch.manual_seed(0)
    theirs = SegFormer(str(LEGACY / folder)).eval()
    pixels = torch.randn(1, 3, 65, 97)
    torch.testing.assert_close(ours.logits(pixels), theirs.logits(pixels), rtol=1e-5, atol=1e-6)
    assert ours.new_head == theirs.new_head == (folder == "mit-tiny")
    if folder == "segformer-tiny-ade":
        reference = np.load(LEGACY / folder / "reference.npz")
        expected = torch.from_numpy(reference["logits_0"])
        found = ours.logits(torch.from_numpy(reference["pixel_values_0"]))
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_configs_beyond_the_paper_are_refused(tiny_folder: Path) -> None:
    config = SegFormer(str(tiny_folder)).config_dict() | {"hidden_act": "relu"}
    with pytest.raises(WeightsError, match=r"found hidden_act relu.*Use --model.name segformer"):
        MixSegFormer.from_config(config, ["a", "b"])
