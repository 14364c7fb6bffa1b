"""ICC profiles: the colors of an image with an RGB, gray or CMYK profile become sRGB.

LittleCMS converts, through Pillow's `ImageCms`. A profile is sRGB, and costs nothing, if it moves no color of
a grid by more than two levels: the names of profiles differ too much to be compared.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Color space in a profile's header -> Pillow's mode of the images that it is for."""
MAX_CHANGE = 2  # levels; the roundings of the many profiles that are called sRGB


def convert_to_srgb(colors: np.ndarray, profile: bytes) -> np.ndarray:
    """Converts uint8 (H, W) gray, (H, W, 3) RGB or (H, W, 4) CMYK to RGB in sRGB.

    Colors that are sRGB already are returned unchanged. A gray image may have an RGB profile.

    Raises:
        ValueError: the profile is damaged, or for other channels than the image's.
    """
    profile_mode, transform = _build_transform(profile)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[colors.shape[2] if colors.ndim == 3 else 1]
    if (mode, profile_mode) not in (("L", "RGB"), (profile_mode, profile_mode)):
        raise ValueError(f"one for {profile_mode} in an image of {mode}")
    if transform is None:
        return colors
    image = Image.frombuffer(mode, colors.shape[1::-1], np.ascontiguousarray(colors))
    return np.array(ImageCms.applyTransform(image.convert(profile_mode), transform))


@lru_cache(maxsize=32)
def _build_transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Pillow's mode of a profile's images, and what converts them to sRGB; None if they are sRGB already."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = MODES[source.profile.xcolor_space.strip()]
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, KeyError, TypeError, ImageCms.PyCMSError) as error:
        raise ValueError(f"none of RGB, gray or CMYK ({error})") from None
    if mode == "CMYK":
        return mode, transform
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = levels if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    colors = Image.fromarray(grid.reshape(1, -1) if mode == "L" else grid.reshape(1, -1, 3))
    converted = np.asarray(ImageCms.applyTransform(colors, transform)).astype(int)
    change = np.abs(converted - np.asarray(colors.convert("RGB"))).max()
    return mode, transform if change > MAX_CHANGE else None
