"""Evaluation: the report of a test, and the comparison of runs.

`write_report` turns the counts of a test into metrics.json, per_image.csv and report.html; it takes results
and a Segmenter, and knows nothing of training. `compare_runs` reads per_image.csv files of several runs and
gives paired differences with bootstrap intervals.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nailseg.evaluation.compare import compare_runs
    from nailseg.evaluation.report import write_report

__all__ = ["compare_runs", "write_report"]

_LAZY = {"compare_runs": "nailseg.evaluation.compare", "write_report": "nailseg.evaluation.report"}


def __getattr__(name: str) -> object:
    """Imports a public name on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
