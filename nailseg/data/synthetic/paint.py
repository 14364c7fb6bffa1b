"""Paints one posed hand: a map of heights shaded as skin, with the nails on top.

Everything is drawn at twice the final size and reduced, so that edges are anti-aliased.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nailseg.data.synthetic.hand import Limb
from nailseg.data.synthetic.nail import Canvas, Manicure, paint_nail
from nailseg.data.synthetic.scene import Light, smooth_noise, unit_vectors, window_of

_FINER = 2  # pixels drawn per pixel kept, along each side


@dataclass(frozen=True)
class Layer:
    """One painted hand at the final size."""

    color: np.ndarray  # float32 (H, W, 3), RGB, 0..255, multiplied by `cover`
    cover: np.ndarray  # float32 (H, W), 0..1, how much of a pixel the hand fills
    nails: np.ndarray  # float32 (K, H, W), 0..1, what is seen of each nail


def paint_hand(
    rng: np.random.Generator, limbs: list[Limb], shape: tuple[int, int], skin, polish, cloth, light: Light
) -> Layer:
    """Draws one hand; `shape` is the result's (H, W), the colours are RGB, `polish` None for bare nails."""
    left, top, right, bottom = _extent(limbs, shape)
    limbs = [limb.moved(np.eye(2), _FINER, (-left * _FINER, -top * _FINER)) for limb in limbs]
    small = (right - left, bottom - top)
    depth, owner = _heights(limbs, (small[1] * _FINER, small[0] * _FINER))
    fingers = [limb.radii[0] for limb in limbs if limb.kind == "finger"]
    unit = max(float(np.median(fingers)), 4.0)
    canvas = Canvas(_skin_color(rng, limbs, owner, skin, cloth, unit), _outline(owner, unit), depth, owner)
    _shade(rng, canvas, depth - _creases(rng, limbs, depth.shape, unit), unit, light)
    manicure = Manicure(rng, skin, polish)
    shown = [number for number, limb in enumerate(limbs) if limb.nail is not None]
    nails = [paint_nail(rng, canvas, limbs[number], number, manicure, light) for number in shown]

    def reduce(image: np.ndarray) -> np.ndarray:
        whole = np.zeros((*shape, *image.shape[2:]), np.float32)
        whole[top:bottom, left:right] = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        return whole

    parts = np.zeros((len(nails), *shape), np.float32)
    for part, nail in zip(parts, nails, strict=True):
        part[:] = reduce(nail)
    return Layer(reduce(canvas.color * canvas.cover[..., None]), reduce(canvas.cover), parts)


