"""An exported file in a network's place, so that `nailseg test` measures the very graph that is handed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nailseg.inference.backends.exported import open_exported

if TYPE_CHECKING:
    from pathlib import Path


class ExportedNetwork(nn.Module):
    """Images as they are, in; logits of their size out. It cannot be trained.

    Args:
        file: from `exported.exported_file`.

    Attributes:
        info: what the file says of itself; `class_names`, `origin`, `architecture`, `mean` and `std` are its.
    """

    new_head = False
    fixed_size = None

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.backend = open_exported(file)
        self.info = self.backend.info
        self.class_names, self.origin = self.info.class_names, self.info.origin
        self.architecture = self.info.architecture
        self.register_buffer("mean", torch.tensor(self.info.mean), persistent=False)
        self.register_buffer("std", torch.tensor(self.info.std), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Segments images of one size.

        Args:
            image: uint8 (N, 3, H, W), RGB, neither resized nor padded.

        Returns:
            float32 (N, C, H, W): logarithms of the probabilities, which are logits of the same softmax.
        """
        _, probability = self.backend(image.permute(0, 2, 3, 1).cpu().numpy())
        tiny = torch.finfo(torch.float32).tiny
        return torch.from_numpy(probability).clamp_min(tiny).log().to(image.device)
