"""SegFormer's all-MLP decode head, computed in another order: the same function at a fraction of the work.

transformers projects every encoder stage to D channels (D = 256 or 768), upsamples all of them to 1/4 of the
image, concatenates them and then maps the 4 D channels to D again ("fuse"): two thirds of the network's
multiply-adds, at the largest resolution. The projections and the fuse are 1x1 convolutions. A 1x1 convolution
and bilinear upsampling U act on different axes, and U's weights sum to one. With projections P_i (weights
V_i, biases b_i) and W_i the fuse's slice for stage i::

    fuse(concat_i U(P_i x_i))  =  sum_i U((W_i V_i) x_i)  +  sum_i W_i b_i

so each stage is fused at its own small size, and only the sum is computed at the large size. This is exact,
in training too: the gradients reach V_i, b_i and W_i through the product.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerConfig
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead


class DecodeHead(nn.Module):
    """A drop-in replacement for transformers' `SegformerDecodeHead`, built around that head's own modules.

    It has the same parameters and buffers under the same names, so state dicts, `save_pretrained` and
    name-based parameter groups work unchanged.

    Nothing is cached between calls: the products cost little, and a cache would have to follow optimizer
    steps, EMA swaps, `load_state_dict` and inference mode.

    Args:
        stock: the head of a `SegformerForSemanticSegmentation`, or `mix_transformer.AllMLPDecoder`; its
            modules are shared, not copied.
    """

    def __init__(self, stock: SegformerDecodeHead) -> None:
        super().__init__()
        self.config: SegformerConfig | None = getattr(stock, "config", None)  # for flat last stages only
        self.linear_projections = stock.linear_projections
        self.linear_fuse = stock.linear_fuse
        self.batch_norm = stock.batch_norm
        self.activation = stock.activation
        # whole channels, as in the paper's code: random numbers per element are slow on a CPU
        self.dropout = nn.Dropout2d(stock.dropout.p)
        self.classifier = stock.classifier
        self.train(stock.training)

    def forward(self, encoder_hidden_states: Sequence[Tensor], **_: Any) -> Tensor:
        """Turns the encoder's feature maps into logits.

        Args:
            encoder_hidden_states: one map per stage, finest first, float (N, C_i, H_i, W_i). With
                `reshape_last_stage=False` the last is (N, H_i * W_i, C_i).

        Returns:
            float (N, classes, H_0, W_0): logits at the finest map's size, a quarter of the image.
        """
        # channels last makes 1x1 convolutions plain matrix products and upsampling contiguous
        stages = [*encoder_hidden_states[:-1], self._as_map(encoder_hidden_states)]
        maps = [stage.contiguous(memory_format=torch.channels_last) for stage in stages]
        # the products stay in the parameters' precision: rounding them affects every pixel and saves no time
        device = maps[0].device.type
        autocast = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if autocast else contextlib.nullcontext():
            weights, bias = self.mixed_weights()

        size = maps[0].shape[-2:]
        # upsampling keeps a constant, so the whole bias is added with the finest stage. Adding in place is
        # safe: neither convolution nor upsampling needs its output for the backward pass.
        mixed = F.conv2d(maps[0], weights[0], bias)
        for features, weight in zip(maps[1:], weights[1:], strict=True):
            small = F.conv2d(features, weight)
            mixed += F.interpolate(small, size=size, mode="bilinear", align_corners=False)
        if self.batch_norm.training:
            mixed = self.batch_norm(mixed)
        # back to the default order: with few classes, upsampling channels-last logits is many times slower
        return self.classifier(self.dropout(self.activation(mixed))).contiguous()

    def mixed_weights(self) -> tuple[list[Tensor], Tensor]:
        """W_i V_i per stage, (D, C_i, 1, 1), and the bias, (D,); batch norm is folded in unless it trains."""
        width = self.linear_fuse.out_channels
        # the stages are concatenated deepest first, so stage i is the i-th slice from the end
        slices = self.linear_fuse.weight.flatten(1).split(width, dim=1)[::-1]
        projections = [projection.proj for projection in self.linear_projections]
        bias = sum(w @ p.bias for w, p in zip(slices, projections, strict=True))
        norm = self.batch_norm
        if not norm.training:
            # with fixed statistics batch norm is a scale and a shift of each channel
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            slices = [scale[:, None] * w for w in slices]
            bias = scale * (bias - norm.running_mean) + norm.bias
        return [(w @ p.weight)[..., None, None] for w, p in zip(slices, projections, strict=True)], bias

    def _as_map(self, stages: Sequence[Tensor]) -> Tensor:
        """Returns the last stage with two image axes, which `reshape_last_stage=False` flattens."""
        last = stages[-1]
        if last.ndim == 4:
            return last
        # its size follows from the previous stage: a strided convolution, padded by half its kernel.
        # transformers assumes a square of sqrt(channels), which is right only by coincidence
        kernel, stride = self.config.patch_sizes[-1], self.config.strides[-1]
        height, width = ((side + 2 * (kernel // 2) - kernel) // stride + 1 for side in stages[-2].shape[-2:])
        return last.transpose(1, 2).reshape(last.shape[0], last.shape[2], height, width)
