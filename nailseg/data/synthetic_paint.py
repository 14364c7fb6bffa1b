"""Paints one posed hand: a height map shaded as skin, and nails on top of it.

Everything is drawn at twice the final size and reduced, so that edges are anti-aliased.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nailseg.data.synthetic_hand import Limb, Nail

FINER = 2
"""Pixels drawn per pixel kept, along each side."""

_SKIN = np.array(
    [
        (247, 219, 200),
        (238, 196, 168),
        (226, 172, 138),
        (204, 146, 110),
        (172, 116, 84),
        (134, 88, 62),
        (98, 64, 47),
        (68, 45, 36),
    ],
    float,
)
_POLISH = np.array(
    [
        (176, 16, 32),
        (206, 30, 48),
        (120, 12, 32),
        (226, 92, 120),
        (244, 170, 182),
        (232, 190, 172),
        (196, 140, 120),
        (60, 16, 36),
        (18, 18, 22),
        (245, 243, 238),
        (34, 60, 130),
        (120, 170, 220),
        (130, 206, 186),
        (40, 96, 72),
        (246, 214, 90),
        (240, 130, 70),
        (170, 130, 190),
        (110, 76, 62),
        (150, 150, 156),
    ],
    float,
)


@dataclass(frozen=True)
class Light:
    """Attributes: direction: float (3,), unit, x right, y down, z to the camera; ambient: 0..1 share without it."""

    direction: np.ndarray
    ambient: float


@dataclass(frozen=True)
class Layer:
    """One painted hand at the final size.

    Attributes:
        color: float32 (H, W, 3), 0..255, multiplied by `cover`.
        cover: float32 (H, W), 0..1.
        nails: float32 (K, H, W), 0..1, what is seen of each nail.
    """

    color: np.ndarray
    cover: np.ndarray
    nails: np.ndarray


def skin_tone(rng: np.random.Generator) -> np.ndarray:
    """A skin colour, float (3,) RGB 0..255, light to dark equally often."""
    position = rng.uniform(0, len(_SKIN) - 1.001)
    low = int(position)
    tone = _SKIN[low] + (position - low) * (_SKIN[low + 1] - _SKIN[low])
    return tone * rng.normal(1.0, 0.03, 3)


def polish_color(rng: np.random.Generator) -> np.ndarray:
    """A colour nails are painted in, float (3,) RGB 0..255."""
    return np.clip(_POLISH[rng.integers(len(_POLISH))] * rng.normal(1, 0.08) + rng.normal(0, 8, 3), 5, 250)


def paint_hand(
    rng: np.random.Generator,
    limbs: list[Limb],
    shape: tuple[int, int],
    skin: np.ndarray,
    polish: np.ndarray | None,
    cloth: np.ndarray,
    light: Light,
) -> Layer:
    """Draws limbs given in final pixels.

    Args:
        rng: Source of every choice.
        limbs: As `synthetic_hand.place` returns them.
        shape: Height and width of the result.
        skin: RGB.
        polish: RGB, or None for bare nails.
        cloth: RGB of the sleeve.
        light: Where the light comes from.
    """
    size = (shape[0] * FINER, shape[1] * FINER)
    depth, owner = _heights(limbs, size)
    unit = max(float(np.median([limb.radii[0] for limb in limbs if limb.kind == "finger"])) * FINER, 4.0)
    cover = _smooth_outline((owner >= 0).astype(np.float32), unit)
    color = _skin_color(rng, limbs, owner, skin, cloth, unit)
    bumps = _creases(rng, limbs, size, unit)
    _shade(color, depth - bumps, unit, light, rng)
    finish = _Finish(rng, skin, polish)
    nails = []
    for number, limb in enumerate(limbs):
        if limb.nail is not None:
            seen = _paint_nail(rng, limb, limb.nail, number, color, cover, depth, owner, finish, light)
            nails.append(seen)
    small = (shape[1], shape[0])
    color = cv2.resize(color * cover[..., None], small, interpolation=cv2.INTER_AREA)
    kept = [cv2.resize(nail, small, interpolation=cv2.INTER_AREA) for nail in nails]
    stack = np.stack(kept) if kept else np.zeros((0, *shape), np.float32)
    return Layer(color, cv2.resize(cover, small, interpolation=cv2.INTER_AREA), stack)


def _heights(limbs: list[Limb], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Height of the nearest surface, float32 (H, W), and which limb it is, int16 (H, W), -1 for none."""
    depth = np.full(size, -1e4, np.float32)
    owner = np.full(size, -1, np.int16)
    for number, limb in enumerate(limbs):
        points, z, radii = limb.points * FINER, limb.z * FINER, limb.radii * FINER
        for k in range(len(points) - 1):
            _capsule(depth, owner, points[k : k + 2], z[k : k + 2], radii[k : k + 2], number)
    depth[owner < 0] = depth[owner >= 0].min(initial=0.0)
    return depth, owner


