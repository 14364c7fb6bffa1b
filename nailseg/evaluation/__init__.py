"""Evaluation: the report of a test, and the comparison of runs.

`write_report` turns the counts of a test into metrics.json, per_image.csv and report.html; it takes results
and a Segmenter, and knows nothing of training. `compare_runs` reads per_image.csv files of several runs and
gives paired differences with bootstrap intervals.
"""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names

if TYPE_CHECKING:
    from nailseg.evaluation.compare import compare_runs
    from nailseg.evaluation.report import write_report

__all__ = ["compare_runs", "write_report"]
__getattr__ = lazy_names(__name__, "compare.compare_runs", "report.write_report")
