"""Paints one posed hand at twice the final size: a height map shaded as skin, with the nails on top."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from nailseg.data.synthetic.pose import Limb, Nail
from nailseg.data.synthetic.scene import Light, fill, smooth_noise, window

OVERSAMPLING = 2
NAIL_SHAPES = {  # length of the tip in half widths; share of the width at s, 0 (start of the tip) .. 1 (end)
    "round": (1.0, lambda s: np.sqrt(1 - s**2.1)),
    "square": (0.22, lambda s: 0.8 + 0.2 * np.sqrt(1 - s**2.5)),
    "almond": (2.2, lambda s: (1 - s**1.8) ** 0.62),
    "coffin": (2.0, lambda s: 1 - 0.45 * s),
}


def paint_hand(rng, limbs: list[Limb], size: tuple[int, int], skin, polish, light: Light):
    """Paints a hand into an image of `size` (H, W); colours are RGB, `polish` None leaves nails bare.

    Returns:
        The colour, float32 (H, W, 3), 0..255, multiplied by the cover; the cover, float32 (H, W), 0..1; and
        the visible part of each nail, float32 (K, H, W), 0..1.
    """
    limbs = [replace(b, points=b.points * OVERSAMPLING, radii=b.radii * OVERSAMPLING) for b in limbs]
    height, owner = _height_map(limbs, (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING))
    unit = max(float(np.median([limb.radii[0] for limb in limbs if limb.is_finger])), 4.0)
    color = _skin(rng, limbs, owner.shape, skin, unit)
    _shade(rng, color, height, unit, light)
    # corners between limbs are rounded as skin is; the edge stays two pixels soft
    soft = cv2.GaussianBlur((owner >= 0).astype(np.float32), (0, 0), 0.22 * unit)
    cover = np.clip((soft - 0.5) * np.float32(0.275 * unit) + 0.5, 0, 1)
    bare = polish is None
    base = np.clip(skin * (1.04, 0.95, 0.95) + (14, 6, 10), 0, 255) if bare else polish
    white = rng.uniform(0.45, 0.95) * (rng.random() < (0.8 if bare else 0.08))  # how white the free edge is
    gloss = rng.uniform(0.05, 0.45) if bare else rng.choice([0.05, 0.5, 0.9])
    nails = []
    for number, limb in enumerate(limbs):
        if limb.nail:  # other fingers may cover the nail, its own never does
            free = (owner == number) | (height < limb.points[-1, 2] + limb.radii[-1])
            nails.append(_paint_nail(color, free, limb, base * rng.normal(1, 0.02), white, gloss, light))
            np.maximum(cover, nails[-1], out=cover)
    large = (color * cover[..., None], cover, *nails)
    painted, cover, *nails = (cv2.resize(a, size[::-1], interpolation=cv2.INTER_AREA) for a in large)
    return painted, cover, np.array(nails, np.float32).reshape(-1, *size)


def _height_map(limbs: list[Limb], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Height of the nearest surface, float32 (H, W), and the index of its limb, int16 (H, W), -1 for none."""
    height, owner = np.full(size, -1e4, np.float32), np.full(size, -1, np.int16)
    cones = [(n, limb, k) for n, limb in enumerate(limbs) for k in range(len(limb.radii) - 1)]
    for number, limb, k in cones:
        (start, stop), (r0, r1) = limb.points[k : k + 2], limb.radii[k : k + 2]
        reach = max(r0, r1) + 1
        part, x, y = window(np.minimum(start, stop)[:2] - reach, np.maximum(start, stop)[:2] + reach, size)
        x, y, (dx, dy, dz) = x - start[0], y - start[1], stop - start
        t = np.clip((x * dx + y * dy) / (dx * dx + dy * dy + 1e-6), 0, 1)  # along the axis of a round cone
        inside = (r0 + t * (r1 - r0)) ** 2 - (x - t * dx) ** 2 - (y - t * dy) ** 2
        surface = start[2] + t * dz + 0.8 * np.sqrt(np.maximum(inside, 0))
        higher = (inside > 0) & (surface > height[part])
        height[part][higher], owner[part][higher] = surface[higher], number
    height[owner < 0] = height[owner >= 0].min(initial=0.0)
    return height, owner


def _skin(rng, limbs: list[Limb], size: tuple[int, int], skin, unit: float) -> np.ndarray:
    """Colour before light: grain, blotches, redder joints and tips. float32 (H, W, 3)."""
    red = np.zeros(size, np.float32)
    for limb in limbs:
        for k in range(2, len(limb.radii), 2) if limb.is_finger else ():
            cv2.circle(red, limb.points[k, :2].astype(int).tolist(), int(limb.radii[k]), 0.8, -1)
    red = cv2.GaussianBlur(red, (0, 0), 0.56 * unit) + smooth_noise(rng, size, 1.5 * unit) * 0.35
    tint = np.float32([-0.015, -0.07, -0.065]) * np.float32(rng.uniform(0.5, 1.5))
    return np.float32(skin) * (1 + 0.012 * smooth_noise(rng, size, 2.2)[..., None] + red[..., None] * tint)


