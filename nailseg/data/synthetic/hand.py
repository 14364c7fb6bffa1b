"""Draws one hand: its joints, a height map of its surface, shaded as skin, and the nails on top.

A pose is measured in palms: the wrist is at (0, 0), the middle knuckle at (0, 1); x right, z to the camera.
"""

from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

# index, middle, ring and little finger and the thumb
KNUCKLES = np.array([(-0.31, 0.94), (-0.10, 1.0), (0.11, 0.95), (0.30, 0.83), (-0.46, 0.52)])
PHALANGES = ((0.42, 0.27, 0.22), (0.47, 0.30, 0.23), (0.43, 0.28, 0.23), (0.33, 0.21, 0.20), (0.33, 0.29))
RADII = (0.098, 0.102, 0.096, 0.083, 0.112)
NAIL_SHAPES = {  # length of the tip in half widths; share of the width at s, 0 (start of the tip) .. 1 (end)
    "round": (1.0, lambda s: np.sqrt(1 - s**2.1)),
    "square": (0.22, lambda s: 0.8 + 0.2 * np.sqrt(1 - s**2.5)),
    "almond": (2.2, lambda s: (1 - s**1.8) ** 0.62),
    "coffin": (2.0, lambda s: 1 - 0.45 * s),
}
OVERSAMPLING = 2  # a hand is painted this much larger, for smooth edges


class Light:
    """One lamp or window in front of the image plane, and light from everywhere."""

    def __init__(self, rng: np.random.Generator) -> None:
        azimuth, elevation, self.ambient = rng.uniform((-np.pi, 0.5, 0.35), (np.pi, 1.3, 0.65)).tolist()
        # towards the lamp, unit length: x to the right, y down, z to the camera
        self.direction = np.cos(elevation) * np.array([np.cos(azimuth), np.sin(azimuth), np.tan(elevation)])

    def strength(self, cosine: np.ndarray) -> np.ndarray:
        """Light on a surface, from the cosine between its normal and the lamp."""
        return self.ambient + np.float32((1 - self.ambient) / max(self.direction[2], 0.6)) * cosine

    def cosine(self, dx: np.ndarray, dy: np.ndarray, mirrored: bool = False) -> np.ndarray:
        """Cosine of a surface's normal with the lamp or, `mirrored`, Blinn's half vector; float32, 0..1."""
        towards = self.direction + np.array([0, 0, mirrored])
        x, y, z = towards / np.linalg.norm(towards)
        return np.clip((z - dx * x - dy * y) / np.sqrt(dx * dx + dy * dy + 1), 0, 1).astype(np.float32)


class Limb(NamedTuple):
    """A tube through joints. A finger may end in a nail, whose lengths are in radii of the finger."""

    joints: np.ndarray  # float (K, 4): x, y, z and radius
    is_finger: bool = False
    nail: str = ""  # its shape, a key of NAIL_SHAPES
    width: float = 0.0  # of the flat nail
    bed: float = 0.0  # length attached to the finger
    free: float = 0.0  # length beyond the bed
    roll: float = 0.0  # radians the finger is turned about its own axis; 0 faces the camera


def pose_hand(rng: np.random.Generator, pose: str, visible: tuple[int, ...]) -> list[Limb]:
    """Poses one right hand, in palms.

    `pose` is `back` (stretched or slightly bent fingers), `folded` (fingers on the palm, nails to the camera)
    or `palm` (stretched, no nail). `visible`: fingers that show one, 0 (index) .. 3 (little), 4 (thumb).
    """
    slim, spread, bend = rng.uniform((0.88, -0.3, 0), (1.12, 1.1, 0.5))
    shape = str(rng.choice(["round", "square", "almond", "coffin"], p=[0.4, 0.22, 0.2, 0.18]))
    free = rng.gamma(1.5, 0.25) if shape in ("round", "square") else rng.uniform(0.5, 1.5)
    bed, broad = rng.uniform((1.05, 1.48), (1.35, 1.76))
    limbs = [Limb(np.array([(0, 0.12, -0.08, 0.26), (0, -0.25, -0.04, 0.25 * slim), (0, -4, 0, 0.42)]))]
    limbs += [Limb(np.array([(x / 2, 0.1, 0, 0.2), (x, y, 0.03, 0.135 * slim)])) for x, y in KNUCKLES]
    for a, b in pairwise(KNUCKLES[:4]):  # the flesh between the metacarpals
        limbs.append(Limb(np.array([(*(a + b) * 0.35, 0, 0.2), (*(a + b) / 2, -0.02, 0.12)])))
    for finger in range(4 + (4 in visible or pose == "palm" or rng.random() < 0.6)):
        thumb, shows = finger == 4, finger in visible and pose != "palm"
        angle = -rng.uniform(0.25, 0.95) if thumb else (finger - 1.5) * 0.12 * spread + rng.normal(0, 0.035)
        slopes = 0.15 * bend + rng.normal(0, 0.08) + np.cumsum([0, *abs(rng.normal(0.7 * bend, 0.12, 2))])
        if pose == "folded" and not thumb:  # up to the first joint, then back over the palm
            slopes = rng.normal((-1.0, -np.pi + 0.6, -np.pi + 0.1), 0.05)
        if not (thumb or shows or pose == "palm"):  # bent away: ends at its first joint
            slopes = slopes[:1] if pose == "folded" else rng.uniform([1.1], [1.4])
        width, length = broad * rng.uniform(0.95, 1.05), bed * rng.uniform(0.94, 1.06)
        roll = rng.uniform(0.1, 0.75) if thumb else rng.normal(0.1 * (1.5 - finger), 0.1)
        nail = (shape, width, width * length, width * min(free, 1.5), roll) if shows else ()
        limbs.append(Limb(_finger(finger, angle, slopes * (not thumb), RADII[finger] * slim), True, *nail))
    return limbs


