"""`python -m nailseg.train --config b4.yaml`: fit, test the best checkpoint, write a model."""

from __future__ import annotations

import logging
import sys

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from nailseg.cli import arguments, auto_config, cross_validation
from nailseg.cli.lightning import NailsegCLI
from nailseg.errors import ConfigError
from nailseg.model_info import model_name


def run(verb: str, args: list[str], test_after_fit: bool = False) -> NailsegCLI:
    """Runs fit, validate or test.

    Args:
        verb: `fit`, `validate` or `test`.
        args: its options, as typed.
        test_after_fit: whether `fit` ends with the test of the best checkpoint.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # device lists and tips bury the lines that matter
    args = arguments.with_config_paths(args)
    name = arguments.run_name(args) or verb
    if not {"-h", "--help"} & set(args):
        if verb == "fit" and (resumed := arguments.option(args, "--resume")):
            args = [*arguments.resume_arguments(args, resumed), f"--resume={resumed}"]
        elif verb == "fit":
            args = auto_config.adapted_arguments(args)
        else:
            args, source = arguments.evaluation_arguments(args)
            name = model_name(source)
    try:
        return NailsegCLI([verb, *args], name, test_after_fit)
    except MisconfigurationException as error:  # Lightning's word for options that do not go together
        raise ConfigError(str(error)) from error
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish()


def main(args: list[str] | None = None) -> int:
    """Runs `python -m nailseg.train`.

    Args:
        args: command line options; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 the input is at fault (2 comes from the argument parser).
    """
    from nailseg.cli.main import guarded

    args = list(sys.argv[1:] if args is None else args)
    if arguments.option(args, "--folds") and not {"-h", "--help"} & set(args):
        return guarded(lambda: cross_validation.train_folds(args))
    return guarded(lambda: run("fit", args, test_after_fit=True))


if __name__ == "__main__":
    sys.exit(main())
