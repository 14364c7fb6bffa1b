"""Training: the Lightning task, its losses, its optimizer and its callbacks.

`SegmentationTask` trains, validates and tests any network of `nailseg.models`. It does not import the data;
the command line connects both.
"""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names

if TYPE_CHECKING:
    from nailseg.training.task import SegmentationTask

__all__ = ["SegmentationTask"]
__getattr__ = lazy_names(__name__, "task.SegmentationTask")