def _finger(finger: int, angle: float, slopes: np.ndarray, radius: float) -> np.ndarray:
    """Joints of a chain of phalanges at one angle in the plane; positive slopes lead away from the camera."""
    points, radii = [np.array([*KNUCKLES[finger], 0.05])], [1.12]
    for number, (slope, length) in enumerate(zip(slopes, PHALANGES[finger], strict=False), 1):
        last = number == min(len(slopes), len(PHALANGES[finger]))
        flat = length * np.cos(slope) - last * radius * 0.78  # the tube ends round, before the tip
        step = np.array([flat * np.sin(angle), flat * np.cos(angle), -0.7 * length * np.sin(slope)])
        points += [points[-1] + step / 2, points[-1] + step]
        radii += [1 - 0.07 * number, 0.8 if last else 1.05 - 0.05 * number]  # thicker at the joints
    return np.column_stack([points, np.array(radii) * radius])


def place_hand(rng, limbs: list[Limb], box: np.ndarray, smallest: float, zoom: float) -> list[Limb]:
    """Turns, tilts, mirrors, scales and moves a hand so that all nails lie within a box; gives pixels.

    `box` is float (2, 2): left and top, right and bottom. A palm is at least `smallest` pixels long if there
    is space, and at most `zoom` times that: a single finger could fill any box.
    """
    angle = rng.normal(0, 0.7) if rng.random() < 0.7 else rng.uniform(-np.pi, np.pi)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    mirror = rng.choice([-1, 1])
    matrix = turn @ np.diag(rng.uniform(0.8, 1.05, 2) * (mirror, -1))  # image rows run downwards
    shown = [limb for limb in limbs if limb.nail] or [limb for limb in limbs if limb.is_finger]
    tips = np.array([limb.joints[-1, :2] for limb in shown]) @ matrix.T
    reach = max((1.3 + limb.free) * limb.joints[-2, 3] for limb in shown)
    low, high = tips.min(0) - reach, tips.max(0) + reach
    largest = min(float(np.min((box[1] - box[0]) / (high - low))), zoom * smallest)
    scale = max(min(smallest, largest), largest * rng.uniform(0.7, 1.0))
    offset = box[0] + (box[1] - box[0] - scale * (high - low)) * rng.random(2) - scale * low
    placed = []
    for limb in limbs:
        joints = np.hstack([limb.joints[:, :2] @ matrix.T * scale + offset, limb.joints[:, 2:] * scale])
        placed.append(limb._replace(joints=joints, roll=-limb.roll * mirror))
    return placed


