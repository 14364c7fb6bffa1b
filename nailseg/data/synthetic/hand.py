"""The pose of one drawn hand: where its joints lie, how thick it is there, which fingers show a nail.

Lengths are in palms: the wrist is at (0, 0), the middle knuckle at (0, 1), x to the right and y towards the
finger tips, z towards the camera. `place` turns that into pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from nailseg.data.synthetic.scene import unit_vectors

Pose = Literal["back", "folded", "palm"]
NAIL_SHAPES = ("round", "square", "almond", "coffin")

# index, middle, ring, little; the thumb follows as number 4
_KNUCKLES = np.array([(-0.31, 0.94), (-0.10, 1.0), (0.11, 0.95), (0.30, 0.83)])
_PHALANGES = np.array([(0.42, 0.27, 0.22), (0.47, 0.30, 0.23), (0.43, 0.28, 0.23), (0.33, 0.21, 0.20)])
_RADII = np.array([0.098, 0.102, 0.096, 0.083, 0.112])


@dataclass(frozen=True)
class Nail:
    """A nail on the last phalanx of a limb, in the limb's units."""

    shape: str  # one of NAIL_SHAPES
    width: float  # across, as laid flat
    bed: float  # length grown together with the finger
    free: float  # length beyond the bed
    roll: float  # radians the finger is turned about its own axis; 0 faces the camera


@dataclass(frozen=True)
class Limb:
    """A tube through `points`: a finger, a part of the palm, the forearm or a sleeve."""

    points: np.ndarray  # float (K, 2)
    z: np.ndarray  # float (K,), height of the axis
    radii: np.ndarray  # float (K,)
    kind: str  # what it is painted as: finger, palm or sleeve
    nail: Nail | None = None  # at the last point, if the camera sees one
    tilt: float = 1.0  # cosine of the last phalanx' slope: how much the nail is shortened
    joints: tuple[int, ...] = ()  # positions in `points` that get creases

    def moved(self, turn: np.ndarray, scale: float, offset) -> Limb:
        """Turned or mirrored by `turn`, float (2, 2), then scaled, then moved by `offset`."""
        nail = self.nail
        if nail is not None:
            lengths = {name: getattr(nail, name) * scale for name in ("width", "bed", "free")}
            nail = replace(nail, **lengths, roll=nail.roll * float(np.sign(np.linalg.det(turn))))
        points = self.points @ turn.T * scale + offset
        return replace(self, points=points, z=self.z * scale, radii=self.radii * scale, nail=nail)


def make_hand(rng: np.random.Generator, pose: Pose, shown: tuple[int, ...]) -> list[Limb]:
    """Joints of one right hand, in palms; `shown` fingers (0 index .. 3 little, 4 thumb) show their nail.

    Poses: "back": stretched or slightly bent; "folded": the palm faces the camera and the fingers are folded
    over it, nails to the camera; "palm": stretched, no nail to be seen. Limbs' heights say what hides what.
    """
    slim = rng.uniform(0.88, 1.12)
    style = _nail_style(rng)
    spread, bend = rng.uniform(-0.3, 1.1), rng.uniform(0.0, 0.5)
    limbs = _palm(rng, slim, folded=pose == "folded")
    for finger in range(4):
        radius = _RADII[finger] * slim
        visible = finger in shown
        if pose == "folded":
            joints, z = _folded_finger(rng, finger, visible, spread)
        else:
            joints, z = _straight_finger(rng, finger, visible or pose == "palm", spread, bend)
        nail = style(radius, rng.normal(0.1 * (finger - 1.5), 0.1)) if visible and pose != "palm" else None
        limbs.append(_finger(joints, z, radius, nail))
    if 4 in shown or rng.random() < 0.6 or pose == "palm":
        limbs += _thumb(rng, pose, 4 in shown, _RADII[4] * slim, style)
    sleeve = rng.uniform(-0.9, 0.05) if rng.random() < 0.5 else -1.2
    arm = [(0, 0.12), (0, -0.25), (0, -4.0)]
    limbs.append(_tube(arm, [-0.08, -0.04, 0], [0.26, 0.25 * slim, 0.42], "palm"))
    if sleeve > -1.2:
        limbs.append(_tube([(0, sleeve - 0.3), (0, -4.5)], [0.05, 0.05], [0.36, 0.55], "sleeve"))
    return limbs


