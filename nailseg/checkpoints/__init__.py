"""Models on disk: the model folder with its card, training checkpoints, and conversion of foreign weights.

A model folder or checkpoint is complete: it opens without the hub and without the training's config.
"""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names

if TYPE_CHECKING:
    from nailseg.checkpoints.model_folder import open_network, save_model_folder

__all__ = ["open_network", "save_model_folder"]
__getattr__ = lazy_names(__name__, "model_folder.open_network", "model_folder.save_model_folder")
