"""Draws images of hands, and writes them as a data set in the layout of the tutorials."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from nailseg.data.mask_encoding import encode_mask
from nailseg.data.synthetic.hand import Light, fill, paint_hand, place_hand, pose_hand, smooth_noise
from nailseg.errors import ConfigError, OutputError

SKIN = ("f7dbc8", "eec4a8", "e2ac8a", "cc926e", "ac7454", "86583e", "62402f", "442d24")
POLISH = ("b01020", "ce1e30", "780c20", "e25c78", "f4aab6", "e8beac", "c48c78", "3c1024", "121216", "f5f3ee")
POLISH += ("223c82", "78aadc", "82ceba", "286048", "f6d65a", "f08246", "aa82be", "6e4c3e", "96969c")
MIN_SIZE = 16  # pixels
NAIL_COUNTS = (5, 2, 0, 6, 4, 5, 1, 6, 3, 5, 2, 6, 4, 5, 1, 6)  # in turn; 6 stands for six to ten
ASPECTS = ((1, 1), (1, 1), (1, 1.25), (1, 1), (1.25, 1), (1, 1), (1, 1.5), (0.75, 1))  # height, width
MIN_NAIL_SHARE = 0.0005  # a nail that covers less of the image is not counted as visible


def write_sample(folder: str | Path, /, *, count: int = 240, size: int = 256, seed: int = 0) -> list[Path]:
    """Draws a data set of hands: Images/{1..4}/NAME.jpg and Masks/{1..4}/NAME.png (0 background, 255 nail).

    The folder is the number of visible nails: 1 up to two, 2 three or four, 3 five, 4 six and more. Image
    number i depends on `seed`, `size` and i alone, so a larger set begins with the smaller one.

    Args:
        folder: Folder to write to; its Images/ and Masks/ must be empty or absent.
        count: Number of images; of three or more, at least one shows no nail.
        size: Approximate shorter side of the images in pixels.
        seed: Seed of the drawing; the same seed gives the same files.

    Returns:
        The images' paths in the order drawn.

    Raises:
        ConfigError: No image, fewer than 16 pixels, or a negative seed.
        OutputError: Images/ or Masks/ in `folder` already contains something.
    """
    if count < 1 or size < MIN_SIZE or seed < 0:
        expected = f"expected 1 image or more, of {MIN_SIZE} pixels or more, and a seed from 0 on"
        raise ConfigError(f"--count {count}, --size {size}, --seed {seed}: {expected}.")
    images, masks = (Path(folder) / name for name in ("Images", "Masks"))
    for target in (images, masks):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"expected {target} to be new or empty, found files. Choose another folder.")
    for target in (images, masks):
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
        Image.fromarray(encode_mask(mask, 2)).save(masks / group / f"hand_{number:05d}.png")
    return written


def draw_hand(rng: np.random.Generator, size: int, nails: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one square image of one or two hands.

    Args:
        rng: Source of every choice; the same state draws the same image.
        size: Height and width in pixels; nails are at least about size / 25 wide.
        nails: Visible nails, 0..10. More than five take two hands.

    Returns:
        The image, uint8 (size, size, 3) RGB, and its mask, uint8 (size, size), 0 background and 1 nail.

    >>> image, mask = draw_hand(np.random.default_rng(0), size=64, nails=3)
    >>> image.shape, mask.shape, np.unique(mask).tolist()
    ((64, 64, 3), (64, 64), [0, 1])
    """
    return _draw(rng, (size, size), nails)[:2]


