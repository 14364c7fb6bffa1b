"""Fine-tune SegFormer on your own image/mask folders and know honestly how good the result is.

Importing the package is cheap: torch and everything above it is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nailseg.inference.segmenter import Result, Segmenter, load

__version__ = "0.1.0"
__all__ = ["Result", "Segmenter", "__version__", "load"]


def __getattr__(name: str) -> object:
    if name in ("Result", "Segmenter", "load"):
        from nailseg.inference import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
