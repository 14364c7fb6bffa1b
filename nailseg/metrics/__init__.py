"""Segmentation metrics from integer counts: pixels, boundaries, instances and calibration.

`count_images` counts a batch of logits against its masks; `summarize` turns the counts of a set into the
numbers of metrics.json. Bootstrap intervals and slices use the same formulas. `ConfusionMatrix` is the cheap
metric of validation during training. The README defines the numbers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nailseg.metrics.confusion import ConfusionMatrix
    from nailseg.metrics.image_counts import count_images, summarize

__all__ = ["ConfusionMatrix", "count_images", "summarize"]

_LAZY = {
    "ConfusionMatrix": "nailseg.metrics.confusion",
    "count_images": "nailseg.metrics.image_counts",
    "summarize": "nailseg.metrics.image_counts",
}


def __getattr__(name: str) -> object:
    """Imports a public name on first use: exported models use `metrics.instances` without torch."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
