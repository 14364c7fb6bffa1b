"""Poses a drawn hand: where its joints lie, how thick it is there, and which fingers show a nail.

Lengths are in palms: the wrist is at (0, 0), the middle knuckle at (0, 1); x to the right, z to the camera.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

# index, middle, ring and little finger and the thumb
KNUCKLES = np.array([(-0.31, 0.94), (-0.10, 1.0), (0.11, 0.95), (0.30, 0.83), (-0.46, 0.52)])
PHALANGES = ((0.42, 0.27, 0.22), (0.47, 0.30, 0.23), (0.43, 0.28, 0.23), (0.33, 0.21, 0.20), (0.33, 0.29))
RADII = (0.098, 0.102, 0.096, 0.083, 0.112)


@dataclass(frozen=True)
class Nail:
    """A nail on the last phalanx."""

    shape: str  # a key of render.NAIL_SHAPES
    width: float  # of the flat nail; this, `bed` and `free` in radii of the finger
    bed: float  # length attached to the finger
    free: float  # length beyond the bed
    roll: float  # radians the finger is turned about its own axis; 0 faces the camera


@dataclass(frozen=True)
class Limb:
    """A tube through points, float (K, 3), with a radius at each, float (K,)."""

    points: np.ndarray
    radii: np.ndarray
    is_finger: bool = False
    nail: Nail | None = None  # at the last point


def pose_hand(rng: np.random.Generator, pose: str, visible: tuple[int, ...]) -> list[Limb]:
    """The limbs of one right hand, in palms.

    Args:
        rng: Source of every choice.
        pose: `back`: stretched or slightly bent fingers; `folded`: the fingers lie on the palm, nails towards
            the camera; `palm`: stretched, no nail visible.
        visible: Fingers that show their nail, 0 (index) .. 3 (little) and 4 (thumb).
    """
    slim, spread, bend = rng.uniform((0.88, -0.3, 0), (1.12, 1.1, 0.5))
    shape = str(rng.choice(["round", "square", "almond", "coffin"], p=[0.4, 0.22, 0.2, 0.18]))
    free = rng.gamma(1.5, 0.25) if shape in ("round", "square") else rng.uniform(0.5, 1.5)
    bed, broad = rng.uniform((1.05, 1.48), (1.35, 1.76))
    limbs = [_palm([(0, 0.12, -0.08), (0, -0.25, -0.04), (0, -4, 0)], [0.26, 0.25 * slim, 0.42])]
    limbs += [_palm([(x / 2, 0.1, 0), (x, y, 0.03)], [0.2, 0.135 * slim]) for x, y in KNUCKLES]
    for a, b in pairwise(KNUCKLES[:4]):  # the flesh between the metacarpals
        limbs.append(_palm([(*(a + b) * 0.35, 0), (*(a + b) / 2, -0.02)], [0.2, 0.12]))
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
        nail = Nail(shape, width, width * length, width * min(free, 1.5), roll)
        limbs.append(
            _finger(finger, angle, slopes * (not thumb), RADII[finger] * slim, nail if shows else None)
        )
    return limbs


def _palm(points: list[tuple[float, ...]], radii: list[float]) -> Limb:
    return Limb(np.array(points), np.array(radii))


def _finger(finger: int, angle: float, slopes: np.ndarray, radius: float, nail: Nail | None) -> Limb:
    """A chain of phalanges at one angle in the plane; positive slopes lead away from the camera."""
    points, radii = [np.array([*KNUCKLES[finger], 0.05])], [1.12]
    for number, (slope, length) in enumerate(zip(slopes, PHALANGES[finger], strict=False), 1):
        last = number == min(len(slopes), len(PHALANGES[finger]))
        flat = length * np.cos(slope) - last * radius * 0.78  # the tube ends round, before the tip
        step = np.array([flat * np.sin(angle), flat * np.cos(angle), -0.7 * length * np.sin(slope)])
        points += [points[-1] + step / 2, points[-1] + step]
        radii += [1 - 0.07 * number, 0.8 if last else 1.05 - 0.05 * number]  # thicker at the joints
    return Limb(np.array(points), np.array(radii) * radius, True, nail)


def place_hand(rng, limbs: list[Limb], box: np.ndarray, smallest: float, zoom: float) -> list[Limb]:
    """Turns, mirrors, scales and moves a hand so that every nail lies within a box; the result is in pixels.

    `box` is float (2, 2): left and top, right and bottom. A palm is at least `smallest` pixels long if there
    is space, and at most `zoom` times that: a single finger could fill any box.
    """
    angle = rng.normal(0, 0.7) if rng.random() < 0.7 else rng.uniform(-np.pi, np.pi)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    mirror = rng.choice([-1, 1])
    # the camera looks at an angle; image rows run downwards
    matrix = turn @ np.diag(rng.uniform(0.8, 1.05, 2) * (mirror, -1))
    shown = [limb for limb in limbs if limb.nail] or [limb for limb in limbs if limb.is_finger]
    tips = np.array([limb.points[-1, :2] for limb in shown]) @ matrix.T
    reach = max((1.3 + (limb.nail.free if limb.nail else 0)) * limb.radii[-2] for limb in shown)
    low, high = tips.min(0) - reach, tips.max(0) + reach
    largest = min(float(np.min((box[1] - box[0]) / (high - low))), zoom * smallest)
    scale = max(min(smallest, largest), largest * rng.uniform(0.7, 1.0))
    offset = box[0] + (box[1] - box[0] - scale * (high - low)) * rng.random(2) - scale * low
    placed = []
    for limb in limbs:
        points = np.column_stack([limb.points[:, :2] @ matrix.T * scale + offset, limb.points[:, 2] * scale])
        nail = limb.nail and replace(limb.nail, roll=-limb.nail.roll * mirror)
        placed.append(replace(limb, points=points, radii=limb.radii * scale, nail=nail))
    return placed
