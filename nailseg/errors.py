"""One class per kind of fault a user can cause.

Every message says what was expected, what was found, where, and the way out. The command line prints it and
exits with 1; from Python it is an ordinary exception.
"""

from __future__ import annotations


class NailsegError(Exception):
    """Base of everything that is the input's fault and not the program's."""


class DataError(NailsegError):
    """A CSV, an image or a mask that cannot be trusted."""


class WeightsError(NailsegError):
    """Weights, a checkpoint or a model folder that cannot be found or do not fit."""


class ConfigError(NailsegError):
    """Options that contradict each other or name something that is not there."""


class OutputError(NailsegError):
    """Something would be overwritten or cannot be written."""
