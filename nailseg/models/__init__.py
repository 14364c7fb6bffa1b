"""Segmentation networks: uint8 images in, logits of the images' size out.

`base.Network` is the interface of all architectures, and `registry` chooses one by name. Normalization is
inside the network. Nothing here knows about data, Lightning or the command line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nailseg.models.base import Network
    from nailseg.models.registry import build_network
    from nailseg.models.segformer import SegFormer

__all__ = ["Network", "SegFormer", "build_network"]

_LAZY = {
    "Network": "nailseg.models.base",
    "SegFormer": "nailseg.models.segformer",
    "build_network": "nailseg.models.registry",
}


def __getattr__(name: str) -> object:
    """Imports a public name on first use: exported models run without torch."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