def paint_hand(rng, limbs: list[Limb], size: tuple[int, int], skin, polish, light: Light):
    """Paints a hand into an image of `size` (H, W); colours are RGB, `polish` None leaves nails bare.

    Returns the colour, float32 (H, W, 3), 0..255, multiplied by the cover; the cover, float32 (H, W), 0..1;
    and the visible part of each nail, float32 (K, H, W), 0..1.
    """
    limbs = [limb._replace(joints=limb.joints * OVERSAMPLING) for limb in limbs]
    height, owner = _height_map(limbs, (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING))
    unit = max(float(np.median([limb.joints[0, 3] for limb in limbs if limb.is_finger])), 4.0)
    color = _paint_skin(rng, limbs, height, skin, unit, light)
    # corners between limbs are rounded as skin is; the edge stays two pixels soft
    soft = cv2.GaussianBlur((owner >= 0).astype(np.float32), (0, 0), 0.22 * unit)
    cover = np.clip((soft - 0.5) * np.float32(0.275 * unit) + 0.5, 0, 1)
    base = np.clip(skin * (1.04, 0.95, 0.95) + (14, 6, 10), 0, 255) if polish is None else polish
    white = rng.uniform(0.45, 0.95) * (rng.random() < (0.8 if polish is None else 0.08))  # the free edge
    gloss = rng.uniform(0.05, 0.45) if polish is None else rng.choice([0.05, 0.5, 0.9])
    nails = []
    for number, limb in enumerate(limbs):
        if limb.nail:  # other fingers may cover the nail, its own never does
            free = (owner == number) | (height < limb.joints[-1, 2:].sum())
            nails.append(_paint_nail(color, free, limb, base * rng.normal(1, 0.02), white, gloss, light))
            np.maximum(cover, nails[-1], out=cover)
    large = (color * cover[..., None], cover, *nails)
    painted, cover, *nails = (cv2.resize(a, size[::-1], interpolation=cv2.INTER_AREA) for a in large)
    return painted, cover, np.array(nails, np.float32).reshape(-1, *size)


