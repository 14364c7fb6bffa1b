"""An exported file as a torch module, so that `nailseg test` measures the very graph that is deployed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nailseg.checkpoints import model_folder
from nailseg.inference.backends import find_exported_file, open_exported
from nailseg.model_info import ModelInfo, locate
from nailseg.models.base import Network


class ExportedNetwork(nn.Module):
    """Runs an exported file (from `find_exported_file`) as a network that cannot be trained."""

    new_head, fixed_size = False, None

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.backend = open_exported(file)
        self.info = info = self.backend.info  # other attributes repeat parts of it, as in `Network`
        self.class_names, self.origin, self.architecture = info.class_names, info.origin, info.architecture
        self.register_buffer("mean", torch.tensor(info.mean), persistent=False)
        self.register_buffer("std", torch.tensor(info.std), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Maps uint8 (N, 3, H, W), RGB, neither resized nor padded, to logits float32 (N, C, H, W)."""
        _, probability = self.backend(image.permute(0, 2, 3, 1).cpu().numpy())
        return probability_to_logits(probability).to(image.device)


def probability_to_logits(probability: np.ndarray) -> Tensor:
    """Maps float32 (N, C, H, W), 0..1, to finite logits of that shape, whose softmax is the probability."""
    return torch.from_numpy(probability).clamp_min(torch.finfo(torch.float32).tiny).log()


def open_module(
    source: str | Path, class_names: Sequence[str] | None, drop_path: float, name: str | None
) -> Network | ExportedNetwork:
    """Opens any model as a module: an exported file or its folder, or what `open_network` accepts.

    The arguments and errors are those of `open_network`; an exported file must have the same class names.
    """
    if (file := find_exported_file(locate(source))) is None:
        return model_folder.open_network(source, class_names, drop_path, name)
    network = ExportedNetwork(file)
    model_folder.require_same_classes(source, network.info, class_names)
    return network


def read_module_info(source: str | Path) -> ModelInfo | None:
    """Reads nailseg.json of any model, exported files included; None if it has none."""
    if file := find_exported_file(locate(source)):
        return open_exported(file).info
    return model_folder.read_model_info(source)