def _shade(rng, color: np.ndarray, surface: np.ndarray, unit: float, light: Light) -> None:
    """Light on skin: slopes, dark gaps between fingers, a soft sheen. Changes `color` in place."""
    smooth = cv2.GaussianBlur(surface, (0, 0), max(0.13 * unit, 1.0))
    slope = np.stack([cv2.Sobel(smooth, cv2.CV_32F, i, 1 - i, ksize=3, scale=1 / 8) for i in (1, 0)])
    slope /= np.maximum(1, np.hypot(*slope) / 1.3)  # the outline is no cliff: it would get a dark rim
    around = cv2.blur(smooth, (int(2 * unit) | 1,) * 2)
    gap = np.clip(1 - np.clip(around - smooth, 0, None) * np.float32(0.55 / unit), 0.4, 1)
    # light that enters skin comes back red, so shadows keep more of it
    color *= (light.strength(light.cosine(*slope)) * gap)[..., None] ** np.float32([0.85, 1.05, 1.12])
    color += (light.cosine(*slope, mirrored=True) ** 16 * gap * np.float32(rng.uniform(4, 34)))[..., None]


def _paint_nail(color, free, limb: Limb, base, white: float, gloss: float, light: Light) -> np.ndarray:
    """Paints a nail where `free`, bool (H, W), into `color`; returns its visible share, float32 (H, W)."""
    visible = np.zeros(free.shape, np.float32)
    nail, radius, step = limb.nail, limb.radii[-2], limb.points[-1] - limb.points[-3]
    flat = np.linalg.norm(step[:2]) + 1e-9
    along, tilt = step[:2] / flat, max(flat / np.hypot(flat, step[2] / 0.7), 0.45)
    side = np.array([-along[1], along[0]])
    bed, total = (length * radius * tilt for length in (nail.bed, nail.bed + nail.free))
    root = limb.points[-1, :2] + along * (limb.radii[-1] * 0.92 - bed)
    outline = root + radius * _outline(nail) * (tilt, 1) @ np.stack([along, side])
    part, x, y = window(outline.min(0) - 4, outline.max(0) + 5, visible.shape)
    if not (x.size and y.size):
        return visible
    alpha = fill(outline, x, y) * free[part]
    x, y = x - root[0], y - root[1]
    u = ((x * along[0] + y * along[1]) / total).astype(np.float32)  # 0 root .. 1 tip
    v = np.clip((x * side[0] + y * side[1]) / radius, -0.98, 0.98).astype(np.float32)  # -1 .. 1 across
    edge = (white * np.clip((u + 0.12 * v * v - bed / total + 0.05) / 0.05, 0, 1))[..., None]
    paint = base + edge * (np.float32([240, 234, 222]) * min(0.55 + base.mean() / 400, 1) - base)
    # the plate is curved; a window is mirrored as a streak along it, on the side of the light
    slope = [-(0.8 * v * s + 0.35 * (u - 0.35) * a) for s, a in zip(side, along, strict=True)]
    at = 0.35 * light.direction[:2] @ side + 0.55 * np.sin(nail.roll)
    streak = np.exp(-(((v - at) / 0.14) ** 2)) * np.clip(4 - np.abs(u - 0.5) * 12, 0, 1)
    mirror = 0.7 * streak + 0.35 * light.cosine(*slope, mirrored=True) ** 60
    paint = paint * light.strength(light.cosine(*slope))[..., None] + (190 * gloss * mirror)[..., None]
    # the fold of skin around a nail lies in shadow, and the rim of the plate is a little darker
    rim = cv2.GaussianBlur(alpha, (0, 0), max(0.07 * radius, 0.8))
    skin = color[part] * (1 - 0.3 * np.clip(1.6 * rim, 0, 1) * (1 - alpha))[..., None]
    paint *= (0.75 + 0.5 * np.clip(rim - 0.5, 0, 0.5))[..., None]
    color[part], visible[part] = skin + alpha[..., None] * (paint - skin), alpha
    return visible


def _outline(nail: Nail) -> np.ndarray:
    """Corners of the nail as the camera sees it, float (K, 2), in radii: along from the root, and across."""
    total, half = nail.bed + nail.free, nail.width / 2
    u = np.linspace(0, total, 28)
    length, share = NAIL_SHAPES[nail.shape]
    tip = min(length * half, 0.55 * total)
    width = half * np.sqrt(1 - np.clip(1 - u / (0.85 * half), 0, 1) ** 2.4)
    width *= share(np.clip((u - (total - tip)) / tip, 0, 1))
    # the plate lies on a cylinder: its flat width is an angle around the finger's axis
    left, right = (np.sin(np.clip(nail.roll + sign * width / 1.04, -1.5, 1.5)) for sign in (-1, 1))
    return np.concatenate([np.stack([u, left], 1), np.stack([u, right], 1)[::-1]])
