"""A plain ViT for segmentation: no convolution, one scale, one linear layer from a patch to its pixels.

The segmenter of a tutorial on Oxford-IIIT Pet, for comparison with SegFormer: Dosovitskiy et al. 2021 (ViT)
with batch norm on the image instead of a fixed normalization. Its learned positions fix the image size.
"""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from nailseg.errors import ConfigError, WeightsError
from nailseg.models.loading import initialize_as_paper
from nailseg.models.standalone import StandaloneNetwork
from nailseg.schema import validate


@dataclass(frozen=True)
class Shape:
    """The shape of a ViT: the fields of its config.json besides the classes; sizes in pixels."""

    image_size: Annotated[int, Ge(32), Le(2048)]
    patch_size: Annotated[int, Ge(1), Le(256)] = 16
    width: Annotated[int, Ge(1), Le(8192)] = 768
    depth: Annotated[int, Ge(1), Le(128)] = 12
    heads: Annotated[int, Ge(1), Le(64)] = 8
    mlp_ratio: Annotated[int, Ge(1), Le(16)] = 4
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.2


SHAPES = {
    "vit-pet": Shape(128),
    "vit-small": Shape(128, width=192, depth=6, heads=3),
    "vit-tiny": Shape(64, width=32, depth=2, heads=2),
}


class Block(nn.Module):
    """Attention and MLP, each on normalized tokens and with a residual connection."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, inner = shape.width, shape.mlp_ratio * shape.width
        self.heads, self.p = shape.heads, shape.dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dropout = dropout = nn.Dropout(shape.dropout)
        layers = nn.Linear(width, inner), nn.GELU(), dropout, nn.Linear(inner, width), dropout
        self.mlp = nn.Sequential(*layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L, W) to (N, L, W)."""
        # (N, L, 3 W) -> (N, L, 3, heads, W / heads) -> three of (N, heads, L, W / heads)
        split = self.query_key_value(self.norm1(tokens)).unflatten(2, (3, self.heads, -1)).transpose(1, 3)
        query, key, value = split.unbind(2)
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=self.p if self.training else 0.0)
        tokens = tokens + self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))
        return tokens + self.mlp(self.norm2(tokens))


class Body(nn.Module):
    """All layers but the last: images (N, 3, S, S) in 0..1 to one token per patch (N, L, W)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch = shape.patch_size
        self.norm = nn.BatchNorm2d(3)
        self.embedding = nn.Linear(3 * self.patch**2, shape.width)
        length = (shape.image_size // self.patch) ** 2
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, length, shape.width), std=0.02))
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.Sequential(*[Block(shape) for _ in range(shape.depth)])

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, L, W)."""
        # P x P pixels a patch, S / P patches a side: (N, 3, S, S) -> (N, 3, S / P, P, S / P, P)
        split = self.norm(pixels).unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        patches = split.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # -> (N, S / P, S / P, 3, P, P)
        # -> (N, L, 3 P P), patches in reading order -> (N, L, W)
        return self.blocks(self.dropout(self.embedding(patches) + self.positions))


class ViT(StandaloneNetwork):
    """The plain ViT segmenter, for images squashed to `fixed_size` pixels a side.

    `weights` is `vit-pet-random` (86 M parameters), `vit-small-random` or `vit-tiny-random`, with another
    image size as in `vit-small-192-random`, or a model folder. It has dropout and no stochastic depth.
    Everything else is as in `Network`.
    """

    architecture = "vit"
    model_types = ("nailseg-vit",)
    classifier = "head"
    random_mean, random_std = (0.0,) * 3, (1.0,) * 3  # batch norm normalizes

    @staticmethod
    def random_config(architecture: str) -> dict[str, Any] | None:
        """Returns the config of `vit-pet`, `vit-small` or `vit-tiny`, with or without an image size."""
        named = re.fullmatch(r"(vit-[a-z]+)(?:-(\d+))?", architecture)
        if named and named[1] in SHAPES:
            config = dataclasses.asdict(SHAPES[named[1]])
            return config | ({"image_size": int(named[2])} if named[2] else {})
        if not Path(architecture).is_dir():
            names = ", ".join(f"{name}-random" for name in SHAPES)
            raise WeightsError(
                f"weights {architecture!r}: expected a model folder of a vit, or one of {names} "
                f"(NAME-SIZE-random for another image size); found neither (looked from {Path.cwd()})."
            )
        return None

    def _build(self, config: dict[str, Any], class_names: list[str], drop_path: float) -> None:
        fields = {field.name for field in dataclasses.fields(Shape)}
        known = {key: value for key, value in config.items() if key in fields}
        shape = validate(Shape, known, f"the config of a {self.model_types[0]}")
        if shape.width % shape.heads:
            raise WeightsError(
                f"vit: expected a width divisible by {shape.heads} heads, found {shape.width}."
            )
        if shape.image_size % shape.patch_size or shape.image_size % 32:
            raise ConfigError(
                f"vit: expected an image size that is a multiple of 32 and of the patch size "
                f"{shape.patch_size}, found {shape.image_size}."
            )
        self.shape, self.names, self.fixed_size = shape, class_names, shape.image_size
        self.body = Body(shape)
        self.head = nn.Linear(shape.width, shape.patch_size**2 * len(class_names))
        initialize_as_paper(self)

    @property
    def encoder(self) -> nn.Module:
        return self.body

    def fields(self) -> dict[str, Any]:
        return dataclasses.asdict(self.shape)

    def logits(self, pixels: Tensor) -> Tensor:
        """Maps images in 0..1, float (N, 3, S, S) with S = `fixed_size`, to logits (N, C, S, S)."""
        size, patch = self.shape.image_size, self.shape.patch_size
        if pixels.shape[-2:] != (size, size):
            raise ConfigError(
                f"vit: expected images of {size} x {size} pixels, because its positions are learned; found "
                f"{pixels.shape[-2]} x {pixels.shape[-1]}. Give --data.size {size} --data.resize squash."
            )
        # (N, L, W) -> (N, L, C P P) -> (N, S / P, S / P, C, P, P): a token gives its patch's pixels
        pieces = self.head(self.body(pixels)).unflatten(2, (-1, patch, patch))
        patches = pieces.unflatten(1, (size // patch, -1))
        # -> (N, C, S / P, P, S / P, P) -> (N, C, S, S)
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
