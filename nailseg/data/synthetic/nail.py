"""Paints the nails of a drawn hand: outline, polish or bare plate, reflections."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nailseg.data.synthetic.hand import Limb, Nail
from nailseg.data.synthetic.scene import Light, fill, polish_color, unit_vectors, window_of


@dataclass(frozen=True)
class Canvas:
    """A hand in the making, all arrays of one height and width."""

    color: np.ndarray  # float32 (H, W, 3), RGB, 0..255
    cover: np.ndarray  # float32 (H, W), 0..1, how much of a pixel the hand fills
    depth: np.ndarray  # float32 (H, W), height of the surface in pixels
    owner: np.ndarray  # int16 (H, W), number of the limb in front, -1 for none


class Manicure:
    """What the nails of one hand have in common: colour, gloss, pattern."""

    def __init__(self, rng: np.random.Generator, skin: np.ndarray, polish: np.ndarray | None) -> None:
        """Chooses a manicure for a skin and a polish (RGB); None paints no polish, only a pinker skin."""
        self.bare = polish is None
        pink = np.clip(skin * (1.04, 0.95, 0.95) + (14, 6, 10), 0, 255)
        self.base = pink if polish is None else polish
        self.accent = polish_color(rng) if not self.bare and rng.random() < 0.2 else None
        self.edge = np.array([240, 234, 222]) * (0.55 + 0.45 * min(skin.mean() / 200, 1))
        french = rng.random() < (0.8 if self.bare else 0.08)
        self.white_tip = rng.uniform(0.45, 0.95) if french else 0.0
        self.moon = rng.uniform(0, 0.3) if self.bare else 0.0
        self.ridges = rng.uniform(18, 30) if self.bare and rng.random() < 0.5 else 0.0
        polished = rng.choice([0.05, 0.5, 0.9]) * rng.uniform(0.6, 1.1)
        self.gloss = rng.uniform(0.05, 0.45) if self.bare else polished
        self.glitter = rng.uniform(0.1, 0.35) if not self.bare and rng.random() < 0.12 else 0.0
        self.streak_at, self.streak_width = rng.uniform(-0.15, 0.15), rng.uniform(0.08, 0.2)
        self.streak_ends = rng.uniform(0.1, 0.35), rng.uniform(0.6, 0.9)


def paint_nail(rng, canvas: Canvas, limb: Limb, number: int, manicure: Manicure, light: Light) -> np.ndarray:
    """Paints the nail of limb `number` into the canvas; returns what is seen of it, float32 (H, W), 0..1."""
    nail = limb.nail
    assert nail is not None
    radius = float(limb.radii[-2])
    along, side = unit_vectors(limb.points[-1] - limb.points[-2])
    tilt = max(limb.tilt, 0.45)
    root = limb.points[-1] + along * (limb.radii[-1] * 0.92 - nail.bed * tilt)
    outline = root + _outline(nail, radius, tilt) @ np.stack([along, side])
    seen = np.zeros(canvas.cover.shape, np.float32)
    found = window_of(outline.min(0) - 4, outline.max(0) + 5, seen.shape)
    if found is None:
        return seen
    window, x, y = found
    alpha = fill(outline, x, y)
    # other fingers may be in front of it, its own never
    alpha *= (canvas.owner[window] == number) | (canvas.depth[window] < limb.z[-1] + limb.radii[-1])
    x, y = x - np.float32(root[0]), y - np.float32(root[1])
    u = (x * np.float32(along[0]) + y * np.float32(along[1])) / np.float32((nail.bed + nail.free) * tilt)
    v = np.clip((x * np.float32(side[0]) + y * np.float32(side[1])) / np.float32(radius), -0.98, 0.98)
    paint = _plate_color(rng, manicure, u, v, nail)
    _reflect(paint, manicure, u, v, along, side, nail.roll, light)
    # the fold of skin around a nail lies in shadow, and the rim of the plate is a little darker
    rim = cv2.GaussianBlur(alpha, (0, 0), max(0.07 * radius, 0.8))
    skin = canvas.color[window] * (1 - 0.3 * np.clip(1.6 * rim, 0, 1) * (1 - alpha))[..., None]
    paint *= (0.75 + 0.5 * np.clip(rim - 0.5, 0, 0.5))[..., None]
    canvas.color[window] = skin + alpha[..., None] * (paint - skin)
    canvas.cover[window] = np.maximum(canvas.cover[window], alpha)
    seen[window] = alpha
    return seen


def _outline(nail: Nail, radius: float, tilt: float) -> np.ndarray:
    """Corners of the nail as seen, float (K, 2): along the finger from the nail's root, and across it."""
    u = np.linspace(0, nail.bed + nail.free, 28)
    # the plate lies on a barrel: its flat width becomes an angle around the finger's axis
    angle = _half_width(nail, u) / (radius * 1.04)
    across = [radius * np.sin(np.clip(nail.roll + sign * angle, -1.5, 1.5)) for sign in (-1, 1)]
    return np.concatenate([np.stack([u * tilt, across[0]], 1), np.stack([u * tilt, across[1]], 1)[::-1]])


