"""What the data module's options may be, and what to say when they are not."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nailseg.errors import ConfigError
from nailseg.imaging.geometry import MULTIPLE

MAX_CLASSES = 254
"""Masks are 8 bits: 255 means ignore, 254 is kept for what has no class yet."""

ENTRIES = ("found", "wrong", "per_image")
"""What stands before a class's name in what a test writes: objects_found_NAME, dice_per_image_NAME."""


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


def valid_class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The names, if there are two or more different ones and the background is the first."""
    names = tuple(classes)
    problem = None
    if isinstance(classes, str) or not all(isinstance(name, str) and name.strip() for name in names):
        problem = "a list of names"
    elif not 2 <= len(names) <= MAX_CLASSES:
        problem = f"2 to {MAX_CLASSES} names (one foreground class is background and that class)"
    elif len(set(names)) < len(names):
        problem = "names that differ"
    elif "background" in names[1:]:
        problem = "background as the first name"
    elif "foreground" in names and len(names) > 2:
        problem = "another name than foreground, which in curves is the mean of several classes"
    elif taken := [
        name for name in names for other in names for part in ENTRIES if name == f"{part}_{other}"
    ]:
        problem = f"a name other than {taken[0]}, which columns of the report need for another class"
    if problem:
        raise ConfigError(
            f"--data.classes: expected {problem}, found {classes!r}. "
            "Give for example [background, nail]: the order is the class index."
        )
    return names
