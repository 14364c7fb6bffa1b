"""Runs a function over many rows in threads: reading and decoding release Python's lock."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from tqdm.contrib.concurrent import thread_map

MAX_THREADS = 8  # more gain nothing, and each may hold a decoded image of 200 megapixels


def map_threads(function: Callable[[Any], Any], jobs: Sequence, title: str) -> list[Any]:
    """Calls `function` for each job; `title` names the progress bar on stderr."""
    workers = min(os.cpu_count() or 1, MAX_THREADS)
    bar = {"desc": title, "unit": " rows", "leave": False, "disable": not jobs}
    return thread_map(function, jobs, max_workers=workers, **bar)
