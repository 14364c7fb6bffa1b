"""SegFormer: uint8 images in, full-size logits out, around transformers' `SegformerForSemanticSegmentation`.

The paper: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import SegformerForSemanticSegmentation

from nailseg.models.base import Network
from nailseg.models.decode_head import DecodeHead
from nailseg.models.loading import ARCHITECTURES, build, load
from nailseg.models.pretrained import Source


class SegFormer(Network):
    """A SegFormer whose decode head is the exact rewrite of `DecodeHead`, with normalisation inside.

    `weights` is a hub name (`nvidia/mit-b0`, `nvidia/segformer-b4-finetuned-ade-512-512`), a local folder as
    `save_pretrained` writes it (old and new key names), or `b0` … `b5` for the architecture with the paper's
    initialisation and no download. `drop_path` is the last block's; the other blocks' rises linearly from 0.
    All else: `Network`.

    Attributes:
        hf: the transformers `SegformerForSemanticSegmentation` inside; its state dict is transformers' own.
    """

    architecture = "segformer"
    model_type = "segformer"

    @staticmethod
    def random_config(weights: str) -> dict[str, Any] | None:
        """The config of `b0` … `b5`."""
        if weights not in ARCHITECTURES:
            return None
        depths, widths, decoder = ARCHITECTURES[weights]
        return {"depths": depths, "hidden_sizes": widths, "decoder_hidden_size": decoder}

    def _build(self, config: dict[str, Any], class_names: list[str], drop_path: float) -> None:
        self._adopt(build(config, class_names, drop_path))

    def _load(self, source: Source, class_names: Sequence[str] | None, drop_path: float) -> bool:
        hf, new_head = load(source, class_names, drop_path)
        self._adopt(hf)
        return new_head

    def _adopt(self, hf: SegformerForSemanticSegmentation) -> None:
        hf.decode_head = DecodeHead(hf.decode_head)
        convert_to_channels_last(hf.segformer)
        self.hf, self.hf_config = hf, hf.config

    @property
    def encoder(self) -> nn.Module:
        """See `Network`."""
        return self.hf.segformer


def convert_to_channels_last(encoder: nn.Module) -> None:
    """Stores the kernels of an encoder of tokens channels last.

    Weights decide the memory order of a convolution; tokens lie in memory as channels last, so this one saves
    copies on both sides (a tenth to a third of a forward on a CPU).
    """
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            module.to(memory_format=torch.channels_last)
