"""The written-out SegFormer against transformers', and against the paper's tables."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SegformerForSemanticSegmentation

from nailseg.errors import WeightsError
from nailseg.models.mix_segformer import MixSegFormer, transformers_name
from nailseg.models.mix_transformer import (
    ARCHITECTURES,
    AllMLPDecoder,
    EfficientSelfAttention,
    EncoderBlock,
    MixFFN,
    MixTransformer,
    MixTransformerSegFormer,
    StochasticDepth,
)
from nailseg.models.segformer import SegFormer

LEGACY = Path(__file__).parents[3] / "shared" / "legacy"
needs_legacy = pytest.mark.skipif(not LEGACY.is_dir(), reason="../shared/legacy is not here")
PAPER = {"b0": (3.4, 0.4), "b1": (13.1, 0.6), "b2": (24.2, 3.3), "b3": (44.0, 3.3)} | {
    "b4": (60.8, 3.3),
    "b5": (81.4, 3.3),
}


def count(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize("name", PAPER)
def test_parameters_are_the_papers(name: str) -> None:
    depths, widths, width = ARCHITECTURES[name]
    with torch.device("meta"):
        found = count(MixTransformer(depths, widths)), count(AllMLPDecoder(widths, width, 150))
    assert found == pytest.approx(PAPER[name], abs=0.1)  # the paper's 3.4 is 3.32 counted
    assert round(found[1], 1) == PAPER[name][1]


def test_shapes_of_the_tutorial() -> None:
    tokens = torch.randn(1, 64 * 64, 8)
    assert EfficientSelfAttention(8, 2, 4)(tokens, (64, 64)).shape == tokens.shape
    assert EncoderBlock(8, 2, 4, 4, 0.0)(tokens, (64, 64)).shape == tokens.shape
    encoder = MixTransformer((1, 1, 1, 1), (8, 16, 24, 32), (1, 2, 3, 4))
    pixels = torch.randn(1, 3, 224, 224)
    assert [tuple(m.shape[1:]) for m in encoder(pixels)] == [
        (8, 56, 56),
        (16, 28, 28),
        (24, 14, 14),
        (32, 7, 7),
    ]
    network = MixTransformerSegFormer(encoder, AllMLPDecoder((8, 16, 24, 32), 16, 3))
    assert network(pixels).shape == (1, 3, 56, 56)


def test_reduced_attention_is_attention_over_reduced_keys() -> None:
    """By hand, with the matrix written out."""
    torch.manual_seed(0)
    attention = EfficientSelfAttention(8, 2, 2)
    tokens = torch.randn(1, 16, 8)
    seen = attention.reduce(tokens.transpose(1, 2).reshape(1, 8, 4, 4)).flatten(2).transpose(1, 2)
    seen = attention.reduce_norm(seen)
    assert seen.shape == (1, 4, 8)
    parts = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = attention.query(tokens)[..., part] @ attention.key(seen)[..., part].transpose(1, 2) / 2
        parts.append(scores.softmax(-1) @ attention.value(seen)[..., part])
    expected = attention.output(torch.cat(parts, dim=-1))
    torch.testing.assert_close(attention(tokens, (4, 4)), expected)


def test_mix_ffn_sees_the_neighbours_and_the_border() -> None:
    torch.manual_seed(0)
    ffn = MixFFN(4, 2)
    out = ffn(torch.ones(1, 25, 4), (5, 5)).view(5, 5, 4)
    torch.testing.assert_close(out[2, 2], out[1, 2])
    assert not torch.allclose(out[0, 0], out[2, 2])  # zero padding tells the position


def test_stochastic_depth_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop, ones = StochasticDepth(0.25), torch.ones(4000, 2, 3)
    dropped = drop.train()(ones)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert (dropped == dropped[:, :1, :1]).all()  # whole images
    assert drop.eval()(ones) is ones


def test_drop_path_rises_over_all_blocks() -> None:
    encoder = MixTransformer((1, 2, 1, 1), (8, 16, 24, 32), (1, 2, 3, 4), drop_path=0.4)
    rates = [block.drop_path.rate for stage in encoder.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.fixture
def pair(tiny_folder: Path) -> tuple[SegformerForSemanticSegmentation, MixSegFormer]:
    """transformers' stock model and ours, with the same weights."""
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


def test_the_decoder_that_is_read_is_the_decoder_that_runs(pair) -> None:
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


def test_what_the_paper_does_not_have_is_refused(tiny_folder: Path) -> None:
    config = SegFormer(str(tiny_folder)).config_dict() | {"hidden_act": "relu"}
    with pytest.raises(WeightsError, match=r"found hidden_act relu.*Use --model.name segformer"):
        MixSegFormer.from_config(config, ["a", "b"])
