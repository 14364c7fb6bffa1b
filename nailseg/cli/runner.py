"""Runs a command in order: exit codes instead of tracebacks, log lines on stderr, signals."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from nailseg.errors import NailsegError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class UsageError(Exception):
    """A command line that cannot be parsed; the exit code is 2."""


def guarded(action: Callable[[], object]) -> int:
    """Runs an action and turns errors of the input into one message and an exit code, without a traceback.

    Args:
        action: what to run. An integer that it returns is the exit code.

    Returns:
        0 done, 1 an error of the input, 2 a command line that cannot be parsed, 130 interrupted.
    """
    _log_to_stderr()
    try:
        result = action()
    except UsageError as error:
        message, code = " ".join(str(error).split()), 2
    except (NotADirectoryError, FileExistsError) as error:
        message, code = (
            (
                f"{error.filename}: expected a folder or a new name, found that it, or what it lies in, "
                f"is a file ({error.strerror}). Choose another place."
            ),
            1,
        )
    except (NailsegError, OSError) as error:  # OSError: a full disk, a folder without permission
        message, code = str(error), 1
    except KeyboardInterrupt:
        message, code = "interrupted", 128 + signal.SIGINT
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which need not be imported here
            raise
        first_line = str(error).partition("\n")[0]
        message, code = (
            (
                f"the GPU's memory is full. {first_line} Use a smaller --data.batch_size (with "
                "--trainer.accumulate_grad_batches for the same steps) or --data.size; predict: --tile."
            ),
            1,
        )
    else:
        return result if isinstance(result, int) else 0
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
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]  # a new one each time: the process may have another stderr by now
    logger.propagate = False
