"""Errors that the user's input can cause.

Each message states what was expected, what was found, where, and the fix. The command line prints it and
exits with 1; from Python it is an ordinary exception.
"""

from collections.abc import Sequence


class NailsegError(Exception):
    """Base of all errors in the input, as opposed to errors in the program."""


class DataError(NailsegError):
    """A CSV, an image or a mask that is missing, damaged or ambiguous."""


class WeightsError(NailsegError):
    """Weights, a checkpoint or a model folder that cannot be found or do not fit."""


class ConfigError(NailsegError):
    """Options that contradict each other or name something that does not exist."""


class OutputError(NailsegError):
    """A file that would be overwritten or cannot be written."""


def shorten_list(values: Sequence[object], limit: int = 8) -> str:
    """Lists the first values, for a message, and the number of the others.

    Examples:
        >>> shorten_list([1, 2, 3], limit=2)
        '1, 2 and 1 more'
    """
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return (", ".join(map(str, values[:limit])) or "none") + more
