"""Models on disk: the model folder with its card, training checkpoints, and conversion of foreign weights.

A model folder or checkpoint is complete: it opens without the hub and without the training's config.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nailseg.checkpoints.model_folder import open_network, save_model_folder

__all__ = ["open_network", "save_model_folder"]


def __getattr__(name: str) -> object:
    """Imports a public name on first use: exported models run without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("nailseg.checkpoints.model_folder"), name)
