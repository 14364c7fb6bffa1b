"""Runs a command in order: exit codes instead of tracebacks, log lines on stderr, signals."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from nailseg.errors import NailsegError, process_message
from nailseg.types import STOP_SIGNALS


class UsageError(Exception):
    """A command line that cannot be parsed; the exit code is 2."""


def run_guarded(action: Callable[[], object]) -> int:
    """Runs an action and turns errors of the input into one message and an exit code, without a traceback.

    The code is the integer that the action returns, else 0; 1 for an error of the input, 2 for a command line
    that cannot be parsed, 128 + signal if a signal ended it.
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
        message = process_message(error) or str(error)
    except KeyboardInterrupt:
        message, code = "interrupted", 128 + signal.SIGINT
    except SystemExit as error:  # of `signals_exit`, or the training's own
        if not (isinstance(error.code, int) and error.code - 128 in STOP_SIGNALS):
            raise
        message, code = f"interrupted by {signal.Signals(error.code - 128).name}", error.code
    except (RuntimeError, ValueError) as error:
        text = (str(error).splitlines() or [""])[0]
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be imported here
            message = (
                f"the GPU's memory is full. {text} Use a smaller --data.batch_size (with "
                "--trainer.accumulate_grad_batches for the same steps) or --data.size; predict: --tile."
            )
        elif text.startswith("Symlink loop") or "null byte" in text or "null character" in text:
            message = f"expected a path, found one that cannot exist ({text}). Correct it."  # of pathlib
        elif (found := process_message(error)) is None:
            raise
        else:
            message = found
    print(f"nailseg: {message}", file=sys.stderr)
    return code


def signals_exit() -> AbstractContextManager[None]:
    """Stop signals end the process like an exception: half-written files are removed on the way out."""
    return signals_call(lambda number, _: sys.exit(128 + number))


@contextlib.contextmanager
def signals_call(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Stop signals call `handler` with their number and the frame; the old handlers are back afterwards."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


def _log_to_stderr() -> None:
    """Shows the package's own lines; on rank 0 only, because the other ranks would repeat them."""
    logger = logging.getLogger("nailseg")
    logger.setLevel(logging.INFO if os.environ.get("LOCAL_RANK", "0") == "0" else logging.ERROR)
    logger.handlers = [logging.StreamHandler()]  # a new one: the process may have another stderr by now
    logger.propagate = False
