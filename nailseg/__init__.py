"""Fine-tune SegFormer on your own image/mask folders and measure the result with confidence intervals.

Importing the package is cheap: torch and everything above it is imported when it is first used.
"""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names

if TYPE_CHECKING:
    from nailseg.inference.segmenter import Result, Segmenter, load

__version__ = "0.1.0"
__all__ = ["Result", "Segmenter", "__version__", "load"]
__getattr__ = lazy_names(
    __name__, "inference.segmenter.Result", "inference.segmenter.Segmenter", "inference.segmenter.load"
)
