"""Runs a command in order: exit codes instead of tracebacks, log lines on stderr, signals."""

import contextlib
import difflib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator

from nailseg.errors import NailsegError


class UsageError(Exception):
    """A command line that cannot be parsed; the exit code is 2."""


def suggest(wrong: str, known: Iterable[str], command: str) -> str:
    """Names the known word that a mistyped one is meant to be, or the command whose help lists all.

    Example:
        >>> suggest("--data.sise", ["--data.size", "--data.csv"], "nailseg fit")
        'Did you mean --data.size?'
    """
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.8)
    return f"Did you mean {near[0]}?" if near else f"`{command} --help` lists all."


def run_guarded(action: Callable[[], object]) -> int:
    """Runs an action and turns errors of the input into one message and an exit code, without a traceback.

    The code is the integer that the action returns, else 0; 1 for an error of the input, 2 for a command line
    that cannot be parsed, 130 if interrupted.
    """
    _log_to_stderr()
    code = 1
    try:
        result = action()
        return result if isinstance(result, int) else 0
    except UsageError as error:
        message, code = " ".join(str(error).split()), 2
    except (NotADirectoryError, FileExistsError) as error:
        message = (
            f"{error.filename}: expected a folder or a new name, found that it, or what it lies in, "
            f"is a file ({error.strerror}). Choose another place."
        )
    except (NailsegError, OSError) as error:  # OSError: a full disk, a folder without permission
        message = str(error)
    except KeyboardInterrupt:
        message, code = "interrupted", 128 + signal.SIGINT
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which need not be imported here
            raise
        message = (
            f"the GPU's memory is full. {str(error).splitlines()[0]} Use a smaller --data.batch_size (with "
            "--trainer.accumulate_grad_batches for the same steps) or --data.size; predict: --tile."
        )
    print(f"nailseg: {message}", file=sys.stderr)
    return code


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM ends the process like an exception: half-written files are removed on the way out."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _log_to_stderr() -> None:
    """Shows the package's own lines; on rank 0 only, because the other ranks would repeat them."""
    logger = logging.getLogger("nailseg")
    logger.setLevel(logging.INFO if os.environ.get("LOCAL_RANK", "0") == "0" else logging.ERROR)
    logger.handlers = [logging.StreamHandler()]  # a new one: the process may have another stderr by now
    logger.propagate = False
