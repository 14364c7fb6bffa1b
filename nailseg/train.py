"""`python -m nailseg.train --config b4.yaml`: fit, test the best checkpoint, write a model."""

from __future__ import annotations

import logging
import sys

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from nailseg import artifact, folds, recipe, runs
from nailseg.errors import ConfigError
from nailseg.lightning_cli import NailsegCLI


def run(verb: str, args: list[str], test_after_fit: bool = False) -> NailsegCLI:
    """Runs fit, validate or test.

    Args:
        verb: `fit`, `validate` or `test`.
        args: its options, as typed.
        test_after_fit: whether `fit` ends with the test of the best checkpoint.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # device lists and tips bury the lines that matter
    args = runs.with_config_paths(args)
    name = runs.run_name(args) or verb
    if not {"-h", "--help"} & set(args):
        if verb == "fit" and (resumed := runs.option(args, "--resume")):
            args = [*runs.resume_arguments(args, resumed), f"--resume={resumed}"]
        elif verb == "fit":
            args = recipe.adapted_arguments(args)
        else:
            args, source = runs.evaluation_arguments(args)
            name = artifact.model_name(source)
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
    from nailseg.cli import guarded

    args = list(sys.argv[1:] if args is None else args)
    if runs.option(args, "--folds") and not {"-h", "--help"} & set(args):
        return guarded(lambda: folds.train_folds(args))
    return guarded(lambda: run("fit", args, test_after_fit=True))


if __name__ == "__main__":
    sys.exit(main())
