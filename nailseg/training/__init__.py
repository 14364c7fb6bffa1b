"""Training: the Lightning task, its losses, its optimizer and its callbacks.

`SegmentationTask` trains, validates and tests any network of `nailseg.models`. It does not import the data;
the command line connects both.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nailseg.training.task import SegmentationTask

__all__ = ["SegmentationTask"]

_LAZY = {"SegmentationTask": "nailseg.training.task"}


def __getattr__(name: str) -> object:
    """Imports a public name on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
