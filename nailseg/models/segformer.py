"""SegFormer: uint8 images in, full-size logits out, around transformers' `SegformerForSemanticSegmentation`.

The paper: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerForSemanticSegmentation

from nailseg.models import weights as files
from nailseg.models.building import ARCHITECTURES, DEFAULT_CLASSES, build, load
from nailseg.models.decode_head import DecodeHead


class SegFormer(nn.Module):
    """A SegFormer whose decode head is the exact rewrite of `DecodeHead`, with normalisation inside.

    Args:
        weights: a hub name (`nvidia/mit-b0`, `nvidia/segformer-b4-finetuned-ade-512-512`), a local folder as
            `save_pretrained` writes it (old and new key names), or `b0` … `b5` for the architecture with the
            paper's initialisation and no download.
        class_names: order is the class index, the first is background. None keeps a segmentation checkpoint's
            own labels; `b0` … `b5` and encoders without a decode head take background and nail. Other names
            than the checkpoint's give it a new classifier; all else stays.
        drop_path: stochastic depth of the last block; the other blocks' rises linearly from 0.

    Attributes:
        hf: the transformers `SegformerForSemanticSegmentation` inside; its state dict is transformers' own.
        class_names: list of names, in index order.
        origin: `weights` (what the weights came from) and `licence`.
        new_head: True if the classifier is freshly initialised.
        mean: float (1, 3, 1, 1), RGB mean of images in 0..1; not part of the state dict.
        std: as `mean`, standard deviation.

    Raises:
        WeightsError: weights that cannot be found or do not fit.
        ConfigError: fewer than two class names, or one name twice.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, weights: str, class_names: Sequence[str] | None = None, drop_path: float = 0.1
    ) -> None:
        super().__init__()
        weights = str(weights)
        if weights in ARCHITECTURES:
            depths, widths, decoder = ARCHITECTURES[weights]
            config = {"depths": depths, "hidden_sizes": widths, "decoder_hidden_size": decoder}
            hf = build(config, DEFAULT_CLASSES if class_names is None else class_names, drop_path)
            origin = {"weights": f"{weights}, the paper's initialisation", "licence": files.NO_LICENCE}
            self._adopt(hf, files.IMAGENET_MEAN, files.IMAGENET_STD, origin, new_head=True)
            return
        source = files.find(weights)
        hf, new_head = load(source, class_names, drop_path)
        files.warn_if_non_commercial(source.origin)
        self._adopt(hf, source.mean, source.std, source.origin, new_head)

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        class_names: Sequence[str],
        drop_path: float = 0.1,
        mean: Sequence[float] = files.IMAGENET_MEAN,
        std: Sequence[float] = files.IMAGENET_STD,
        origin: dict[str, str] | None = None,
    ) -> Self:
        """Builds the network of a config.json's content with the paper's initialisation, without any file.

        For checkpoints, whose state dict is loaded afterwards, and for tiny networks in tests.

        Args:
            config: what `model.hf.config.to_dict()` gave; what it leaves out has SegFormer-B0's value.
            class_names: order is the class index.
            drop_path: as in the constructor.
            mean: three values, for images in 0..1.
            std: as `mean`.
            origin: what the weights that will be loaded came from.
        """
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        origin = origin or {"weights": "the paper's initialisation", "licence": files.NO_LICENCE}
        self._adopt(build(config, class_names, drop_path), mean, std, dict(origin), new_head=True)
        return self

    def _adopt(
        self,
        hf: SegformerForSemanticSegmentation,
        mean: Sequence[float],
        std: Sequence[float],
        origin: dict[str, str],
        new_head: bool,
    ) -> None:
        hf.decode_head = DecodeHead(hf.decode_head)
        for module in hf.segformer.modules():
            # weights decide the memory order of a convolution; tokens lie in memory as channels last, so this
            # one saves copies on both sides (a tenth to a third of a forward on a CPU)
            if isinstance(module, nn.Conv2d) and module.groups == 1:
                module.to(memory_format=torch.channels_last)
        self.hf = hf
        # from_pretrained leaves eval mode behind, and Lightning trains a module in the mode it finds
        self.train()
        self.origin = origin
        self.new_head = new_head
        # not in the state dict: it stays transformers' own
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def class_names(self) -> list[str]:
        """The classes' names, in index order."""
        return [self.hf.config.id2label[index] for index in range(self.hf.config.num_labels)]

    def forward(self, image: Tensor) -> Tensor:
        """Segments a batch.

        Args:
            image: (N, 3, H, W), RGB, uint8 or float, 0..255, of any size (best a multiple of 32).

        Returns:
            float (N, C, H, W): logits at the images' size.
        """
        pixels = (image.to(self.mean.dtype) - 255 * self.mean) / (255 * self.std)
        logits = self.hf(pixel_values=pixels).logits
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
