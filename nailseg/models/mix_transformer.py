"""SegFormer implemented from the paper, for reading: Mix Transformer encoder (MiT) and all-MLP decoder.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", 2021. The
names are the paper's. Each class uses only classes above it. `mix_segformer` loads transformers' weights.

Shapes: N images, C channels (a stage's `width`), H x W pixels of a stage's map, L = H * W tokens. The four
stages have 1/4, 1/8, 1/16 and 1/32 of the image's size. There is no position encoding: the zero padding of
the depth-wise convolutions carries the position, so every input size works.

Settings of a stage: its `patch_size` K (kernel of the patch merging) and `stride` S (reduction of the map),
`heads` of C / heads channels each, `reduction` R of keys and values per side of the map, and `ratio` E, by
which the Mix-FFN expands its hidden layer. D is the decoder's width.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nailseg.models.decode_head import DecodeHead

_WIDE = (64, 128, 320, 512)
ARCHITECTURES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    # blocks per stage, width per stage, decoder's width (table 6)  millions: encoder, decoder for 150 classes
    "b0": ((2, 2, 2, 2), (32, 64, 160, 256), 256),  #                    3.3        0.4
    "b1": ((2, 2, 2, 2), _WIDE, 256),  #                                13.2        0.6
    "b2": ((3, 4, 6, 3), _WIDE, 768),  #                                24.2        3.3
    "b3": ((3, 4, 18, 3), _WIDE, 768),  #                               44.1        3.3
    "b4": ((3, 8, 27, 3), _WIDE, 768),  #                               60.8        3.3
    "b5": ((3, 6, 40, 3), _WIDE, 768),  #                               81.4        3.3
}


def as_tokens(features: Tensor) -> Tensor:
    """Flattens a map to a sequence: (N, C, H, W) -> (N, L, C)."""
    return features.flatten(2).transpose(1, 2)


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Reshapes a sequence to a map: (N, L, C) -> (N, C, H, W), channels last in memory, without a copy."""
    return tokens.transpose(1, 2).unflatten(2, size)