def _capsule(depth, owner, points, z, radii, number: int) -> None:
    """Raises `depth` to a round cone between two points wherever the cone is higher."""
    height, width = depth.shape
    big = radii.max() + 1
    left, top = np.floor(points.min(0) - big).astype(int)
    right, bottom = np.ceil(points.max(0) + big).astype(int) + 1
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right, dtype=np.float32)[None] - np.float32(points[0, 0])
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(points[0, 1])
    dx, dy = (points[1] - points[0]).astype(np.float32)
    t = np.clip((x * dx + y * dy) / np.float32(dx * dx + dy * dy + 1e-6), 0, 1)
    radius = np.float32(radii[0]) + t * np.float32(radii[1] - radii[0])
    inside = radius * radius - (x - t * dx) ** 2 - (y - t * dy) ** 2
    surface = np.float32(z[0]) + t * np.float32(z[1] - z[0]) + np.sqrt(np.maximum(inside, 0)) * np.float32(0.8)
    window = np.s_[top:bottom, left:right]
    higher = (inside > 0) & (surface > depth[window])
    depth[window] = np.where(higher, surface, depth[window])
    owner[window] = np.where(higher, np.int16(number), owner[window])


def _smooth_outline(cover: np.ndarray, unit: float) -> np.ndarray:
    """Rounds the corners between limbs as webs of skin do; the edge stays about one pixel soft."""
    sigma = 0.22 * unit
    soft = cv2.GaussianBlur(cover, (0, 0), sigma)
    # the slope of a blurred edge is 1 / (sigma sqrt(2 pi)) per pixel
    return np.clip((soft - 0.42) * sigma * 2.5 / 1.5 + 0.5, 0, 1)


def _noise(rng: np.random.Generator, size: tuple[int, int], grain: float) -> np.ndarray:
    """Smooth noise of about unit variance, float32 (H, W), with features `grain` pixels wide."""
    rows, columns = (max(2, int(np.ceil(side / grain)) + 1) for side in size)
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    return cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)


