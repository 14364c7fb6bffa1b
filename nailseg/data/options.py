"""What the data module's options may be, and what to say when they are not."""

from __future__ import annotations

import os

from nailseg.errors import ConfigError
from nailseg.imaging.geometry import MULTIPLE


def reading_processes(training_processes: int) -> int:
    """How many workers read files for each training process: the cores left over, at least 1 and at most 8.

    Args:
        training_processes: Number of training processes on this machine.
    """
    # in a container the cores this process may use are fewer than the machine has
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, (cores - training_processes) // training_processes))


def at_least(name: str, value: int, smallest: int) -> int:
    """The value, if it is in range."""
    if value < smallest:
        raise ConfigError(f"--data.{name}: expected a whole number from {smallest} on, found {value}.")
    return value


def valid_size(size: int, name: str = "size") -> int:
    """The size, if the network can halve it five times."""
    if size < MULTIPLE or size % MULTIPLE:
        nearest = max(MULTIPLE, round(size / MULTIPLE) * MULTIPLE)
        raise ConfigError(
            f"--data.{name}: expected a multiple of {MULTIPLE}, found {size}. The nearest is {nearest}."
        )
    return size