def _extent(limbs: list[Limb], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what must be drawn; at least four pixels a side."""
    reach = [limb.radii.max() + 3 + (limb.nail.free if limb.nail else 0.0) for limb in limbs]
    low = np.min([limb.points.min(0) - r for limb, r in zip(limbs, reach, strict=True)], axis=0)
    high = np.max([limb.points.max(0) + r for limb, r in zip(limbs, reach, strict=True)], axis=0)
    left, top = (int(np.clip(v, 0, side - 4)) for v, side in zip(low, shape[::-1], strict=True))
    right, bottom = (int(np.clip(v, 0, side)) for v, side in zip(high, shape[::-1], strict=True))
    return left, top, max(right, left + 4), max(bottom, top + 4)


def _heights(limbs: list[Limb], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Height of the nearest surface, float32 (H, W), and whose it is, int16 (H, W), -1 for nobody's."""
    depth = np.full(size, -1e4, np.float32)
    owner = np.full(size, -1, np.int16)
    for number, limb in enumerate(limbs):
        for k in range(len(limb.points) - 1):
            ends = slice(k, k + 2)
            _raise_to_cone(depth, owner, limb.points[ends], limb.z[ends], limb.radii[ends], number)
    depth[owner < 0] = depth[owner >= 0].min(initial=0.0)
    return depth, owner


def _raise_to_cone(depth, owner, points, z, radii, number: int) -> None:
    """Raises `depth` to a round cone between two points wherever the cone is higher."""
    big = radii.max() + 1
    found = window_of(points.min(0) - big, points.max(0) + big + 1, depth.shape)
    if found is None:
        return
    window, x, y = found
    x, y = x - np.float32(points[0, 0]), y - np.float32(points[0, 1])
    dx, dy = (points[1] - points[0]).astype(np.float32)
    t = np.clip((x * dx + y * dy) / np.float32(dx * dx + dy * dy + 1e-6), 0, 1)
    radius = np.float32(radii[0]) + t * np.float32(radii[1] - radii[0])
    inside = radius * radius - (x - t * dx) ** 2 - (y - t * dy) ** 2
    axis = np.float32(z[0]) + t * np.float32(z[1] - z[0])
    surface = axis + np.sqrt(np.maximum(inside, 0)) * np.float32(0.8)
    higher = (inside > 0) & (surface > depth[window])
    np.copyto(depth[window], surface, where=higher)
    owner[window][higher] = number


def _outline(owner: np.ndarray, unit: float) -> np.ndarray:
    """The hand's cover; corners between limbs are rounded as webs of skin are, edges stay two pixels soft."""
    sigma = 0.22 * unit
    half = (owner[::2, ::2] >= 0).astype(np.float32)
    soft = cv2.resize(cv2.GaussianBlur(half, (0, 0), sigma / 2), owner.shape[::-1])
    # the slope of a blurred edge is 1 / (2.5 sigma) per pixel
    return np.clip((soft - 0.5) * np.float32(sigma * 2.5 / 2) + 0.5, 0, 1)


def _skin_color(rng, limbs: list[Limb], owner, skin, cloth, unit: float) -> np.ndarray:
    """Colour before light: blotches, redder knuckles and tips, the sleeve, rings. float32 (H, W, 3)."""
    size = owner.shape
    spots = np.zeros((size[0] // 4 + 1, size[1] // 4 + 1), np.float32)
    for limb in limbs:
        if limb.kind == "finger":
            for k in (*limb.joints, len(limb.points) - 1):
                center = tuple(int(v) for v in limb.points[k] / 4)
                cv2.circle(spots, center, int(limb.radii[k] / 4), rng.uniform(0.4, 1.1), -1)
    spots = cv2.GaussianBlur(spots, (0, 0), 0.14 * unit + 0.5)
    red = cv2.resize(spots, size[::-1]) + smooth_noise(rng, size, 1.5 * unit) * 0.35
    grain = smooth_noise(rng, size, 2.2) * 0.012 + smooth_noise(rng, size, 0.4 * unit) * 0.02
    tint = np.array([-0.015, -0.07, -0.065]) * rng.uniform(0.5, 1.5)
    mix = np.stack([skin, skin * tint, skin], axis=1)  # columns: grain, red, 1
    color = cv2.transform(cv2.merge([grain, red]), mix)
    for number, limb in enumerate(limbs):
        if limb.kind == "sleeve" and (worn := owner == number).any():
            knit = 1 + 0.12 * smooth_noise(rng, size, 2.5) + 0.1 * smooth_noise(rng, size, unit)
            color[worn] = knit[worn][:, None] * np.float32(cloth)
        elif limb.kind == "finger" and len(limb.points) > 3 and rng.random() < 0.08:
            _paint_ring(rng, limb, color)
    return color


def _paint_ring(rng, limb: Limb, color: np.ndarray) -> None:
    """A band around the first phalanx, sometimes with a stone."""
    metal = np.array([(212, 170, 80), (190, 192, 198), (206, 150, 120)][rng.integers(3)], float)
    center = 0.55 * limb.points[0] + 0.45 * limb.points[2]
    side = unit_vectors(limb.points[2] - limb.points[0])[1] * limb.radii[1] * 1.1
    thick = max(2, int(limb.radii[1] * rng.uniform(0.12, 0.35)))
    for share, gain in ((1.0, 0.6), (0.75, 1.0), (0.3, 1.25)):
        ends = [tuple(int(v) for v in center + sign * side * share) for sign in (-1, 1)]
        cv2.line(color, *ends, tuple(np.minimum(metal * gain, 255)), thick, cv2.LINE_AA)
    if rng.random() < 0.4:
        stone = tuple(int(v) for v in rng.integers(60, 250, 3))
        cv2.circle(color, tuple(int(v) for v in center), int(thick * 1.2) + 2, stone, -1, cv2.LINE_AA)


def _creases(rng, limbs: list[Limb], size: tuple[int, int], unit: float) -> np.ndarray:
    """Depth of the folds across the joints, float32 (H, W), in pixels."""
    folds = np.zeros(size, np.uint8)
    for limb in limbs:
        for k in limb.joints:
            along, _ = unit_vectors(limb.points[k] - limb.points[k - 1])
            angle = np.degrees(np.arctan2(along[1], along[0]))
            for _ in range(rng.integers(2, 6)):
                center = limb.points[k] + along * limb.radii[k] * rng.normal(0, 0.28)
                axes = tuple(int(limb.radii[k] * v) for v in (rng.uniform(0.08, 0.4), rng.uniform(0.4, 0.8)))
                start = 180 * rng.integers(2)
                center = tuple(int(v) for v in center)
                deep = int(rng.integers(90, 220))
                cv2.ellipse(folds, center, axes, angle, start - 70, start + 70, deep, 2, cv2.LINE_AA)
    folds = cv2.GaussianBlur(folds, (0, 0), max(0.05 * unit, 0.8))
    return folds.astype(np.float32) * np.float32(0.1 * unit / 255)


def _shade(rng, canvas: Canvas, surface: np.ndarray, unit: float, light: Light) -> None:
    """Light on skin: slopes, dark gaps between fingers, a soft sheen. Changes the canvas' colour in place."""
    smooth = cv2.GaussianBlur(surface, (0, 0), max(0.13 * unit, 1.0))
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, i, 1 - i, ksize=3, scale=1 / 8) for i in (1, 0))
    # the outline is no cliff: without a limit every hand wears a dark rim
    limit = 1 / np.maximum(1, cv2.magnitude(dx, dy) / 1.3)
    dx *= limit
    dy *= limit
    norm = 1 / np.sqrt(dx * dx + dy * dy + 1)
    lx, ly, lz = light.direction.tolist()
    facing = np.clip((lz - dx * lx - dy * ly) * norm, 0, 1)
    nearby = cv2.blur(cv2.resize(smooth, None, fx=0.25, fy=0.25), (int(0.5 * unit) | 1,) * 2)
    below = np.clip(cv2.resize(nearby, surface.shape[::-1]) - smooth, 0, None)
    below[canvas.owner < 0] = 0
    gap = np.clip(1 - below * np.float32(0.55 / unit), 0.4, 1)
    strength = light.strength(facing) * gap
    # light that enters skin comes back red, so shadows keep more of it
    table = np.linspace(0, 1.5, 256)[:, None] ** np.array([0.85, 1.05, 1.12])
    index = np.clip(strength * (255 / 1.5), 0, 255).astype(np.uint8)
    canvas.color[:] *= cv2.LUT(cv2.merge([index] * 3), table.astype(np.float32).reshape(1, 256, 3))
    hx, hy, hz = light.halfway()
    sheen = np.clip((hz - dx * hx - dy * hy) * norm, 0, 1)
    for _ in range(4):  # to the 16th power
        sheen *= sheen
    canvas.color[:] += (sheen * gap * rng.uniform(4, 34))[..., None]
