"""Writes a drawn data set in the layout of the tutorials: Images/1..4 and Masks/1..4 by number of nails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from nailseg.data.synthetic import scene
from nailseg.data.synthetic.pose import place_hand, pose_hand
from nailseg.data.synthetic.render import paint_hand
from nailseg.errors import ConfigError, OutputError

MIN_SIZE = 16
"""Smallest height and width of a drawn image, pixels."""

NAIL_COUNTS = (5, 2, 0, 6, 4, 5, 1, 6, 3, 5, 2, 6, 4, 5, 1, 6)  # in turn; 6 stands for six to ten
ASPECTS = ((1, 1), (1, 1), (1, 1.25), (1, 1), (1.25, 1), (1, 1), (1, 1.5), (0.75, 1))  # height, width
MIN_NAIL_SHARE = 0.0005  # a nail that covers less of the image is not counted as visible


def write_sample(folder: str | Path, *, count: int = 240, size: int = 256, seed: int = 0) -> list[Path]:
    """Draws a data set of hands: Images/{1..4}/NAME.jpg and Masks/{1..4}/NAME.png (0 background, 255 nail).

    The folder is the number of visible nails: 1 up to two, 2 three or four, 3 five, 4 six and more. Image
    number i depends on `seed`, `size` and i alone, so a larger set begins with the smaller one.

    Args:
        folder: Created if it does not exist; must not hold files in Images/ or Masks/.
        count: Number of images. Three and more contain one without a nail.
        size: About the shorter side of the images in pixels.
        seed: Same seed, same bytes.

    Returns:
        The images' paths in the order drawn.

    Raises:
        ConfigError: No image, fewer than 16 pixels, or a negative seed.
        OutputError: Images/ or Masks/ in `folder` already contains something.
    """
    if count < 1 or size < MIN_SIZE or seed < 0:
        raise ConfigError(
            f"--count {count}, --size {size}, --seed {seed}: expected 1 image or more, of {MIN_SIZE} pixels "
            "or more, and a seed from 0 on."
        )
    images, masks = (Path(folder) / name for name in ("Images", "Masks"))
    for target in (images, masks):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(
                f"expected {target} to be new or empty, found something in it: nothing is overwritten. Draw "
                "into another folder, or remove this one first."
            )
        for group in "1234":
            (target / group).mkdir(parents=True, exist_ok=True)
    written = []
    for number in tqdm(range(count), desc="drawing hands", unit="image", leave=False):
        rng = np.random.default_rng([seed, size, number])
        nails = NAIL_COUNTS[number % len(NAIL_COUNTS)]
        nails = int(rng.integers(6, 11)) if nails == 6 else nails
        aspect = ASPECTS[rng.integers(len(ASPECTS))]
        image, mask, visible = _draw(rng, (round(size * aspect[0]), round(size * aspect[1])), nails)
        group = "1" if visible <= 2 else "2" if visible <= 4 else "3" if visible == 5 else "4"
        written.append(images / group / f"hand_{number:05d}.jpg")
        Image.fromarray(image).save(written[-1], quality=92)
        Image.fromarray(mask * 255).save(masks / group / f"hand_{number:05d}.png")
    return written


def draw_hand(rng: np.random.Generator, size: int, nails: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one square image of one or two hands.

    Args:
        rng: Source of every choice; the same state draws the same image.
        size: Height and width in pixels; nails are at least about size / 25 wide.
        nails: Visible nails, 0..10. More than five take two hands.

    Returns:
        The image, uint8 (size, size, 3) RGB, and its mask, uint8 (size, size), 0 background and 1 nail.

    Examples:
        >>> image, mask = draw_hand(np.random.default_rng(0), size=64, nails=3)
        >>> image.shape, mask.shape, np.unique(mask).tolist()
        ((64, 64, 3), (64, 64), [0, 1])
    """
    return _draw(rng, (size, size), nails)[:2]


def _draw(rng, size: tuple[int, int], nails: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Image, mask and the number of visible nails, which is `nails` unless hands hide each other."""
    if not 0 <= nails <= 10:
        raise ValueError(f"expected 0 to 10 nails, found {nails}")
    side, light = min(size), scene.random_light(rng)
    skin = scene.random_color(rng, scene.SKIN)
    polish = None if rng.random() < 0.2 else scene.random_color(rng, scene.POLISH)
    image = scene.background(rng, size)
    scene.scatter_objects(rng, image, [skin * 1.05] if polish is None else [polish, skin], light)
    visible = np.zeros((0, *size), np.float32)
    for count, box in _hands(rng, size, nails):
        # neighbouring fingers show their nails, and perhaps the thumb, which is number 4
        fingers = count - (count == 5 or (count > 0 and rng.random() < 0.3))
        first = int(rng.integers(0, 5 - fingers))
        shown = tuple(range(first, first + fingers)) + (4,) * (count - fingers)
        pose = "palm" if count == 0 else str(rng.choice(["back", "folded"], p=[0.7, 0.3]))
        limbs = place_hand(rng, pose_hand(rng, pose, shown), box, 0.42 * side, 1.8 if nails > 5 else 4.5)
        color, cover, hand = paint_hand(rng, limbs, size, skin, polish, light)
        strength, far, blur = rng.uniform((0.1, 0.02 * side, 0.008 * side), (0.65, 0.12 * side, 0.04 * side))
        scene.cast_shadow(image, cover, light, strength, far, blur)
        image = image * (1 - cover)[..., None] + color
        visible = np.concatenate([visible * (1 - cover), hand])
    regions = visible >= 0.5
    seen = int((regions.mean((1, 2)) >= MIN_NAIL_SHARE).sum())
    return scene.photograph(rng, image), regions.any(0).astype(np.uint8), seen


def _hands(rng, size: tuple[int, int], nails: int) -> list[tuple[int, np.ndarray]]:
    """Nails and box, float (2, 2): left and top, right and bottom, of each hand, the lower one first."""
    margin, corner = 0.04 * min(size), np.array(size[::-1], float)
    whole = np.array([(margin, margin), corner - margin])
    if nails <= 5:
        return [(nails, whole)] if nails or rng.random() < 0.7 else []
    first, axis = (
        int(rng.integers(nails - 5, 6)),
        int(np.argmax(corner)),
    )  # beside each other on the longer side
    near, far = whole.copy(), whole.copy()
    near[1, axis] = far[0, axis] = corner[axis] / 2
    return [(first, near), (nails - first, far)]