def place(rng: np.random.Generator, limbs: list[Limb], box, smallest: float, zoom: float) -> list[Limb]:
    """Turns, scales and moves a hand, perhaps mirrored, so that every nail lies within `box`.

    Args:
        rng: Source of every choice.
        limbs: Units of palms; the result's are pixels, y downwards.
        box: Left, top, right, bottom in pixels.
        smallest: Pixels of a palm's length below which no hand is drawn unless the box is too small for it.
        zoom: How many times `smallest` a palm may be. A single finger could fill any box, and two hands
            should match each other.
    """
    left, top, right, bottom = box
    angle = rng.normal(0, 0.7) if rng.random() < 0.7 else rng.uniform(-np.pi, np.pi)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    squeeze = np.diag([rng.uniform(0.85, 1.05), rng.uniform(0.8, 1.05)])  # the camera looks from aslant
    mirror = np.diag([rng.choice([-1.0, 1.0]), -1.0])  # images count y downwards
    matrix = turn @ mirror @ squeeze
    corners = [matrix @ p for limb in limbs for p in _nail_span(limb)]
    if not corners:
        corners = [matrix @ p for limb in limbs if limb.kind == "finger" for p in limb.points]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    room = np.array([right - left, bottom - top])
    largest = min(float(np.min(room / (high - low))), zoom * smallest)
    scale = max(min(smallest, largest), largest * rng.uniform(0.7, 1.0))
    slack = room - scale * (high - low)
    offset = np.array([left, top]) + slack * rng.uniform(0.0, 1.0, 2) - scale * low
    return [limb.moved(matrix, scale, offset) for limb in limbs]


def _nail_span(limb: Limb) -> list[np.ndarray]:
    """Corners of a box around the last phalanx and its nail; empty for a limb without one."""
    if limb.nail is None:
        return []
    tip, radius = limb.points[-1], limb.radii[-1]
    along, across = unit_vectors(tip - limb.points[-2])
    reach, side = (radius + limb.nail.free) * along, 1.2 * radius * across
    back = tip - (limb.nail.bed * 1.3) * along
    return [tip + reach + side, tip + reach - side, back + side, back - side]


def _nail_style(rng: np.random.Generator):
    """A manicure: shape and length are the hand's, small differences the finger's."""
    shape = str(rng.choice(NAIL_SHAPES, p=[0.4, 0.22, 0.2, 0.18]))
    long = rng.gamma(1.5, 0.25) if shape in ("round", "square") else rng.uniform(0.5, 1.5)
    bed = rng.uniform(1.05, 1.35)
    broad = rng.uniform(0.74, 0.88)

    def style(radius: float, roll: float) -> Nail:
        width = 2 * radius * broad * rng.uniform(0.95, 1.05)
        free = width * min(long, 1.5) * rng.uniform(0.9, 1.1)
        return Nail(shape, width, width * bed * rng.uniform(0.94, 1.06), free, -roll)

    return style


def _towards(angle: float) -> np.ndarray:
    return np.array([np.sin(angle), np.cos(angle)])


def _tube(points, z, radii, kind) -> Limb:
    return Limb(np.array(points, float), np.array(z, float), np.array(radii, float), kind)


def _palm(rng: np.random.Generator, slim: float, folded: bool) -> list[Limb]:
    """Four metacarpals and the flesh between them; from the palm's side also the two balls."""
    limbs = []
    for x, y in _KNUCKLES:
        limbs.append(_tube([(x * 0.5, 0.1), (x, y)], [0.0, 0.03], [0.2, 0.135 * slim], "palm"))
    for a, b in pairwise(_KNUCKLES):
        limbs.append(_tube([(a + b) * 0.35, (a + b) / 2 + (0, 0.05)], [0, -0.02], [0.2, 0.12], "palm"))
    if folded:
        limbs.append(_tube([(-0.2, 0.25), (-0.3, 0.5)], [0.08, 0.06], [0.2, 0.16], "palm"))
        limbs.append(_tube([(0.22, 0.2), (0.27, 0.55)], [0.06, 0.04], [0.18, 0.15], "palm"))
    return limbs


