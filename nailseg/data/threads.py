"""Runs one function over many rows in threads: reading and decoding release Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from tqdm.contrib.concurrent import thread_map

Job = TypeVar("Job")
Result = TypeVar("Result")
MAX_THREADS = 8
"""More threads gain nothing, and each may hold a decoded image of 200 megapixels."""


def map_threads(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    description: str,
    progress: bool = False,
    workers: int | None = None,
) -> list[Result]:
    """Calls `function` for each job in threads; the results have the order of the jobs.

    Args:
        function: takes one job.
        jobs: its arguments.
        description: title of the progress bar.
        progress: show a progress bar on stderr.
        workers: number of threads; by default one per core, 8 at most.
    """
    workers = workers or min(os.cpu_count() or 1, MAX_THREADS)
    bar = {"desc": description, "unit": " rows", "leave": False, "disable": not progress}
    return thread_map(function, jobs, max_workers=workers, **bar)
