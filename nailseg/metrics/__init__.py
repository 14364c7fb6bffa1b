"""Segmentation metrics from integer counts: pixels, boundaries, instances and calibration.

`count_images` counts a batch of logits against its masks; `summarize` turns the counts of a set into the
numbers of metrics.json. Bootstrap intervals and slices use the same formulas. `ConfusionMatrix` is the cheap
metric of validation during training. docs/evaluation.md defines the numbers.
"""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names

if TYPE_CHECKING:
    from nailseg.metrics.confusion import ConfusionMatrix
    from nailseg.metrics.image_counts import count_images, summarize

__all__ = ["ConfusionMatrix", "count_images", "summarize"]
__getattr__ = lazy_names(
    __name__, "confusion.ConfusionMatrix", "image_counts.count_images", "image_counts.summarize"
)