def _straight_finger(rng, finger: int, visible: bool, spread: float, bend: float):
    """Knuckle, two joints and tip of a stretched finger; one that is bent away ends at its first joint."""
    angle = (finger - 1.4) * 0.16 * spread + rng.normal(0, 0.04)
    pitch = 0.15 * bend + rng.normal(0, 0.08)
    if not visible:
        pitch = rng.uniform(1.1, 1.4)
    joints, z = [_KNUCKLES[finger]], [0.05]
    for bone, length in enumerate(_PHALANGES[finger] * rng.uniform(0.94, 1.06)):
        step = length * np.cos(pitch)
        joints.append(joints[-1] + step * _towards(angle))
        z.append(z[-1] - length * np.sin(pitch) * 0.7)
        if not visible:
            break
        pitch = min(pitch + abs(rng.normal(0.7 * bend, 0.12)), 0.95)
        angle += rng.normal(0, 0.035) - 0.02 * (finger - 1.5) * bone
    return np.array(joints), np.array(z)


def _folded_finger(rng, finger: int, visible: bool, spread: float):
    """A finger folded over the palm: up to the first joint, then back down, towards the camera."""
    x, y = _KNUCKLES[finger]
    angle = (finger - 1.5) * 0.07 * spread + rng.normal(0, 0.03)
    up = _towards(angle)
    first, second, third = _PHALANGES[finger]
    joint = np.array([x, y]) + up * first * rng.uniform(0.45, 0.65)
    if not visible:
        return np.array([(x, y), joint]), np.array([0.05, 0.16])
    down = -_towards(angle * 0.6 + 0.05)
    bent = joint + down * second * rng.uniform(0.65, 0.95)
    tip = bent + down * third * rng.uniform(0.85, 1.0) + rng.normal(0, 0.01, 2)
    return np.array([joint, bent, tip]), np.array([0.16, 0.24, 0.22])


def _thumb(rng, pose: Pose, visible: bool, radius: float, style) -> list[Limb]:
    """Ball, web and the two phalanges of the thumb."""
    angle = -rng.uniform(0.25, 0.95)
    if pose == "folded":
        angle = rng.uniform(-0.5, 0.5)
    root = np.array([-0.46, 0.52]) + rng.normal(0, 0.02, 2)
    joint = root + _towards(angle) * 0.33
    inward = angle + rng.uniform(-0.25, 0.35)
    tip = joint + _towards(inward) * 0.29
    height = 0.3 if pose == "folded" and angle > 0 else 0.02
    limbs = [
        _tube([(-0.15, 0.2), root], [0, height / 2], [0.19, 0.14], "palm"),
        _tube([(-0.25, 0.5), (root + joint) / 2], [0, 0], [0.16, 0.08], "palm"),
    ]
    nail = style(radius, -rng.uniform(0.1, 0.75)) if visible and pose != "palm" else None
    limbs.append(_finger(np.array([root, joint, tip]), np.full(3, height), radius, nail))
    return limbs


def _finger(joints: np.ndarray, z: np.ndarray, radius: float, nail: Nail | None) -> Limb:
    """A tube through the joints, thicker at them than between, that ends round where the finger ends."""
    points, heights, radii, creases = [joints[0]], [z[0]], [1.12], []
    for number in range(1, len(joints)):
        a, b, last = joints[number - 1], joints[number], number == len(joints) - 1
        if last:
            b = b - unit_vectors(b - a)[0] * radius * 0.78
        points += [(a + b) / 2, b]
        heights += [(z[number - 1] + z[number]) / 2, z[number]]
        taper = 1.0 - 0.05 * number
        radii += [taper * (1.0 if last else 0.98), 0.8 if last else taper * 1.05]
        if not last:
            creases.append(len(points) - 1)
    flat = np.linalg.norm(joints[-1] - joints[-2])
    tilt = flat / (np.hypot(flat, (z[-1] - z[-2]) / 0.7) + 1e-9)
    array = np.array(points), np.array(heights), np.array(radii) * radius
    return Limb(*array, "finger", nail, float(tilt), tuple(creases))
