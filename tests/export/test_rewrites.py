"""Rewritten networks compute the same, also for sizes other than the example's."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from nailseg.export import graph
from nailseg.export.rewrites import ConvolutionalFFN, rewrite_for_export
from nailseg.models.base import Network
from nailseg.models.decode_head import DecodeHead
from nailseg.models.mix_segformer import MixSegFormer
from nailseg.models.segformer import SegFormer


@pytest.mark.parametrize("architecture", [SegFormer, MixSegFormer])
def test_mix_ffn_as_convolutions_and_folded_head(tiny_folder: Path, architecture: type[Network]) -> None:
    network = architecture(str(tiny_folder)).eval()
    copy = rewrite_for_export(network)
    blocks = sum(network.config_dict()["depths"])
    assert sum(isinstance(module, ConvolutionalFFN) for module in copy.modules()) == blocks
    assert not any(isinstance(module, ConvolutionalFFN) for module in network.modules())
    (head,) = [module for module in copy.modules() if isinstance(module, DecodeHead)]
    assert head.linear_fuse is None, "an export stores the folded weights only"
    for height, width in ((64, 64), (32, 96)):
        pixels = torch.randn(2, 3, height, width)
        with torch.no_grad():
            expected = network.logits(pixels)
            assert torch.allclose(copy.logits(pixels), expected, atol=1e-5 * expected.abs().max())


@pytest.mark.parametrize("cells", [1, 3, (2, 6)])
def test_adaptive_pooling_equals_torch(cells) -> None:
    stock = nn.Sequential(nn.AdaptiveAvgPool2d(cells))
    for height, width in ((4, 6), (7, 5), (2, 3), (13, 16)):
        image = torch.rand(2, 3, height, width)
        assert torch.allclose(rewrite_for_export(stock)(image), stock(image), atol=1e-6)


def test_adaptive_pooling_exports_for_other_sizes_than_the_example(tmp_path) -> None:
    stock = nn.Sequential(nn.AdaptiveAvgPool2d(3))
    free = torch.export.Dim.DYNAMIC
    sizes = ({0: free, 2: free, 3: free},)
    program = graph._export(
        rewrite_for_export(stock), (torch.rand(2, 3, 4, 6),), sizes, ["image"], ["pooled"]
    )
    session = onnxruntime.InferenceSession(program.SerializeToString())
    for height, width in ((7, 5), (13, 16)):
        image = torch.rand(1, 3, height, width)
        (found,) = session.run(None, {"image": image.numpy()})
        assert np.abs(found - stock(image).numpy()).max() < 1e-6