class OverlapPatchMerging(nn.Module):
    """The first layer of a stage: a convolution whose kernel exceeds its stride, so that patches overlap."""

    def __init__(self, channels: int, width: int, patch_size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, stride, padding=patch_size // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(N, channels, S H, S W) to tokens (N, L, C) and their map's size (H, W)."""
        merged = self.proj(features)  # (N, channels, S H, S W) -> (N, C, H, W)
        return self.norm(as_tokens(merged)), (merged.shape[2], merged.shape[3])  # (N, L, C)


class EfficientSelfAttention(nn.Module):
    """Attention of L queries to L / R^2 keys, which costs O(L^2 / R^2) instead of O(L^2).

    The paper describes the sequence reduction as a reshape and a linear layer. Over neighbors of a map that
    is a convolution with kernel = stride = R, as in the paper's code. (The paper's R is R^2 here.)
    """

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        if reduction > 1:
            self.reduce = nn.Conv2d(width, width, reduction, reduction)
            self.reduce_norm = nn.LayerNorm(width)

    def _per_head(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, L, C) -> (N, heads, L, C / heads)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens (N, L, C) of a map of `size` to (N, L, C)."""
        context = tokens  # source of keys and values: (N, L, C), or (N, L / R^2, C) in stages 1 to 3
        if self.reduction > 1:
            small = self.reduce(as_map(tokens, size))  # (N, L, C) -> (N, C, H, W) -> (N, C, H / R, W / R)
            context = self.reduce_norm(as_tokens(small))  # (N, C, H / R, W / R) -> (N, L / R^2, C)
        query = self._per_head(self.query(tokens))  # (N, L, C) -> (N, heads, L, C / heads)
        key = self._per_head(self.key(context))  # (N, L / R^2, C) -> (N, heads, L / R^2, C / heads)
        value = self._per_head(self.value(context))  # as key
        # softmax(query key^T / sqrt(C / heads)) value, without storing the L x L / R^2 matrix
        attended = F.scaled_dot_product_attention(query, key, value)  # (N, heads, L, C / heads)
        return self.output(attended.transpose(1, 2).flatten(2))  # (N, heads, L, C / heads) -> (N, L, C)


class MixFFN(nn.Module):
    """The feed-forward part: dense, depth-wise 3x3 convolution, GELU, dense."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        inner = int(width * ratio)
        self.dense1 = nn.Linear(width, inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.dense2 = nn.Linear(inner, width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens (N, L, C) of a map of `size` to (N, L, C)."""
        wide = self.dense1(tokens)  # (N, L, C) -> (N, L, E C)
        mixed = as_tokens(self.depthwise(as_map(wide, size)))  # -> (N, E C, H, W) -> (N, L, E C)
        return self.dense2(F.gelu(mixed))  # (N, L, E C) -> (N, L, C)


class StochasticDepth(nn.Module):
    """Drops a branch for a share `rate` of the images in training, and rescales it (Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """(N, L, C) to (N, L, C)."""
        if not self.training or self.rate == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.rate  # (N, 1, 1)
        return branch * kept.to(branch.dtype) / (1 - self.rate)


class EncoderBlock(nn.Module):
    """Attention and Mix-FFN on normalized tokens, with stochastic depth and a residual connection each."""

    def __init__(self, width: int, heads: int, reduction: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = EfficientSelfAttention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = MixFFN(width, ratio)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens (N, L, C) of a map of `size` to (N, L, C)."""
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens), size))
        return tokens + self.drop_path(self.ffn(self.norm2(tokens), size))


class Stage(nn.Module):
    """Patch merging, blocks, norm. (The paper's figure has the merging after the blocks; it comes first.)"""

    def __init__(self, merging: OverlapPatchMerging, blocks: Sequence[EncoderBlock]) -> None:
        super().__init__()
        self.merging = merging
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(merging.proj.out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, S H, S W) to (N, C, H, W)."""
        tokens, size = self.merging(features)  # (N, channels, S H, S W) -> (N, L, C)
        for block in self.blocks:
            tokens = block(tokens, size)
        return as_map(self.norm(tokens), size)  # (N, L, C) -> (N, C, H, W)


class MixTransformer(nn.Module):
    """The encoder: four feature maps of decreasing size, as in a convolutional network.

    Its arguments are per stage: `depths` is the number of blocks, the others are explained above. `drop_path`
    is the stochastic depth rate of the last block; it rises linearly from 0 over all blocks.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        heads: Sequence[int] = (1, 2, 5, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        ratios: Sequence[int] = (4, 4, 4, 4),
        patch_sizes: Sequence[int] = (7, 3, 3, 3),
        strides: Sequence[int] = (4, 2, 2, 2),
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        rates = iter(drop_path * i / max(sum(depths) - 1, 1) for i in range(sum(depths)))
        self.stages = nn.ModuleList()
        for i, (channels, width) in enumerate(pairwise((3, *widths))):
            settings = (width, heads[i], reductions[i], ratios[i])
            blocks = [EncoderBlock(*settings, drop_path=next(rates)) for _ in range(depths[i])]
            merging = OverlapPatchMerging(channels, width, patch_sizes[i], strides[i])
            self.stages.append(Stage(merging, blocks))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Normalized images (N, 3, H, W) to maps (N, C_i, H / 4, W / 4) … (N, C_4, H / 32, W / 32)."""
        maps = [pixels]
        for stage in self.stages:
            maps.append(stage(maps[-1]))  # (N, C_(i-1), S H, S W) -> (N, C_i, H, W)
        return maps[1:]


class MLP(nn.Module):
    """A linear layer on every pixel of a map, from a stage's width to the decoder's width D."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, width)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C_i, H, W) to (N, D, H, W)."""
        return as_map(self.proj(as_tokens(features)), (features.shape[2], features.shape[3]))


class AllMLPDecoder(nn.Module):
    """The decoder: projects four maps to D channels, upsamples them to one size, fuses and classifies them.

    `widths` are the C of the stages, `width` is D, and `dropout` is the share of whole channels that training
    drops before the classifier.
    """

    def __init__(self, widths: Sequence[int], width: int, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.linear_projections = nn.ModuleList([MLP(channels, width) for channels in widths])
        self.linear_fuse = nn.Conv2d(width * len(widths), width, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(width)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (N, C_i, H / 2^(i + 1), …) to logits (N, classes, H / 4, W / 4)."""
        size = maps[0].shape[-2:]
        upsampled = [
            # (N, C_i, …) -> (N, D, …) -> (N, D, H / 4, W / 4)
            F.interpolate(project(features), size=size, mode="bilinear", align_corners=False)
            for project, features in zip(self.linear_projections, maps, strict=True)
        ]
        fused = self.linear_fuse(torch.cat(upsampled[::-1], dim=1))  # deepest first: (N, 4 D, …) -> (N, D, …)
        return self.classifier(self.dropout(self.activation(self.batch_norm(fused))))  # -> (N, classes, …)


class MixTransformerSegFormer(nn.Module):
    """Encoder and decoder; `DecodeHead` computes the same function as `AllMLPDecoder` with less work."""

    def __init__(self, encoder: MixTransformer, decoder: AllMLPDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decode_head = DecodeHead(decoder)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, classes, H / 4, W / 4)."""
        return self.decode_head(self.encoder(pixels))
