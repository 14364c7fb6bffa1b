"""Errors that the user's input can cause.

Each message states what was expected, what was found, where, and the fix. The command line prints it and
exits with 1; from Python it is an ordinary exception.
"""

import inspect
import re
from collections.abc import Callable, Sequence


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


class WriteError(OutputError):
    """A place that takes no file, this one or the next: a full disk, a folder without permission."""


def name_own_options(text: str, command: Callable[..., object]) -> str:
    """Names the options of a command, such as `nailseg check`, where a message names those of a training.

    Messages that several commands share name options as `nailseg fit` has them: `--data.skip_bad true`.

    Examples:
        >>> def check(csv, /, *, skip_bad=False, root=None): ...
        >>> name_own_options("--data.skip_bad true, --data.root or --data.size", check)
        '--skip-bad, --root or --data.size'
    """
    parameters = inspect.signature(command).parameters

    def own(match: re.Match[str]) -> str:
        parameter = parameters.get(match["name"])
        if parameter is None or parameter.kind is not parameter.KEYWORD_ONLY:
            return match[0]
        return f"--{match['name'].replace('_', '-')}"

    return re.sub(r"--data\.(?P<name>\w+)( true)?", own, text)


def process_message(error: BaseException) -> str | None:
    """Returns what an error says that began in another process, without its traceback; None for others.

    torch raises it in the main process as a RuntimeError, or one of the same class, whose text holds the
    traceback; errors in the program, which only a traceback explains, give None.

    Examples:
        >>> first, last = "Caught E in DataLoader worker process 0.", "nailseg.errors.DataError: a.png: cut"
        >>> process_message(RuntimeError(f"{first}\\nTraceback …\\n{last}"))
        'a.png: cut'
    """
    text = str(error)
    lost = r"gloo/transport|Connection (reset|closed) by peer|NCCL.*remote process"
    if isinstance(error, RuntimeError) and re.search(lost, text):
        return (
            "another process of this training has ended, for the reason given above, or because it was "
            "killed. The last checkpoint is complete: --resume RUN continues from it."
        )
    if "DataLoader worker" not in text.partition("\n")[0]:
        return None
    if re.search("exited unexpectedly|is killed by signal", text):
        return (
            f"a process that reads data has ended: {text.splitlines()[0].strip()} If the memory was full, "
            "give fewer --data.workers, or 0 for none."
        )
    kinds = r"(?:nailseg\.[\w.]*|OS|FileNotFound|Permission)Error"
    own = re.findall(rf"^{kinds}: (.*)", text, re.MULTILINE | re.DOTALL)
    return own[-1].strip() if own else None


def shorten_list(values: Sequence[object], limit: int = 8) -> str:
    """Lists the first values, for a message, and the number of the others.

    Examples:
        >>> shorten_list([1, 2, 3], limit=2)
        '1, 2 and 1 more'
    """
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return (", ".join(map(str, values[:limit])) or "none") + more
