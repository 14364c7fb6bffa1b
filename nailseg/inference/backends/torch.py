"""Torch as a backend: a network with the preprocessing it was trained with."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from nailseg.checkpoints import model_folder
from nailseg.errors import ConfigError
from nailseg.imaging import geometry
from nailseg.inference.backends.as_module import ExportedNetwork
from nailseg.inference.backends.base import Backend
from nailseg.metrics.confusion import class_index
from nailseg.model_info import ModelInfo


class TorchBackend:
    """Runs a network in torch; the `Backend` of checkpoints and model folders.

    Args:
        network: Any network from float (N, 3, H, W), 0..255, to logits (N, C, H, W).
        info: Its image size and resize rule.
        device: Where it runs; None uses a GPU if there is one. A `ConfigError` says that it does not exist.
    """

    def __init__(self, network: nn.Module, info: ModelInfo, device: str | torch.device | None = None) -> None:
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:  # torch raises the latter for a build without CUDA
            message = f"--device: expected a device of this machine, found {device!r}. {error}"
            raise ConfigError(message) from error
        self.network, self.info = network.to(self.device).eval(), info

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Segments images of one size, as `Backend`."""
        pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).to(self.device)
        resize = "keep" if size and self.info.resize in ("crop", "none") else self.info.resize
        fitted, valid = geometry.fit_image(pixels, size or self.info.image_size, resize)
        logits = geometry.restore_logits(self.network(fitted).float(), valid, images.shape[1:3])
        return class_index(logits).cpu().numpy(), logits.softmax(1).cpu().numpy()


def create_backend(network: nn.Module, info: ModelInfo, device: str | torch.device | None = None) -> Backend:
    """Returns the backend of an open network: the runtime of an exported file, or torch."""
    return network.backend if isinstance(network, ExportedNetwork) else TorchBackend(network, info, device)


def open_torch(model: str | Path, device: str | None = None) -> TorchBackend:
    """Opens whatever `checkpoints.model_folder.open_network` accepts; errors as in `segmenter.load`."""
    info = model_folder.read_model_info(model) or model_folder.describe_weights(model)
    network = model_folder.open_network(model, name=info.architecture)
    model_folder.require_trained(network, model)
    return TorchBackend(network, info, device)
