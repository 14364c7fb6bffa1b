"""The verbs of `nailseg`; `main(args)` is the whole command line in one call.

The options of a verb are the parameters of its function, and their help is its docstring (cyclopts reads
both). Its module is imported when the verb is called: `nailseg --help` loads neither torch nor transformers.
fit, validate, test and train are Lightning's command line (`cli/lightning.py`).
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError, Parameter

from nailseg import __version__
from nailseg.cli.messages import describe_type
from nailseg.cli.runner import UsageError, run_guarded, sigterm_raises

LIGHTNING = "cli.lightning:run"
VERBS = {
    "sample": ("data.synthetic.sample:write_sample", "draw a sample data set: Images/1..4 and Masks/1..4"),
    "index": ("data.splitting.index:index_dataset", "pair images with masks, split them, write the CSV"),
    "check": ("data.validation.command:validate_dataset", "find every issue of a data set, and its fix"),
    "import": ("data.importers.importer:import_dataset", "other formats -> Images/, Masks/ and nails.csv"),
    "train": (LIGHTNING, "fit, test the best checkpoint, write the model folder"),
    "fit": (LIGHTNING, "train a model on a CSV of image/mask pairs"),
    "validate": (LIGHTNING, "measure a model on the CSV's val rows"),
    "test": (LIGHTNING, "measure a model on the CSV's test rows"),
    "compare": ("evaluation.compare:compare_runs", "paired differences of runs over the same images"),
    "predict": ("inference.batch:predict_files", "write masks at the images' original size"),
    "export": ("export.exporter:export_model", "ONNX or OpenVINO, compared with torch"),
    "bench": ("export.benchmark:bench", "time each form of a model on this machine"),
    "tryon": ("cli.tryon:recolor_file", "a photograph with its nails in another colour"),
    "serve": ("serving:serve", "a model behind HTTP, and a page to try it on"),
    "convert": ("checkpoints.convert:convert", "NVlabs or mmsegmentation weights -> a model folder"),
}
"""Each verb: the function below `nailseg` that does its work, and its line in `nailseg --help`."""

OPTIONS = {"as_json": "json", "command": "for"}
"""Options whose name is a keyword or a module in Python, where the parameter has another."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code, as `run_guarded`; None takes the process's own arguments."""
    args = list(sys.argv[1:] if args is None else args)
    verb = args[0] if args else ""
    if VERBS.get(verb, ("", ""))[0] == LIGHTNING:  # which handles signals itself
        return run_guarded(lambda: import_module("nailseg.cli.lightning").run(verb, args[1:]))
    with sigterm_raises():
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


def _call(verb: str, args: list[str]) -> object:
    """Calls the verb's function and prints its result."""
    if not args:
        raise UsageError("expected a command, found none. `nailseg --help` lists them.")
    try:
        result = command_line(verb)(args, exit_on_error=False, print_error=False)
    except (CoercionError, MissingArgumentError) as error:
        if error.argument is None:
            raise UsageError(str(error)) from None
        positional = error.argument.index is not None
        name = error.argument.name.strip("-").upper() if positional else error.argument.name
        if isinstance(error, MissingArgumentError) or error.token is None:
            raise UsageError(
                f"{verb}: expected {name}, found none. `nailseg {verb} --help` shows it."
            ) from None
        expected = describe_type(error.argument.hint)
        raise UsageError(f"{verb}: {name}: expected {expected}, found {error.token.value}") from None
    except CycloptsError as error:
        raise UsageError(str(error)) from None
    if isinstance(result, list):  # the images of `sample`, DIR/Images/1/NAME.jpg
        folder = result[0].parents[2]
        print(f"{len(result)} images with masks in {folder}. Next: nailseg index {folder}")
    elif result is not None and not isinstance(result, int):
        print(result)
    return result


def _show_default(value: Any) -> str | None:
    """A default as it is typed; None for what is off, empty or chosen later."""
    if value is None or value is False or value == ():
        return None
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _refuse_negative(kind: Any, value: Any) -> None:
    """No option of ours takes a whole number below 0."""
    if isinstance(value, int) and value < 0:
        raise ValueError("expected a whole number from 0 on")
