"""What surrounds the drawn hands: light, colours, background, objects that look like nails, camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SKIN = ("f7dbc8", "eec4a8", "e2ac8a", "cc926e", "ac7454", "86583e", "62402f", "442d24")
POLISH = ("b01020", "ce1e30", "780c20", "e25c78", "f4aab6", "e8beac", "c48c78", "3c1024", "121216", "f5f3ee")
POLISH += ("223c82", "78aadc", "82ceba", "286048", "f6d65a", "f08246", "aa82be", "6e4c3e", "96969c")


@dataclass(frozen=True)
class Light:
    """One lamp or window, and diffuse light."""

    direction: np.ndarray  # float (3,), unit length, towards the light; x right, y down, z to the camera
    ambient: float  # share of the light that comes from everywhere, 0..1

    def strength(self, cosine: np.ndarray) -> np.ndarray:
        """Light on a surface, from the cosine between its normal and the lamp."""
        return self.ambient + np.float32((1 - self.ambient) / max(self.direction[2], 0.6)) * cosine

    def cosine(self, dx: np.ndarray, dy: np.ndarray, mirrored: bool = False) -> np.ndarray:
        """Cosine of a surface's normal with the lamp or, `mirrored`, Blinn's half vector; float32, 0..1."""
        towards = self.direction + np.array([0, 0, mirrored])
        x, y, z = towards / np.linalg.norm(towards)
        return np.clip((z - dx * x - dy * y) / np.sqrt(dx * dx + dy * dy + 1), 0, 1).astype(np.float32)


def random_light(rng: np.random.Generator) -> Light:
    """A light in front of the image plane."""
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 1.3)
    flat = np.cos(elevation) * np.array([np.cos(azimuth), np.sin(azimuth)])
    return Light(np.array([*flat, np.sin(elevation)]), rng.uniform(0.35, 0.65))


def random_color(rng: np.random.Generator, palette: tuple[str, ...]) -> np.ndarray:
    """A colour near one of `SKIN` or `POLISH`, float (3,) RGB, 0..255."""
    color = np.array(list(bytes.fromhex(palette[rng.integers(len(palette))])), float)
    return np.clip(color * rng.normal(1, 0.06) + rng.normal(0, 6, 3), 5, 250)


def window(low: np.ndarray, high: np.ndarray, size: tuple[int, ...]):
    """A box's part of an image, which may be empty: its slices, and x (1, W) and y (H, 1) there."""
    low, high = np.clip([np.floor(low), np.ceil(high)], 0, size[::-1]).astype(int)
    part = np.s_[low[1] : high[1], low[0] : high[0]]
    y, x = np.ogrid[part]
    return part, x, y


def fill(outline: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An outline, float (K, 2), filled in a window; antialiased float32 (H, W), 0..1."""
    alpha = np.zeros((y.size, x.size), np.uint8)
    corners = np.round((outline - (x[0, 0], y[0, 0])) * 16).astype(np.int32)
    return cv2.fillPoly(alpha, [corners], 255, cv2.LINE_AA, 4).astype(np.float32) / 255


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], grain: float) -> np.ndarray:
    """Smooth noise of about unit variance, float32 (H, W), with features `grain` pixels wide."""
    coarse = rng.standard_normal([max(3, int(side / grain) + 2) for side in size]).astype(np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


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
        brown = np.float32((150, 108, 72)) * rng.uniform(0.35, 0.9)
        image = (image * 0.35 + brown) * (1 + 0.16 * rings[..., None])
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
    size, t = min(image.shape[:2]), np.linspace(0, 2 * np.pi, 40, endpoint=False)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    for _ in range(int(rng.choice([0, 1, 4], p=[0.45, 0.35, 0.2]) + rng.integers(0, 2))):
        color = colors[rng.integers(len(colors))] if rng.random() < 0.5 else random_color(rng, POLISH)
        radius = size * (rng.uniform(0.15, 0.35) if rng.random() < 0.12 else rng.uniform(0.02, 0.09))
        power, turn = rng.choice([1.0, rng.uniform(0.15, 0.45)]), rng.uniform(0, np.pi)
        # a superellipse: an oval or a rounded box
        u, v = (np.sign(f(t)) * np.abs(f(t)) ** power * radius for f in (np.cos, np.sin))
        points = np.stack([u, v * rng.choice([1.0, rng.uniform(0.35, 0.9)])], 1)
        points = points @ [(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))]
        alpha = fill(points + rng.uniform(0, image.shape[1::-1]), x, y)
        body = cv2.GaussianBlur(alpha, (0, 0), max(radius * 0.3, 1.0))
        slopes = [cv2.Sobel(body, cv2.CV_32F, i, 1 - i, ksize=3, scale=radius / 12) for i in (1, 0)]
        cosine = light.cosine(*slopes)
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