def _skin_color(rng, limbs: list[Limb], owner, skin, cloth, unit: float) -> np.ndarray:
    """Colour before light: blotches, redder knuckles and tips, the sleeve, rings. float32 (H, W, 3)."""
    size = owner.shape
    red = cv2.GaussianBlur(_noise(rng, size, 1.5 * unit), (0, 0), 2) * 0.3
    spots = np.zeros((size[0] // 4 + 1, size[1] // 4 + 1), np.float32)
    for limb in limbs:
        if limb.kind == "finger":
            for k in (*limb.joints, len(limb.points) - 1):
                center = tuple(int(v) for v in limb.points[k] * FINER / 4)
                cv2.circle(spots, center, int(limb.radii[k] * FINER / 4), float(rng.uniform(0.5, 1.2)), -1)
    spots = cv2.GaussianBlur(spots, (0, 0), 0.14 * unit + 0.5)
    red += cv2.resize(spots, (size[1], size[0]))
    pores = _noise(rng, size, 1.6) * 0.012
    tint = np.array([-0.015, -0.07, -0.065], np.float32) * rng.uniform(0.5, 1.4)
    color = np.float32(skin) * (1 + pores[..., None] + red[..., None] * tint)
    for number, limb in enumerate(limbs):
        if limb.kind == "sleeve":
            knit = 1 + 0.12 * _noise(rng, size, 2.5) + 0.1 * _noise(rng, size, unit)
            color = np.where((owner == number)[..., None], np.float32(cloth) * knit[..., None], color)
        elif limb.kind == "finger" and len(limb.points) > 3 and rng.random() < 0.08:
            _paint_ring(rng, limb, color)
    return color


def _paint_ring(rng, limb: Limb, color: np.ndarray) -> None:
    """A band around the first phalanx, sometimes with a stone."""
    metal = np.array([(212, 170, 80), (190, 192, 198), (206, 150, 120)][rng.integers(3)], float)
    center = (0.55 * limb.points[0] + 0.45 * limb.points[2]) * FINER
    along = limb.points[2] - limb.points[0]
    along = along / (np.linalg.norm(along) + 1e-9)
    side = np.array([-along[1], along[0]]) * limb.radii[1] * FINER * 1.1
    thick = max(2, int(limb.radii[1] * FINER * rng.uniform(0.12, 0.35)))
    for share, gain in ((1.0, 0.6), (0.75, 1.0), (0.3, 1.25)):
        ends = [tuple(int(v) for v in center + sign * side * share) for sign in (-1, 1)]
        cv2.line(color, *ends, tuple(np.minimum(metal * gain, 255)), thick, cv2.LINE_AA)
    if rng.random() < 0.4:
        stone = tuple(int(v) for v in rng.integers(60, 250, 3))
        cv2.circle(color, tuple(int(v) for v in center), int(thick * 1.2) + 2, stone, -1, cv2.LINE_AA)


def _creases(rng, limbs: list[Limb], size, unit: float) -> np.ndarray:
    """Depth of the folds across the joints, float32 (H, W), in pixels."""
    folds = np.zeros(size, np.uint8)
    for limb in limbs:
        for k in limb.joints:
            along = limb.points[k] - limb.points[k - 1]
            along = along / (np.linalg.norm(along) + 1e-9)
            angle = np.degrees(np.arctan2(along[1], along[0]))
            radius = limb.radii[k] * FINER
            for _ in range(rng.integers(2, 6)):
                center = (limb.points[k] + along * limb.radii[k] * rng.normal(0, 0.28)) * FINER
                axes = (int(radius * rng.uniform(0.08, 0.4)), int(radius * rng.uniform(0.4, 0.8)))
                start = 180 * rng.integers(2)
                whole = tuple(int(v) for v in center)
                depth = int(rng.integers(90, 220))
                cv2.ellipse(folds, whole, axes, angle, start - 70, start + 70, depth, 2, cv2.LINE_AA)
    return cv2.GaussianBlur(folds, (0, 0), max(0.05 * unit, 0.8)).astype(np.float32) * (0.1 * unit / 255)


def _shade(color: np.ndarray, depth: np.ndarray, unit: float, light: Light, rng) -> None:
    """Multiplies skin by light: slope towards the light, darkness in the gaps, a soft sheen. In place."""
    smooth = cv2.GaussianBlur(depth, (0, 0), max(0.13 * unit, 1.0))
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    norm = 1 / np.sqrt(dx * dx + dy * dy + 1)
    lx, ly, lz = (np.float32(v) for v in light.direction)
    facing = np.clip((lz - dx * lx - dy * ly) * norm, 0, 1)
    reach = cv2.resize(cv2.blur(cv2.resize(smooth, None, fx=0.25, fy=0.25), (int(0.5 * unit) | 1,) * 2), depth.shape[::-1])
    gap = np.clip(1 - np.clip(reach - smooth, 0, None) * np.float32(0.55 / unit), 0.35, 1)
    strength = (light.ambient + (1 - light.ambient) * facing / max(lz, 0.3)) * gap
    # light that enters skin comes back red, so shadows keep more of it
    table = np.linspace(0, 1.5, 256)[:, None] ** np.array([0.85, 1.05, 1.12])
    index = np.clip(strength * (255 / 1.5), 0, 255).astype(np.uint8)
    color *= cv2.LUT(cv2.merge([index] * 3), table.astype(np.float32).reshape(1, 256, 3))
    half = light.direction + np.array([0, 0, 1.0])
    hx, hy, hz = (np.float32(v) for v in half / np.linalg.norm(half))
    sheen = np.clip((hz - dx * hx - dy * hy) * norm, 0, 1) ** np.float32(14)
    color += (sheen * gap * np.float32(rng.uniform(4, 34)))[..., None]


class _Finish:
    """What the nails of one hand have in common: colour, gloss, pattern."""

    def __init__(self, rng: np.random.Generator, skin: np.ndarray, polish: np.ndarray | None) -> None:
        pink = skin * np.array([1.04, 0.95, 0.95]) + np.array([14, 6, 10])
        self.bare = polish is None
        self.base = np.clip(pink, 0, 255) if polish is None else polish
        self.other = polish_color(rng) if rng.random() < 0.2 else None  # an accent nail
        self.edge = np.array([240, 234, 222]) * (0.55 + 0.45 * skin.mean() / 200)
        french = rng.random() < (0.85 if self.bare else 0.08)
        self.white_tip = rng.uniform(0.55, 0.95) if french else 0.0
        self.moon = rng.uniform(0, 0.3) if self.bare else 0.0
        self.gloss = rng.uniform(0.05, 0.45) if self.bare else rng.choice([0.05, 0.5, 0.9]) * rng.uniform(0.6, 1.1)
        self.glitter = rng.uniform(0.1, 0.35) if not self.bare and rng.random() < 0.15 else 0.0
        self.streak = rng.uniform(-0.5, 0.5), rng.uniform(0.08, 0.2), rng.uniform(0.1, 0.35), rng.uniform(0.6, 0.9)


def _half_width(shape: str, u: np.ndarray, nail: Nail) -> np.ndarray:
    """Half the width of a flat nail at the distances `u` from its root."""
    total, half = nail.bed + nail.free, nail.width / 2
    root = 0.85 * half
    start = np.sqrt(np.clip(1 - np.clip(1 - u / root, 0, 1) ** 2.4, 0, 1))
    sides = 0.94 + 0.06 * np.clip(u / nail.bed, 0, 1)
    length = {"round": 1.0, "square": 0.22, "almond": 2.2, "coffin": 2.0}[shape] * half
    length = min(length, 0.55 * total)
    s = np.clip((u - (total - length)) / length, 0, 1)
    if shape == "coffin":
        end = 1 - 0.42 * s
        end[-1] = 0.5
    else:
        end = np.clip(1 - s ** {"round": 2.1, "square": 2.5, "almond": 1.8}[shape], 0, 1) ** (
            {"round": 0.5, "square": 0.5, "almond": 0.62}[shape]
        )
        if shape == "square":
            end = 0.8 + 0.2 * end
    return half * start * sides * end


def _paint_nail(rng, limb: Limb, nail: Nail, number, color, cover, depth, owner, finish: _Finish, light: Light):
    """Paints one nail into `color` and `cover` and returns what is seen of it, float32 (H, W), 0..1."""
    height, width = cover.shape
    radius = limb.radii[-2] * FINER
    tip = limb.points[-1] * FINER
    along = limb.points[-1] - limb.points[-2]
    along = along / (np.linalg.norm(along) + 1e-9)
    side = np.array([-along[1], along[0]])
    flat = Nail(nail.shape, nail.width * FINER, nail.bed * FINER, nail.free * FINER, nail.roll)
    tilt = max(limb.tilt, 0.45)
    total = (flat.bed + flat.free) * tilt
    root = tip + along * (limb.radii[-1] * FINER * 0.92 - flat.bed * tilt)
    u = np.linspace(0, 1, 28) ** 1.0 * (flat.bed + flat.free)
    half = _half_width(flat.shape, u, flat)
    # the nail lies on the finger's barrel: across, flat width becomes an angle
    angle = half / (radius * 1.04)
    across = [radius * np.sin(np.clip(flat.roll + sign * angle, -1.5, 1.5)) for sign in (-1, 1)]
    outline = np.concatenate([np.stack([u, across[0]], 1), np.stack([u, across[1]], 1)[::-1]])
    outline = root + outline[:, :1] * tilt * along + outline[:, 1:] * side
    left, top = np.maximum(np.floor(outline.min(0)).astype(int) - 4, 0)
    right, bottom = np.minimum(np.ceil(outline.max(0)).astype(int) + 5, (width, height))
    seen = np.zeros((height, width), np.float32)
    if left >= right or top >= bottom:
        return seen
    window = np.s_[top:bottom, left:right]
    alpha = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(alpha, [np.round((outline - (left, top)) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = alpha.astype(np.float32) / 255
    surface = (limb.z[-1] + limb.radii[-1]) * FINER
    alpha *= (owner[window] == number) | (depth[window] < surface)
    x = np.arange(left, right, dtype=np.float32)[None] - np.float32(root[0])
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(root[1])
    pu = (x * np.float32(along[0]) + y * np.float32(along[1])) / np.float32(total)
    pv = np.clip((x * np.float32(side[0]) + y * np.float32(side[1])) / np.float32(radius), -0.98, 0.98)
    paint = _nail_color(rng, finish, pu, pv, flat)
    slope = 0.35 * (pu - 0.35)
    nx, ny = pv * 0.8 * side[0] + slope * along[0], pv * 0.8 * side[1] + slope * along[1]
    nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0.05, 1))
    lx, ly, lz = light.direction
    facing = np.clip(nx * lx + ny * ly + nz * lz, 0, 1)
    paint = paint * (light.ambient + (1 - light.ambient) * facing / max(lz, 0.3))[..., None].astype(np.float32)
    # a window's reflection: a streak along the nail, on the side the light comes from
    at, thick, begin, stop = finish.streak
    at = 0.35 * (lx * side[0] + ly * side[1]) + 0.3 * at + 0.9 * np.sin(flat.roll) * 0.6
    streak = np.exp(-(((pv - at) / thick) ** 2)) * _window(pu, begin, stop, 0.08)
    half_way = (light.direction + (0, 0, 1)) / np.linalg.norm(light.direction + (0, 0, 1))
    spot = np.clip(nx * half_way[0] + ny * half_way[1] + nz * half_way[2], 0, 1) ** 60
    paint += ((0.7 * streak + 0.35 * spot) * finish.gloss * 190)[..., None]
    rim = cv2.GaussianBlur(alpha, (0, 0), max(0.07 * radius, 0.8))
    fold = np.clip(rim * 1.6, 0, 1) * (1 - alpha) * 0.3
    under = color[window] * (1 - fold)[..., None]
    shine = (rim - 0.5).clip(0, 0.5) * 0.5 + 0.75  # the edge of a nail is a little darker
    color[window] = under + alpha[..., None] * (paint * shine[..., None] - under)
    cover[window] = np.maximum(cover[window], alpha)
    seen[window] = alpha
    return seen


def _window(x: np.ndarray, low: float, high: float, soft: float) -> np.ndarray:
    """1 between low and high, 0 outside, with soft edges."""
    return np.clip((x - low) / soft + 0.5, 0, 1) * np.clip((high - x) / soft + 0.5, 0, 1)


def _nail_color(rng, finish: _Finish, u: np.ndarray, v: np.ndarray, nail: Nail) -> np.ndarray:
    """Colour of a nail before light at `u` (0 root .. 1 tip), `v` (-1 .. 1 across the finger), float32 (H, W, 3)."""
    base = finish.base
    if finish.other is not None and rng.random() < 0.3:
        base = finish.other
    paint = np.broadcast_to(np.float32(base * rng.normal(1, 0.02)), (*u.shape, 3)).copy()
    if finish.bare:
        paint *= (1 + 0.03 * np.sin(v * rng.uniform(18, 30)) * (rng.random() < 0.5))[..., None].astype(np.float32)
    if finish.moon:
        moon = np.clip((0.2 - np.hypot(u, v * 0.3)) / 0.06, 0, 1) * finish.moon
        paint += moon[..., None] * (np.float32(finish.edge) - paint)
    if finish.white_tip:
        line = nail.bed / (nail.bed + nail.free) - 0.05
        tip = np.clip((u + 0.12 * v * v - line) / 0.05, 0, 1) * finish.white_tip
        paint += tip[..., None] * (np.float32(finish.edge) - paint)
    if finish.glitter:
        sparks = rng.random(u.shape).astype(np.float32) ** 6
        paint += (finish.glitter * 500 * (sparks - 0.1))[..., None]
    return paint.astype(np.float32)
