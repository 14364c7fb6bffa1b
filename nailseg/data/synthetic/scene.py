"""What surrounds the drawn hands: light, colours, backgrounds, objects like nails, shadows, the camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


def _colors(text: str) -> np.ndarray:
    return np.array([list(bytes.fromhex(color)) for color in text.split()], float)


_SKIN = _colors("f7dbc8 eec4a8 e2ac8a cc926e ac7454 86583e 62402f 442d24")
_POLISH = _colors(
    "b01020 ce1e30 780c20 e25c78 f4aab6 e8beac c48c78 3c1024 121216 f5f3ee "
    "223c82 78aadc 82ceba 286048 f6d65a f08246 aa82be 6e4c3e 96969c"
)


@dataclass(frozen=True)
class Light:
    """One lamp or window, and the rest of the room."""

    direction: np.ndarray  # float (3,), unit length, towards the light; x right, y down, z to the camera
    ambient: float  # share of the light that comes from everywhere, 0..1

    def strength(self, facing: np.ndarray) -> np.ndarray:
        """Light on a surface, from the cosine of its slope towards the lamp."""
        return self.ambient + (1 - self.ambient) / max(float(self.direction[2]), 0.6) * facing

    def halfway(self) -> list[float]:
        """The slope that mirrors the lamp into the camera, unit length."""
        half = np.add(self.direction, (0, 0, 1))
        return (half / np.linalg.norm(half)).tolist()


def skin_tone(rng: np.random.Generator) -> np.ndarray:
    """A skin colour, float (3,) RGB 0..255, light to dark equally often."""
    position = rng.uniform(0, len(_SKIN) - 1.001)
    low = int(position)
    tone = _SKIN[low] + (position - low) * (_SKIN[low + 1] - _SKIN[low])
    return tone * rng.normal(1.0, 0.02, 3)


def polish_color(rng: np.random.Generator) -> np.ndarray:
    """A colour nails are painted in, float (3,) RGB 0..255."""
    return np.clip(_POLISH[rng.integers(len(_POLISH))] * rng.normal(1, 0.08) + rng.normal(0, 8, 3), 5, 250)


def unit_vectors(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Along a step in the plane and across it, float (2,) each."""
    along = step / (np.linalg.norm(step) + 1e-9)
    return along, np.array([-along[1], along[0]])


def window_of(low: np.ndarray, high: np.ndarray, size: tuple[int, ...]):
    """A box's part of an image: its slices, and float32 x (1, W) and y (H, 1) there; None if outside."""
    left, top = np.maximum(np.floor(low).astype(int), 0)
    right, bottom = np.minimum(np.ceil(high).astype(int), size[1::-1])
    if left >= right or top >= bottom:
        return None
    x, y = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)
    return np.s_[top:bottom, left:right], x[None], y[:, None]


