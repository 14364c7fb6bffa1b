"""The implementation from the paper: parameter counts, shapes, and its parts by hand."""

import pytest
import torch

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


def test_shapes() -> None:
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
    """Computed by hand, with the attention matrix."""
    torch.manual_seed(0)
    attention = EfficientSelfAttention(8, 2, 2)
    tokens = torch.randn(1, 16, 8)
    context = attention.reduce(tokens.transpose(1, 2).reshape(1, 8, 4, 4)).flatten(2).transpose(1, 2)
    context = attention.reduce_norm(context)
    assert context.shape == (1, 4, 8)
    parts = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = attention.query(tokens)[..., part] @ attention.key(context)[..., part].transpose(1, 2) / 2
        parts.append(scores.softmax(-1) @ attention.value(context)[..., part])
    expected = attention.output(torch.cat(parts, dim=-1))
    torch.testing.assert_close(attention(tokens, (4, 4)), expected)


def test_mix_ffn_depends_on_neighbors_and_border() -> None:
    torch.manual_seed(0)
    ffn = MixFFN(4, 2)
    out = ffn(torch.ones(1, 25, 4), (5, 5)).view(5, 5, 4)
    torch.testing.assert_close(out[2, 2], out[1, 2])
    assert not torch.allclose(out[0, 0], out[2, 2])  # zero padding shows the position


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
