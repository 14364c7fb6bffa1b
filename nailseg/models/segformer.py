"""SegFormer on transformers' `SegformerForSemanticSegmentation`.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import SegformerForSemanticSegmentation

from nailseg.models.base import Network
from nailseg.models.decode_head import DecodeHead
from nailseg.models.loading import build_segformer, load_segformer
from nailseg.models.mix_transformer import ARCHITECTURES
from nailseg.models.pretrained import Source


class SegFormer(Network):
    """A SegFormer with the decode head `DecodeHead` and normalization inside.

    `weights` is a hub name (`nvidia/mit-b0`, `nvidia/segformer-b4-finetuned-ade-512-512`), a local folder as
    `save_pretrained` writes it (old and new key names), or `b0` … `b5` for the architecture with the paper's
    initialization and no download. `drop_path` is the rate of the last block; it rises linearly from 0 over
    the blocks. Everything else is as in `Network`.

    Attributes:
        hf: the transformers `SegformerForSemanticSegmentation` inside, with the same state dict.

    Example:
        >>> tiny = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
        >>> network = SegFormer.from_config(tiny, ["background", "nail"])
        >>> network(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)).shape
        torch.Size([1, 2, 64, 96])
    """

    architecture = "segformer"
    model_type = "segformer"

    @staticmethod
    def random_config(weights: str) -> dict[str, Any] | None:
        """Returns the config of `b0` … `b5`."""
        if weights not in ARCHITECTURES:
            return None
        depths, widths, decoder = ARCHITECTURES[weights]
        return {"depths": depths, "hidden_sizes": widths, "decoder_hidden_size": decoder}

    def _build(self, config: dict[str, Any], class_names: list[str], drop_path: float) -> None:
        self._wrap(build_segformer(config, class_names, drop_path))

    def _load(self, source: Source, class_names: Sequence[str] | None, drop_path: float) -> bool:
        hf, new_head = load_segformer(source, class_names, drop_path)
        self._wrap(hf)
        return new_head

    def _wrap(self, hf: SegformerForSemanticSegmentation) -> None:
        hf.decode_head = DecodeHead(hf.decode_head)
        convert_to_channels_last(hf.segformer)
        self.hf, self.hf_config = hf, hf.config

    @property
    def encoder(self) -> nn.Module:
        """See `Network`."""
        return self.hf.segformer


def convert_to_channels_last(encoder: nn.Module) -> None:
    """Stores the convolution kernels of a token encoder channels last.

    The weights decide a convolution's memory order. Tokens are channels last in memory, so this order saves
    copies before and after each convolution (a tenth to a third of a forward pass on a CPU).
    """
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            module.to(memory_format=torch.channels_last)
