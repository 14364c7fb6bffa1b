"""Rewrites of networks for export: the same function, in operations that hold for every size and runtime."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.segformer.modeling_segformer import SegformerMixMLP

from nailseg.models.base import Network
from nailseg.models.decode_head import DecodeHead
from nailseg.models.mix_transformer import MixFFN, as_map, as_tokens


def rewrite_for_export(network: Network) -> Network:
    """A copy in float32 for inference on the CPU, with the same outputs.

    The decode head's weight products are computed once, adaptive pooling takes any size, and SegFormer's
    Mix-FFN consists of convolutions.
    """
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.AdaptiveAvgPool2d):
            # the module stays: UperNet keeps its own list of them
            module.forward = partial(adaptive_pool, cells=module.output_size)
        elif isinstance(module, SegformerMixMLP):
            parts = module.fc1, module.dwconv.dwconv, module.activation_fn, module.fc2
            network.set_submodule(name, ConvolutionalFFN(*parts))
        elif isinstance(module, MixFFN):
            parts = module.dense1, module.depthwise, F.gelu, module.dense2
            network.set_submodule(name, ConvolutionalFFN(*parts))
        elif isinstance(module, DecodeHead):
            _fold(module)
    return network


def _fold(head: DecodeHead) -> None:
    """Replaces projections and fuse by their products, which are all that an exported file needs."""
    products = head.mixed_weights()
    head.mixed_weights = lambda: products  # type: ignore[method-assign]
    head.linear_projections = head.linear_fuse = None


class ConvolutionalFFN(nn.Module):
    """A Mix-FFN whose dense layers are 1x1 convolutions: tokens become a map before they are expanded.

    A quarter as many values are transposed, which is faster in ONNX Runtime.

    Args:
        dense1: from C to E C channels.
        depthwise: 3x3.
        activation: element-wise.
        dense2: from E C to C channels.
    """

    def __init__(
        self, dense1: nn.Linear, depthwise: nn.Conv2d, activation: Callable[..., Tensor], dense2: nn.Linear
    ) -> None:
        super().__init__()
        self.dense1, self.depthwise, self.activation, self.dense2 = dense1, depthwise, activation, dense2

    def forward(self, tokens: Tensor, *size: int | tuple[int, int]) -> Tensor:
        """Tokens (N, L, C) of a map of `size` (height and width in one or two arguments) to (N, L, C)."""
        height, width = size if len(size) == 2 else size[0]
        expanded = _pointwise(as_map(tokens, (height, width)), self.dense1)  # (N, C, H, W) -> (N, E C, H, W)
        return as_tokens(_pointwise(self.activation(self.depthwise(expanded)), self.dense2))


def _pointwise(features: Tensor, dense: nn.Linear) -> Tensor:
    return F.conv2d(features, dense.weight[..., None, None], dense.bias)


def adaptive_pool(image: Tensor, cells: int | tuple[int, int]) -> Tensor:
    """`nn.AdaptiveAvgPool2d` as matrix products; torch exports the module for the example's size only.

    Maps float (N, C, H, W) to (N, C, *cells); one number stands for height and width.
    """
    both = cells if isinstance(cells, tuple) else (cells, cells)
    rows, columns = (_pooling(n, size, image) for n, size in zip(both, image.shape[-2:], strict=True))
    return rows @ image @ columns.T


def _pooling(cells: int, size: int, like: Tensor) -> Tensor:
    """float (cells, size): the weight of each pixel row in each cell; cells overlap if size % cells != 0."""
    cell = torch.arange(cells, device=like.device)[:, None]
    pixel = torch.arange(size, device=like.device)[None]
    inside = (pixel >= cell * size // cells) & (pixel < ((cell + 1) * size + cells - 1) // cells)
    return inside.to(like.dtype) / inside.sum(1, keepdim=True)
