"""Hands and nails drawn by code: the demo's data and the tests'.

`write_sample` lays out Images/1..4 and Masks/1..4 as the tutorials' data set does: 1 up to two nails, 2 three
or four, 3 five, 4 six and more.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from nailseg.data.synthetic import scene
from nailseg.data.synthetic.hand import make_hand, place
from nailseg.data.synthetic.paint import Layer, paint_hand
from nailseg.errors import ConfigError, OutputError

SMALLEST = 16  # pixels a side

# how many nails the images show, in turn; 6 stands for six to ten
_NAILS = (5, 2, 0, 6, 4, 5, 1, 6, 3, 5, 2, 6, 4, 5, 1, 6)
# height and width in units of `size`: square more often than not
_FORMATS = ((1, 1), (1, 1), (1, 1.25), (1, 1), (1.25, 1), (1, 1), (1, 1.5), (0.75, 1))
# fewer pixels of a nail than this share of the image are nobody's label
_LEAST_NAIL = 0.0005


def write_sample(folder: str | Path, *, count: int = 240, size: int = 256, seed: int = 0) -> list[Path]:
    """Draws a data set of hands: Images/{1..4}/NAME.jpg and Masks/{1..4}/NAME.png (0 background, 255 nail).

    Image number i depends on `seed`, `size` and i alone, so a larger set begins with the smaller one.

    Args:
        folder: Created if need be.
        count: Number of images. Three and more contain one without a nail.
        size: About the shorter side of the images in pixels.
        seed: Same seed, same bytes.

    Returns:
        The images' paths in the order drawn.

    Raises:
        ConfigError: No image, fewer than 16 pixels, or a seed below 0.
        OutputError: Images/ or Masks/ in `folder` already contains something.
    """
    if count < 1 or size < SMALLEST or seed < 0:
        raise ConfigError(
            f"--count {count}, --size {size}, --seed {seed}: expected 1 image or more, of {SMALLEST} "
            "pixels or more, and a seed from 0 on."
        )
    folders = [Path(folder) / name for name in ("Images", "Masks")]
    for filled in folders:
        if filled.exists() and (not filled.is_dir() or any(filled.iterdir())):
            raise OutputError(
                f"expected {filled} to be new or empty, found something in it: nothing is overwritten. "
                "Draw into another folder, or remove this one first"
            )
    for filled in folders:
        for group in "1234":
            (filled / group).mkdir(parents=True, exist_ok=True)
    written = []
    for number in tqdm(range(count), desc="drawing hands", unit="image", leave=False):
        rng = np.random.default_rng([seed, size, number])
        fingers = _NAILS[number % len(_NAILS)]
        if fingers == 6:
            fingers = int(rng.integers(6, 11))
        tall, wide = _FORMATS[rng.integers(len(_FORMATS))]
        image, mask, nails = _draw(rng, round(size * tall), round(size * wide), fingers)
        group = "1" if nails <= 2 else "2" if nails <= 4 else "3" if nails == 5 else "4"
        path = folders[0] / group / f"hand_{number:05d}.jpg"
        _write(path, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        _write(folders[1] / group / f"hand_{number:05d}.png", mask * 255, [])
        written.append(path)
    return written


def draw_hand(rng: np.random.Generator, size: int, fingers: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one image of `fingers` nails on one or two hands.

    Args:
        rng: Source of every choice; the same state draws the same image.
        size: Height and width in pixels; nails are at least about size / 25 wide.
        fingers: Nails to be seen, 0..10. More than five take two hands.

    Returns:
        The image, uint8 (size, size, 3) RGB, and its mask, uint8 (size, size), 0 background and 1 nail.
    """
    return _draw(rng, size, size, fingers)[:2]


def _write(path: Path, pixels: np.ndarray, options: list[int]) -> None:
    # through memory: OpenCV's own writer cannot open every path on every system
    done, data = cv2.imencode(path.suffix, pixels, options)
    if not done:
        raise OutputError(f"expected to encode {path}, but OpenCV failed; try another --size")
    path.write_bytes(data.tobytes())


def _draw(rng, height: int, width: int, fingers: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Image, mask and the number of nails to be seen, which is `fingers` unless hands hide each other."""
    if not 0 <= fingers <= 10:
        raise ValueError(f"expected 0 to 10 fingers, found {fingers}")
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 1.3)
    direction = (np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation))
    light = scene.Light(np.array(direction), rng.uniform(0.35, 0.65))
    polish = None if rng.random() < 0.2 else scene.polish_color(rng)
    skin = scene.skin_tone(rng)
    lures = [skin * 1.05] if polish is None else [polish, skin]
    picture = scene.background(rng, height, width)
    scene.scatter_objects(rng, picture, lures, light)
    hands = _hands(rng, height, width, fingers, skin, polish, light)
    nails: list[np.ndarray] = []
    for hand in hands:
        scene.cast_shadow(rng, picture, hand.cover, light)
        picture *= (1 - hand.cover)[..., None]
        picture += hand.color
        nails = [nail * (1 - hand.cover) for nail in nails] + list(hand.nails)
    mask = np.zeros((height, width), np.uint8)
    seen = 0
    for nail in nails:
        region = nail >= 0.5
        mask |= region
        seen += bool(region.sum() >= _LEAST_NAIL * height * width)
    return scene.photograph(rng, picture), mask, seen


def _hands(rng, height: int, width: int, fingers: int, skin, polish, light: scene.Light) -> list[Layer]:
    """Zero, one or two painted hands, the lower one first."""
    cloth = rng.uniform(20, 235) * rng.normal(1, 0.2, 3)
    margin = 0.04 * min(height, width)
    whole = (margin, margin, width - margin, height - margin)
    shares = [(fingers, whole)]
    if fingers > 5:
        first = int(rng.integers(fingers - 5, 6))
        axis = int(height > width)  # two hands lie along the longer side
        near, far = list(whole), list(whole)
        near[axis + 2] = far[axis] = max(width, height) / 2
        shares = [(first, near), (fingers - first, far)]
    elif fingers == 0 and rng.random() < 0.3:
        return []
    layers = []
    for number, box in shares:
        pose = "palm" if number == 0 else str(rng.choice(["back", "folded"], p=[0.7, 0.3]))
        hand = make_hand(rng, pose, _shown(rng, number))
        limbs = place(rng, hand, box, 0.42 * min(height, width), 4.5 if len(shares) == 1 else 1.8)
        layers.append(paint_hand(rng, limbs, (height, width), skin, polish, cloth, light))
    return layers


def _shown(rng: np.random.Generator, number: int) -> tuple[int, ...]:
    """Which fingers show their nail: neighbours, as hands do it; number 4 is the thumb."""
    if number == 5:
        return (0, 1, 2, 3, 4)
    thumb = number > 0 and rng.random() < 0.3
    neighbours = number - thumb
    first = int(rng.integers(0, 5 - neighbours))
    return tuple(range(first, first + neighbours)) + ((4,) if thumb else ())