def fill(outline: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An outline, float (K, 2), filled in a window; anti-aliased float32 (H, W), 0..1."""
    alpha = np.zeros((y.size, x.size), np.uint8)
    corners = np.round((outline - (int(x[0, 0]), int(y[0, 0]))) * 16).astype(np.int32)
    cv2.fillPoly(alpha, [corners], 255, cv2.LINE_AA, 4)
    return alpha.astype(np.float32) / 255


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A table, cloth, wall or blurred room without a hand. float32 (height, width, 3), 0..255."""
    shares = {"plain": 0.25, "cloth": 0.22, "wood": 0.16, "lights": 0.17, "print": 0.1, "tiles": 0.1}
    kind = rng.choice(list(shares), p=list(shares.values()))
    size = height, width
    image = _gradient(rng, height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == "cloth":
        folds = sum(smooth_noise(rng, size, grain) * gain for grain, gain in ((60, 16), (25, 8), (2, 6)))
        thread = rng.uniform(1.0, 2.2)
        weave = np.sin(along * thread) * np.sin(across * thread) * rng.uniform(0, 9)
        image += (folds + weave)[..., None]
    elif kind == "wood":
        image = image * 0.35 + np.float32((150, 108, 72)) * np.float32(rng.uniform(0.35, 0.9))
        warp = smooth_noise(rng, size, 70) * 14 + along * 0.06
        image *= (1 + 0.16 * np.sin((across + warp) * rng.uniform(0.1, 0.4)))[..., None]
        image += smooth_noise(rng, size, 3)[..., None] * 4
    elif kind == "lights":
        for _ in range(int(rng.integers(8, 40))):
            center = (int(rng.integers(width)), int(rng.integers(height)))
            color = polish_color(rng) if rng.random() < 0.6 else image[center[1], center[0]] * 1.3
            cv2.circle(image, center, int(rng.integers(4, 40)), color.tolist(), -1, cv2.LINE_AA)
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(2, 12))
    elif kind == "print":
        step = rng.uniform(7, 16)
        lines = (across % step < step * 0.4) & (smooth_noise(rng, size, 4) > -0.3)
        image = image * 0.2 + 190 - lines[..., None] * np.float32(rng.uniform(40, 150))
    elif kind == "tiles":
        step = rng.uniform(18, 70)
        checks = ((along // step + across // step) % 2) * (rng.random() < 0.5)
        seams = (along % step < 2) | (across % step < 2)
        image += (checks * rng.uniform(-50, 50) - seams * rng.uniform(10, 60))[..., None]
    return np.clip(image, 0, 255).astype(np.float32)


def scatter_objects(rng: np.random.Generator, image: np.ndarray, lures: list[np.ndarray], light: Light):
    """Puts sweets, petals, buttons and bottles about, many in the colours of skin and polish. In place."""
    height, width = image.shape[:2]
    size = min(height, width)
    for _ in range(int(rng.choice([0, 1, 4], p=[0.45, 0.35, 0.2]) + rng.integers(0, 2))):
        color = lures[rng.integers(len(lures))] if rng.random() < 0.5 else polish_color(rng)
        center = rng.uniform(0, 1, 2) * (width, height)
        radius = size * rng.uniform(0.02, 0.09)
        stretch = rng.choice([1.0, rng.uniform(0.35, 0.9)])
        kind = rng.choice(["oval", "box", "petal"], p=[0.5, 0.3, 0.2])
        if rng.random() < 0.12:  # a bottle, a book, a cushion
            radius, kind = size * rng.uniform(0.15, 0.35), "box"
        angle = rng.uniform(0, np.pi)
        _object(rng, image, kind, center, radius, stretch, angle, color * rng.normal(1, 0.08), light)


def _object(rng, image, kind: str, center, radius: float, stretch: float, angle: float, color, light: Light):
    """One shaded thing with a shadow and perhaps a highlight."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    squareness = rng.uniform(0.15, 0.45)
    power = squareness if kind == "box" else 1.0
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** power * radius
    y = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** power * radius * stretch
    if kind == "petal":
        y *= 1 - 0.6 * (x / radius)
    points = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], 1)
    reach = int(radius * 1.8) + 4
    found = window_of(np.floor(center) - reach, np.floor(center) + reach, image.shape)
    if found is None:
        return
    window, x, y = found
    alpha = fill(points + center, x, y)
    body = cv2.GaussianBlur(alpha, (0, 0), max(radius * stretch * 0.4, 1.0))
    dx, dy = (cv2.Sobel(body, cv2.CV_32F, i, 1 - i, ksize=3, scale=radius * stretch / 8) for i in (1, 0))
    lx, ly, lz = light.direction.tolist()
    facing = (lz - dx * lx - dy * ly) / np.sqrt(dx * dx + dy * dy + 1)
    shade = light.ambient + (1 - light.ambient) * np.clip(facing, 0, 1) / max(lz, 0.6)
    offset = np.float32([[1, 0, -lx * radius * 0.35], [0, 1, -ly * radius * 0.35]])
    shadow = cv2.warpAffine(cv2.GaussianBlur(alpha, (0, 0), radius * 0.2 + 0.5), offset, alpha.shape[::-1])
    target = image[window]
    target *= (1 - 0.4 * shadow * (1 - alpha))[..., None]
    shiny = np.clip((facing - 0.93) / 0.07, 0, 1) * rng.choice([0, 60, 120])
    target += alpha[..., None] * (np.clip(color, 0, 255) * shade[..., None] + shiny[..., None] - target)


def cast_shadow(rng: np.random.Generator, image: np.ndarray, cover: np.ndarray, light: Light) -> None:
    """Darkens the image where a hand of this cover keeps the light away. In place."""
    size = min(cover.shape)
    far = size * rng.uniform(0.02, 0.12)
    offset = np.float32([[1, 0, -light.direction[0] * far], [0, 1, -light.direction[1] * far]])
    soft = cv2.GaussianBlur(cover, (0, 0), size * rng.uniform(0.008, 0.04))
    shadow = cv2.warpAffine(soft, offset, cover.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    image *= (1 - shadow * np.float32(rng.uniform(0.1, 0.65)))[..., None]


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Uneven light, exposure, colour cast, blur and noise of a camera. uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j].astype(np.float32)
    slope = rng.normal(0, 0.22, 2)
    field = 1 + slope[0] * x + slope[1] * y - rng.uniform(0, 0.5) * (x * x + y * y)
    if rng.random() < 0.15:  # the shadow of a window frame or a leaf across everything
        angle = rng.uniform(0, np.pi)
        edge = (x * np.cos(angle) + y * np.sin(angle) - rng.uniform(-0.3, 0.3)) * rng.uniform(8, 60)
        field *= 1 - rng.uniform(0.2, 0.45) * np.clip(edge + 0.5, 0, 1)
    gain = np.clip(rng.normal(0.95, 0.12), 0.6, 1.2) * rng.normal(1, 0.04, 3)
    image = image * field[..., None] * np.float32(gain)
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.1))
    grain = rng.standard_normal((height, width, 3), np.float32)
    image += grain * np.float32(rng.gamma(2.0, 1.8))
    contrast = rng.uniform(0.85, 1.15)
    image = (image - 118) * contrast + 118
    # highlights are compressed rather than cut off, as in every camera
    image = np.where(image > 200, 255 - 55 * np.exp((200 - image) / 55), image)
    if rng.random() < 0.03:
        image[:] = image.mean(axis=2, keepdims=True)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], grain: float) -> np.ndarray:
    """Smooth noise of about unit variance, float32 (H, W), with features `grain` pixels wide."""
    rows, columns = (max(2, int(np.ceil(side / grain)) + 1) for side in size)
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    return cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)


def _gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Four corner colours, near each other, blended; float32 (H, W, 3)."""
    grey = rng.uniform(25, 240)
    base = grey * rng.normal(1, 0.05, 3) if rng.random() < 0.55 else rng.uniform(20, 235, 3)
    corners = (base + rng.normal(0, 16, (2, 2, 1)) + rng.normal(0, 8, (2, 2, 3))).astype(np.float32)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
