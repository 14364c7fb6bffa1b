"""The verbs of `nailseg`; `main(args)` is the whole command line in one call.

The options of a verb are the parameters of its function, and their help is its docstring (cyclopts reads
both). Its module is imported when the verb is called: `nailseg --help` loads neither torch nor transformers.
fit, validate, test and train are Lightning's command line (`cli/lightning.py`).
"""

import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError, Parameter
from cyclopts.exceptions import UnknownCommandError, UnknownOptionError, UnusedCliTokensError
from cyclopts.help import DefaultFormatter, HelpPanel

from nailseg import __version__
from nailseg.cli.messages import describe_type, suggest
from nailseg.cli.runner import UsageError, run_guarded, signals_exit
from nailseg.errors import NailsegError, name_own_options

LIGHTNING = "cli.lightning:run"
VERBS = {
    "sample": ("data.synthetic.sample:write_sample", "Draw a sample data set: Images/1..4 and Masks/1..4"),
    "index": ("data.splitting.index:index_dataset", "Pair images with masks, split them, write the CSV"),
    "check": ("data.validation.command:validate_dataset", "Validate a data set: every issue, and its fix"),
    "import": ("data.importers.importer:import_dataset", "Convert YOLO, COCO and hub data to image folders"),
    "train": (LIGHTNING, "Fit, then test the best checkpoint"),
    "fit": (LIGHTNING, "Train on a CSV of image/mask pairs, write the model folder"),
    "validate": (LIGHTNING, "Measure a model on the CSV's val rows"),
    "test": (LIGHTNING, "Measure a model on the CSV's test rows"),
    "compare": ("evaluation.compare:compare_runs", "Compare runs: paired differences over the same images"),
    "predict": ("inference.batch:predict_files", "Write masks at the images' original size"),
    "export": ("export.exporter:export_model", "Export to ONNX or OpenVINO, compared with torch"),
    "bench": ("export.benchmark:bench", "Time each form of a model on this machine"),
    "tryon": ("cli.tryon:recolor_file", "Show a photograph with its nails in another colour"),
    "serve": ("serving:serve", "Serve a model over HTTP, with a page to try it on"),
    "convert": ("checkpoints.convert:convert", "Convert NVlabs or mmsegmentation weights to a model folder"),
}
"""Each verb: the function below `nailseg` that does its work, and its line in `nailseg --help`."""

OPTIONS = {"as_json": "json", "command": "for"}
"""Options whose name is a keyword or a module in Python, where the parameter has another."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code, as `run_guarded`; None takes the process's own arguments."""
    args = list(sys.argv[1:] if args is None else args)
    verb = args[0] if args else ""
    is_lightning = VERBS.get(verb, ("", ""))[0] == LIGHTNING
    with signals_exit():
        if is_lightning:
            return run_guarded(lambda: import_module("nailseg.cli.lightning").run(verb, args[1:]))
        return run_guarded(lambda: _call(verb, args))


def command_line(verb: str = "") -> App:
    """The verbs as a cyclopts application; the help of `verb` begins with its function's docstring."""
    app = App(
        "nailseg",
        help="Fine-tune SegFormer on your own image/mask folders.",
        version=f"nailseg {__version__}",
        version_flags="--version",
        help_flags=("--help", "-h"),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        help_formatter=HelpFormatter(),
        default_parameter=Parameter(
            consume_multiple=True,  # --classes background nail
            name_transform=lambda name: OPTIONS.get(name, name).replace("_", "-"),
            negative_iterable=(),
            show_default=_show_default,
            validator=_refuse_negative,
        ),
    )
    for place, (name, (function, line)) in enumerate(VERBS.items()):
        own_help = None if name == verb else line
        app.command(f"nailseg.{function}", name=name, help=own_help, sort_key=place, version_flags=())
    return app


class HelpFormatter(DefaultFormatter):
    """Shows the words that an option takes, as in --tile INT|auto, where cyclopts would show CHOICE."""

    def __call__(self, console: Any, options: Any, panel: HelpPanel) -> None:
        """Prints one table of arguments or options."""
        for entry in panel.entries:
            metavar = (entry.metavar or "").replace("STR|PATH", "PATH")
            entry.metavar = metavar.replace("CHOICE", "|".join(entry.choices or ()))
            if not entry.positional_label:
                entry.choices = None
        super().__call__(console, options, panel)

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        """Prints the usage line, with names for values: --format FORMAT --out OUT."""
        named = re.sub(r"--([\w-]+) \S+", lambda match: f"--{match[1]} {match[1].upper()}", str(usage))
        super().render_usage(console, options, named)


def _call(verb: str, args: list[str]) -> object:
    """Calls the verb's function and prints its result."""
    if not args:
        raise UsageError("expected a command, found none. `nailseg --help` lists them.")
    # numbers may be written as in a config: --image-range '[7600,8110]'
    lists = (arg[1:-1].split(",") if re.fullmatch(r"\[\d+, ?\d+\]", arg) else [arg] for arg in args)
    args = [value.strip() if len(values) > 1 else value for values in lists for value in values]
    try:
        result = command_line(verb)(args, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise UsageError(_explain(verb, error)) from None
    except NailsegError as error:
        function = command_line(verb)[verb].default_command
        raise NailsegError(name_own_options(str(error), function)) from error
    if isinstance(result, list):  # the images of `sample`, DIR/Images/1/NAME.jpg
        folder = result[0].parents[2]
        print(f"{len(result)} images with masks in {folder}. Next: nailseg index {folder}")
    elif result is not None and not isinstance(result, int):
        print(result)
    return result


def _explain(verb: str, error: CycloptsError) -> str:
    """Makes one line from what cyclopts could not parse."""
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        wrong = error.unused_tokens[0]
        return f"unknown command {wrong}. {suggest(wrong, VERBS, 'nailseg')}"
    if isinstance(error, UnknownOptionError):
        wrong = (error.token.keyword or error.token.value).partition("=")[0]
        options = [name for argument in error.argument_collection for name in argument.names]
        return f"{verb}: unknown option {wrong}. {suggest(wrong, options, f'nailseg {verb}')}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        found = error.unused_tokens[0]
        return f"{verb}: expected no further argument, found {found}. `nailseg {verb} --help` lists all."
    if error.argument is None or not isinstance(error, CoercionError | MissingArgumentError):
        return f"{verb}: {error}"
    positional = error.argument.index is not None
    name = error.argument.name.strip("-").upper() if positional else error.argument.name
    if isinstance(error, MissingArgumentError) or error.token is None:
        return f"{verb}: expected {name}, found none. `nailseg {verb} --help` shows it."
    expected = describe_type(error.argument.hint)
    return f"{verb}: {name}: expected {expected}, found {error.token.value}"


def _show_default(value: Any) -> str | None:
    """A default as it is typed; None for what is off, empty or chosen later."""
    if value is None or value is False or value == ():
        return None
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _refuse_negative(kind: Any, value: Any) -> None:
    """No option of ours takes a whole number below 0."""
    if isinstance(value, int) and value < 0:
        raise ValueError("expected a whole number from 0 on")
