"""The architectures by name, as `--model.name` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from nailseg.errors import ConfigError

if TYPE_CHECKING:
    from nailseg.models.base import Network

Architecture = Literal["segformer", "mix_transformer", "efficientnet", "vit", "auto"]
CLASSES = {
    "segformer": "segformer.SegFormer",
    "mix_transformer": "mix_segformer.MixSegFormer",
    "efficientnet": "efficientnet.EfficientNet",
    "vit": "vit.ViT",
    "auto": "auto.AutoNetwork",
}
INTERCHANGEABLE = frozenset({"segformer", "mix_transformer"})
"""Two implementations of one network: each opens the other's model folders, but not its checkpoints."""


def network_class(name: str) -> type[Network]:
    """Returns the class of an architecture; raises `ConfigError` for an unknown name."""
    if name not in CLASSES:
        raise ConfigError(f"--model.name: expected one of {', '.join(CLASSES)}, found {name!r}.")
    module, _, attribute = CLASSES[name].partition(".")
    return getattr(import_module(f"nailseg.models.{module}"), attribute)


def build_network(
    weights: str, class_names: Sequence[str] | None = None, drop_path: float = 0.1, name: str = "segformer"
) -> Network:
    """Builds a network of the architecture `name`; other arguments and errors are those of `Network`.

    Example:
        >>> import torch
        >>> network = build_network("vit-tiny-random", ["background", "nail"], name="vit")
        >>> network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape
        torch.Size([1, 2, 64, 64])
    """
    return network_class(name)(weights, class_names, drop_path)
