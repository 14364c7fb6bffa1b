"""Segmentation networks: uint8 images in, logits of the images' size out.

`base.Network` is the interface of all architectures, and `registry` chooses one by name. Normalization is
inside the network. Nothing here knows about data, Lightning or the command line.
"""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names

if TYPE_CHECKING:
    from nailseg.models.base import Network
    from nailseg.models.registry import build_network
    from nailseg.models.segformer import SegFormer

__all__ = ["Network", "SegFormer", "build_network"]
__getattr__ = lazy_names(__name__, "base.Network", "registry.build_network", "segformer.SegFormer")
