"""Operations on images: resizing and padding, overlays, recolouring, figures.

`geometry` resizes and pads images for the network and restores logits to the original size, `overlay` draws
masks over images and encodes image files, `recolor` changes the colour of nails, and `figures` draws plots as
SVG. The public names are imported on first use, because `geometry` needs torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nailseg.imaging.geometry import fit_image, restore_logits
    from nailseg.imaging.overlay import draw_overlay, encode_image

__all__ = ["draw_overlay", "encode_image", "fit_image", "restore_logits"]

_LAZY = {
    "draw_overlay": "nailseg.imaging.overlay",
    "encode_image": "nailseg.imaging.overlay",
    "fit_image": "nailseg.imaging.geometry",
    "restore_logits": "nailseg.imaging.geometry",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