def _draw(rng, size: tuple[int, int], nails: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Image, mask and the number of visible nails, which is `nails` unless hands hide each other."""
    if not 0 <= nails <= 10:
        raise ValueError(f"expected 0 to 10 nails, found {nails}")
    side, light = min(size), Light(rng)
    skin = random_color(rng, SKIN)
    polish = None if rng.random() < 0.2 else random_color(rng, POLISH)
    image = background(rng, size)
    scatter_objects(rng, image, [skin * 1.05] if polish is None else [polish, skin], light)
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
        cast_shadow(image, cover, light, strength, far, blur)
        image = image * (1 - cover)[..., None] + color
        visible = np.concatenate([visible * (1 - cover), hand])
    regions = visible >= 0.5
    seen = int((regions.mean((1, 2)) >= MIN_NAIL_SHARE).sum())
    return photograph(rng, image), regions.any(0).astype(np.uint8), seen


def _hands(rng, size: tuple[int, int], nails: int) -> list[tuple[int, np.ndarray]]:
    """Nails and box, float (2, 2): left and top, right and bottom, of each hand, the lower one first."""
    margin, corner = 0.04 * min(size), np.array(size[::-1], float)
    whole = np.array([(margin, margin), corner - margin])
    if nails <= 5:
        return [(nails, whole)] if nails or rng.random() < 0.7 else []
    first, longer = int(rng.integers(nails - 5, 6)), int(np.argmax(corner))
    near, far = whole.copy(), whole.copy()  # beside each other on the longer side
    near[1, longer] = far[0, longer] = corner[longer] / 2
    return [(first, near), (nails - first, far)]


def random_color(rng: np.random.Generator, palette: tuple[str, ...]) -> np.ndarray:
    """A colour near one of `SKIN` or `POLISH`, float (3,) RGB, 0..255."""
    color = np.array(list(bytes.fromhex(palette[rng.integers(len(palette))])), float)
    return np.clip(color * rng.normal(1, 0.06) + rng.normal(0, 6, 3), 5, 250)


def background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A table, cloth, wall or blurred interior of `size` (H, W), float32 (H, W, 3), 0..255."""
    base = rng.uniform(25, 240) * rng.normal(1, 0.05, 3) if rng.random() < 0.55 else rng.uniform(20, 235, 3)
    corners = (base + rng.normal(0, 16, (2, 2, 1)) + rng.normal(0, 8, (2, 2, 3))).astype(np.float32)
    image = cv2.resize(corners, size[::-1], interpolation=cv2.INTER_LINEAR)
    y, x = np.indices(size, np.float32)
    angle, step = rng.uniform(0, np.pi), rng.uniform(18, 70)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = rng.choice(["plain", "cloth", "wood", "lights", "tiles"], p=[0.25, 0.22, 0.16, 0.17, 0.2])
    if kind == "cloth":
        image += sum(smooth_noise(rng, size, g) * gain for g, gain in ((60, 16), (25, 8), (2, 6)))[..., None]
    elif kind == "wood":
        rings = np.sin((across + smooth_noise(rng, size, 70) * 14 + along * 0.06) * rng.uniform(0.1, 0.4))
        image = image * 0.35 + np.float32((150, 108, 72)) * rng.uniform(0.35, 0.9)
        image *= 1 + 0.16 * rings[..., None]
    elif kind == "lights":
        for _ in range(int(rng.integers(8, 40))):
            center, radius = rng.integers(size[::-1]).tolist(), int(rng.integers(4, 40))
            cv2.circle(image, center, radius, random_color(rng, POLISH).tolist(), -1, cv2.LINE_AA)
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(2, 12))
    elif kind == "tiles":
        checks = ((along // step + across // step) % 2) * rng.choice([0, rng.uniform(-50, 50)])
        seams = ((along % step < 2) | (across % step < 2)) * rng.uniform(10, 60)
        image += (checks - seams)[..., None]
    return np.clip(image, 0, 255).astype(np.float32)


def scatter_objects(rng, image: np.ndarray, colors: list[np.ndarray], light: Light) -> None:
    """Draws sweets, buttons and boxes, half of them in one of `colors`. Changes the image in place."""
    size, t = image.shape[:2], np.linspace(0, 2 * np.pi, 40, endpoint=False)
    for _ in range(int(rng.choice([0, 1, 4], p=[0.45, 0.35, 0.2]) + rng.integers(0, 2))):
        color = colors[rng.integers(len(colors))] if rng.random() < 0.5 else random_color(rng, POLISH)
        radius = min(size) * (rng.uniform(0.15, 0.35) if rng.random() < 0.12 else rng.uniform(0.02, 0.09))
        power, turn = rng.choice([1.0, rng.uniform(0.15, 0.45)]), rng.uniform(0, np.pi)
        # a superellipse: an oval or a rounded box
        u, v = (np.sign(f(t)) * np.abs(f(t)) ** power * radius for f in (np.cos, np.sin))
        points = np.stack([u, v * rng.choice([1.0, rng.uniform(0.35, 0.9)])], 1)
        points = points @ [(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))]
        alpha = fill(points + rng.uniform(0, size[::-1]), size)
        body = cv2.GaussianBlur(alpha, (0, 0), max(radius * 0.3, 1.0))
        cosine = light.cosine(*(cv2.Sobel(body, cv2.CV_32F, i, 1 - i, scale=radius / 12) for i in (1, 0)))
        shine = np.clip((cosine - 0.93) / 0.07, 0, 1) * rng.choice([0, 60, 120])
        cast_shadow(image, alpha, light, 0.4, radius * 0.35, radius * 0.2 + 0.5)
        image += alpha[..., None] * (color * light.strength(cosine)[..., None] + shine[..., None] - image)


def cast_shadow(image, cover: np.ndarray, light: Light, strength: float, far: float, blur: float) -> None:
    """Darkens an image, float32 (H, W, 3), in place where `cover`, float32 (H, W), keeps the light away."""
    offset = np.float32([[1, 0, -light.direction[0] * far], [0, 1, -light.direction[1] * far]])
    soft = cv2.GaussianBlur(cover, (0, 0), blur)
    shadow = cv2.warpAffine(soft, offset, cover.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    image *= (1 - np.float32(strength) * shadow)[..., None]


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Uneven light, exposure, colour cast, blur and noise of a camera. uint8 (H, W, 3)."""
    y, x = np.mgrid[-0.5 : 0.5 : image.shape[0] * 1j, -0.5 : 0.5 : image.shape[1] * 1j].astype(np.float32)
    across, down = rng.normal(0, 0.22, 2)
    field = 1 + across * x + down * y - rng.uniform(0, 0.5) * (x * x + y * y)
    gain = np.clip(rng.normal(0.95, 0.12), 0.6, 1.2) * rng.normal(1, 0.04, 3)
    image = (image * field[..., None] * gain).astype(np.float32)
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.1))
    image += rng.standard_normal(image.shape, np.float32) * np.float32(rng.gamma(2.0, 1.8))
    image = (image - 118) * rng.uniform(0.85, 1.15) + 118
    # highlights are compressed rather than cut off, as in every camera
    image = np.where(image > 200, 255 - 55 * np.exp((200 - np.maximum(image, 200)) / 55), image)
    if rng.random() < 0.03:
        image[:] = image.mean(axis=2, keepdims=True)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)
