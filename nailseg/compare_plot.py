"""The picture of `nailseg compare`: differences with their intervals, and single images in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito
GREY, LIGHT = "#777", "#e2e2e2"
WIDTH, LEFT, RIGHT, CURVE_LEFT, CURVE_HEIGHT = 860, 340, 830, 80, 180  # pixels


def picture(result: dict[str, Any], deltas: dict[str, list[np.ndarray]]) -> str:
    """Draws a forest plot, and below it every class's differences of single images.

    Args:
        result: as `compare.compare` returns it.
        deltas: per class, ascending differences in Dice, one array per run but the reference.

    Returns:
        An SVG document on white ground, without script and without files beside it.
    """
    rows = [row for row in result["rows"] if row["verdict"] != "reference"]
    n_runs = len(next(iter(deltas.values())))
    parts, y = [_text(20, 30, f"run - {result['rows'][0]['run']}, with 95 % intervals", size=17)], 55
    ends = [row[key] for row in rows for key in ("low", "high", "difference") if row[key] is not None]
    place, ticks = _axis(ends, LEFT, RIGHT)
    bottom = y + 26 * len(rows)
    for tick in ticks:
        parts.append(_line(place(tick), y, place(tick), bottom, LIGHT if tick else GREY))
        parts.append(_text(place(tick), bottom + 18, _signed(tick), "middle"))
    for number, row in enumerate(rows):
        color, y = COLORS[number % n_runs % len(COLORS)], y + 26
        parts.append(_text(LEFT - 12, y - 8, _short(f"{row['class']}  {row['number']}  {row['run']}"), "end"))
        if row["low"] is not None:
            parts.append(_line(place(row["low"]), y - 13, place(row["high"]), y - 13, color, 3))
        if row["difference"] is not None:
            parts.append(f'<circle cx="{place(row["difference"]):.1f}" cy="{y - 13}" r="5" fill="{color}"/>')
    for name, curves in deltas.items():
        y += 80
        parts.append(_text(20, y, f"Difference in Dice of each image with {_short(name)}, in order", size=17))
        place, ticks = _axis(np.concatenate(curves), y + 15 + CURVE_HEIGHT, y + 15)
        for tick in ticks:
            parts.append(_line(CURVE_LEFT, place(tick), RIGHT, place(tick), LIGHT if tick else GREY))
            parts.append(_text(CURVE_LEFT - 8, place(tick) + 4, _signed(tick), "end"))
        for number, curve in enumerate(curves):
            x = CURVE_LEFT + (RIGHT - CURVE_LEFT) * (np.arange(len(curve)) + 0.5) / max(1, len(curve))
            points = " ".join(f"{a:.1f},{place(b):.1f}" for a, b in zip(x, curve, strict=True))
            # dots of no length with round ends: one per image, so that five images do not look like a curve
            dots = "".join(f"M{point}h0" for point in points.split())
            style = f'fill="none" stroke="{COLORS[number % len(COLORS)]}"'
            parts.append(f'<polyline points="{points}" {style}/>')
            parts.append(f'<path d="{dots}" {style} stroke-width="5" stroke-linecap="round"/>')
        y += 15 + CURVE_HEIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 30}" font-family="system-ui">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>", ""])


def _axis(values: Sequence[float], start: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    """From values to pixels, and about five round values; 0 is always among them."""
    low, high = min([0.0, *values]), max([0.0, *values])
    low, high = (low, high) if high > low else (-0.01, 0.01)
    power = 10 ** np.floor(np.log10(high - low))
    step = next(power * f for f in (0.2, 0.5, 1, 2) if (high - low) / (power * f) <= 6)
    ticks = [round(n * step, 12) for n in range(int(np.floor(low / step)), int(np.ceil(high / step)) + 1)]
    span = ticks[-1] - ticks[0]
    return lambda value: start + (end - start) * (value - ticks[0]) / span, ticks


def _signed(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _short(name: str) -> str:
    return name if len(name) <= 42 else f"{name[:41]}…"


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 13) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} fill="#222">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: int = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width}"/>'
