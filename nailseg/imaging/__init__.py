"""Operations on images: resizing and padding, overlays, recolouring, figures.

`geometry` resizes and pads images for the network and restores logits to the original size, `overlay` draws
masks over images and encodes image files, `recolor` changes the colour of nails, and `figures` draws plots as
SVG. The public names are imported on first use, because `geometry` needs torch.
"""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names

if TYPE_CHECKING:
    from nailseg.imaging.geometry import fit_image, restore_logits
    from nailseg.imaging.overlay import draw_overlay, encode_image

__all__ = ["draw_overlay", "encode_image", "fit_image", "restore_logits"]
__getattr__ = lazy_names(
    __name__, "geometry.fit_image", "geometry.restore_logits", "overlay.draw_overlay", "overlay.encode_image"
)