def _height_map(limbs: list[Limb], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Height of the nearest surface, float32 (H, W), and the index of its limb, int16 (H, W), -1 for none."""
    height, owner = np.full(size, -1e4, np.float32), np.full(size, -1, np.int16)
    cones = [(number, *ends) for number, limb in enumerate(limbs) for ends in pairwise(limb.joints)]
    for number, start, stop in cones:
        low, high = np.minimum(start, stop), np.maximum(start, stop)
        part, x, y = window(low[:2] - high[3] - 1, high[:2] + high[3] + 1, size)
        x, y, (dx, dy, dz, growth) = x - start[0], y - start[1], stop - start
        t = np.clip((x * dx + y * dy) / (dx * dx + dy * dy + 1e-6), 0, 1)  # along the axis of a round cone
        inside = (start[3] + t * growth) ** 2 - (x - t * dx) ** 2 - (y - t * dy) ** 2
        surface = start[2] + t * dz + 0.8 * np.sqrt(np.maximum(inside, 0))
        higher = (inside > 0) & (surface > height[part])
        height[part][higher], owner[part][higher] = surface[higher], number
    height[owner < 0] = height[owner >= 0].min(initial=0.0)
    return height, owner


def _paint_skin(rng, limbs: list[Limb], height: np.ndarray, skin, unit: float, light: Light) -> np.ndarray:
    """Lit skin with grain, blotches and redder joints and tips, float32 (H, W, 3)."""
    red = np.zeros(height.shape, np.float32)
    for x, y, _, radius in np.concatenate([limb.joints[2::2] for limb in limbs if limb.is_finger]):
        cv2.circle(red, (int(x), int(y)), int(radius), 0.8, -1)
    red = cv2.GaussianBlur(red, (0, 0), 0.56 * unit) + smooth_noise(rng, red.shape, 1.5 * unit) * 0.35
    tint = np.float32([-0.015, -0.07, -0.065]) * np.float32(rng.uniform(0.5, 1.5))
    grain = 0.012 * smooth_noise(rng, red.shape, 2.2)
    color = np.float32(skin) * (1 + grain[..., None] + red[..., None] * tint)
    smooth = cv2.GaussianBlur(height, (0, 0), max(0.13 * unit, 1.0))
    slope = np.stack([cv2.Sobel(smooth, cv2.CV_32F, i, 1 - i, ksize=3, scale=1 / 8) for i in (1, 0)])
    slope /= np.maximum(1, np.hypot(*slope) / 1.3)  # the outline is no cliff: it would get a dark rim
    depth = np.clip(cv2.blur(smooth, (int(2 * unit) | 1,) * 2) - smooth, 0, None)  # of gaps between fingers
    lit = np.clip(1 - depth * np.float32(0.55 / unit), 0.4, 1)
    # light that enters skin comes back red, so shadows keep more of it
    color *= (light.strength(light.cosine(*slope)) * lit)[..., None] ** np.float32([0.85, 1.05, 1.12])
    sheen = light.cosine(*slope, mirrored=True) ** 16 * np.float32(rng.uniform(4, 34))
    return color + (sheen * lit)[..., None]


def _paint_nail(color, free, limb: Limb, base, white: float, gloss: float, light: Light) -> np.ndarray:
    """Paints a nail where `free`, bool (H, W), into `color`; returns its visible share, float32 (H, W)."""
    radius, step = limb.joints[-2, 3], (limb.joints[-1] - limb.joints[-3])[:3]
    flat = np.linalg.norm(step[:2]) + 1e-9
    along, tilt = step[:2] / flat, max(flat / np.hypot(flat, step[2] / 0.7), 0.45)
    side = np.array([-along[1], along[0]])
    bed, total = (length * radius * tilt for length in (limb.bed, limb.bed + limb.free))
    root = limb.joints[-1, :2] + along * (limb.joints[-1, 3] * 0.92 - bed)
    outline = root + radius * _outline(limb) * (tilt, 1) @ np.stack([along, side])
    part, x, y = window(outline.min(0) - 4, outline.max(0) + 5, free.shape)
    visible = fill(outline, free.shape) * free
    alpha = visible[part]
    x, y = x - root[0], y - root[1]
    u = ((x * along[0] + y * along[1]) / total).astype(np.float32)  # 0 root .. 1 tip
    v = np.clip((x * side[0] + y * side[1]) / radius, -0.98, 0.98).astype(np.float32)  # -1 .. 1 across
    edge = (white * np.clip((u + 0.12 * v * v - bed / total + 0.05) / 0.05, 0, 1))[..., None]
    paint = base + edge * (np.float32([240, 234, 222]) * min(0.55 + base.mean() / 400, 1) - base)
    # the plate is curved; a window is mirrored as a streak along it, on the side of the light
    slope = [-(0.8 * v * s + 0.35 * (u - 0.35) * a) for s, a in zip(side, along, strict=True)]
    at = 0.35 * light.direction[:2] @ side + 0.55 * np.sin(limb.roll)
    streak = np.exp(-(((v - at) / 0.14) ** 2)) * np.clip(4 - np.abs(u - 0.5) * 12, 0, 1)
    mirror = 0.7 * streak + 0.35 * light.cosine(*slope, mirrored=True) ** 60
    paint = paint * light.strength(light.cosine(*slope))[..., None] + (190 * gloss * mirror)[..., None]
    # the fold of skin around a nail lies in shadow, and the rim of the plate is a little darker
    rim = cv2.GaussianBlur(alpha, (0, 0), max(0.07 * radius, 0.8))
    skin = color[part] * (1 - 0.3 * np.clip(1.6 * rim, 0, 1) * (1 - alpha))[..., None]
    paint *= (0.75 + 0.5 * np.clip(rim - 0.5, 0, 0.5))[..., None]
    color[part] = skin + alpha[..., None] * (paint - skin)
    return visible


def _outline(limb: Limb) -> np.ndarray:
    """Corners of a nail as the camera sees it, float (K, 2), in radii: along from the root, and across."""
    total, half = limb.bed + limb.free, limb.width / 2
    u = np.linspace(0, total, 28)
    length, share = NAIL_SHAPES[limb.nail]
    tip = min(length * half, 0.55 * total)
    width = half * np.sqrt(1 - np.clip(1 - u / (0.85 * half), 0, 1) ** 2.4)
    width *= share(np.clip((u - (total - tip)) / tip, 0, 1))
    # the plate lies on a cylinder: its flat width is an angle around the finger's axis
    left, right = (np.sin(np.clip(limb.roll + sign * width / 1.04, -1.5, 1.5)) for sign in (-1, 1))
    return np.concatenate([np.stack([u, left], 1), np.stack([u, right], 1)[::-1]])


def window(low: np.ndarray, high: np.ndarray, size: tuple[int, ...]):
    """A box's part of an image, which may be empty: its slices, and x (1, W) and y (H, 1) there."""
    low, high = np.clip([np.floor(low), np.ceil(high)], 0, size[::-1]).astype(int)
    part = np.s_[low[1] : high[1], low[0] : high[0]]
    return part, *np.ogrid[part][::-1]


def fill(outline: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The inside of an outline, float (K, 2) of x and y, in an image; antialiased float32 (H, W), 0..1."""
    corners = np.round(outline * 16).astype(np.int32)
    return cv2.fillPoly(np.zeros(size, np.uint8), [corners], 255, cv2.LINE_AA, 4).astype(np.float32) / 255


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], grain: float) -> np.ndarray:
    """Smooth noise of about unit variance, float32 (H, W), with features `grain` pixels wide."""
    coarse = rng.standard_normal([max(3, int(side / grain) + 2) for side in size]).astype(np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