def _half_width(nail: Nail, u: np.ndarray) -> np.ndarray:
    """Half the width of the flat nail at the distances `u` from its root."""
    total, half = nail.bed + nail.free, nail.width / 2
    start = np.sqrt(1 - np.clip(1 - u / (0.85 * half), 0, 1) ** 2.4)
    sides = 0.94 + 0.06 * np.clip(u / nail.bed, 0, 1)
    length = {"round": 1.0, "square": 0.22, "almond": 2.2, "coffin": 2.0}[nail.shape] * half
    length = min(length, 0.55 * total)
    s = np.clip((u - (total - length)) / length, 0, 1)
    if nail.shape == "coffin":
        end = 1 - 0.45 * s
    elif nail.shape == "square":
        end = 0.8 + 0.2 * np.sqrt(1 - s**2.5)
    elif nail.shape == "almond":
        end = (1 - s**1.8) ** 0.62
    else:
        end = np.sqrt(1 - s**2.1)
    return half * start * sides * end


def _plate_color(rng, manicure: Manicure, u: np.ndarray, v: np.ndarray, nail: Nail) -> np.ndarray:
    """Colour before light at `u` (0 root .. 1 tip) and `v` (-1 .. 1 across the finger), float32 (H, W, 3)."""
    accent = manicure.accent is not None and rng.random() < 0.3
    base = (manicure.accent if accent else manicure.base) * rng.normal(1, 0.02)
    paint = np.full((*u.shape, 3), base, np.float32)
    if manicure.ridges:
        paint *= (1 + 0.03 * np.sin(v * manicure.ridges))[..., None]
    if manicure.moon:
        moon = np.clip((0.2 - np.hypot(u, v * 0.3)) / 0.06, 0, 1) * np.float32(manicure.moon)
        paint += moon[..., None] * (np.float32(manicure.edge) - paint)
    if manicure.white_tip:
        line = nail.bed / (nail.bed + nail.free) - 0.05
        tip = np.clip((u + 0.12 * v * v - line) / 0.05, 0, 1) * np.float32(manicure.white_tip)
        paint += tip[..., None] * (np.float32(manicure.edge) - paint)
    if manicure.glitter:
        sparks = rng.random(u.shape, np.float32) ** 6
        paint += (500 * manicure.glitter * (sparks - 0.1))[..., None]
    return paint


def _reflect(paint, manicure: Manicure, u, v, along, side, roll: float, light: Light) -> None:
    """Multiplies the plate by the light on its curve and adds what it mirrors. In place."""
    slope = 0.35 * (u - 0.35)
    nx, ny = (v * np.float32(0.8 * s) + slope * np.float32(a) for s, a in zip(side, along, strict=True))
    nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0.05, 1))
    lx, ly, lz = light.direction.tolist()
    paint *= light.strength(np.clip(nx * lx + ny * ly + nz * lz, 0, 1))[..., None]
    hx, hy, hz = light.halfway()
    spot = np.clip(nx * hx + ny * hy + nz * hz, 0, 1) ** 60
    # a window is mirrored as a streak along the nail, on the side the light comes from
    at = 0.35 * float(light.direction[:2] @ side) + manicure.streak_at + 0.55 * float(np.sin(roll))
    begin, stop = manicure.streak_ends
    ends = np.clip((u - begin) / 0.08 + 0.5, 0, 1) * np.clip((stop - u) / 0.08 + 0.5, 0, 1)
    streak = np.exp(-(((v - at) / manicure.streak_width) ** 2)) * ends
    paint += ((0.7 * streak + 0.35 * spot) * (190 * manicure.gloss))[..., None]
