"""The run folder: its name, its loggers, and which arguments a run, a config name or a model stands for."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from nailseg.checkpoints import model_folder
from nailseg.errors import ConfigError
from nailseg.inference.backends.as_module import read_module_info
from nailseg.inference.backends.exported import find_exported_file
from nailseg.model_info import locate

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

log = logging.getLogger("nailseg")

RUNS = Path("runs")
RUN_FOLDER_VARIABLE = "NAILSEG_RUN_FOLDER"
FOLD_VARIABLE = "NAILSEG_FOLD"
"""Set in the processes of `--folds`, which says itself how to go on."""


def find_config(name: str) -> Path:
    """A config's path from its name: as given, in ./configs, then among those that come with nailseg.

    Raises:
        ConfigError: in none of these places.
    """
    shipped = Path(str(resources.files("nailseg") / "configs"))
    if not shipped.is_dir():  # a checkout: the wheel carries configs/ inside the package
        shipped = Path(str(resources.files("nailseg"))).parent / "configs"
    for candidate in (Path(name), Path("configs") / name, shipped / name):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(path.name for path in shipped.glob("*.yaml"))) or "none"
    raise ConfigError(
        f"no config {name!r}: looked in {Path.cwd()}, ./configs and among those that come with nailseg "
        f"({known})."
    )


def options(args: list[str], *names: str) -> list[str]:
    """All values of an option, given as `--x v` or `--x=v`."""
    values = []
    for position, argument in enumerate(args):
        for name in names:
            if argument == name and position + 1 < len(args):
                values.append(args[position + 1])
            elif argument.startswith(f"{name}="):
                values.append(argument.split("=", 1)[1])
    return values


def option(args: list[str], *names: str) -> str | None:
    """The last value of an option, which is the one that counts; None if it is not given."""
    return next(reversed(options(args, *names)), None)


def without_option(args: list[str], *names: str) -> list[str]:
    """The arguments without an option and its value."""
    kept: list[str] = []
    skip = False
    for argument in args:
        if skip:
            skip = False
        elif argument in names:
            skip = True
        elif not argument.startswith(tuple(f"{name}=" for name in names)):
            kept.append(argument)
    return kept


def with_config_paths(args: list[str]) -> list[str]:
    """Replaces config names by paths, before the parser resolves them against the current folder only."""
    resolved = list(args)
    for position, argument in enumerate(args):
        for name in ("--config", "-c"):
            if argument == name and position + 1 < len(args):
                resolved[position + 1] = str(find_config(args[position + 1]))
            elif argument.startswith(f"{name}="):
                resolved[position] = f"{name}={find_config(argument.split('=', 1)[1])}"
    return resolved


def resume_arguments(args: list[str], run: str) -> list[str]:
    """What `--resume RUN` stands for: the run's own config, its last checkpoint, then the other arguments.

    Raises:
        ConfigError: the folder is no run, or has no checkpoint yet.
    """
    if option(args, "--name"):
        raise ConfigError(f"--resume {run} continues in that folder: --name has no meaning beside it.")
    folder = Path(run)
    config, last = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
    for needed in (config, last):
        if not needed.is_file():
            raise ConfigError(
                f"--resume {run}: expected {needed}, found none. Give the folder of a run that has finished "
                f"at least one epoch (runs/NAME), or start anew without --resume."
            )
    rest = without_option(args, "--resume")
    # the weights come from the checkpoint too: building the network must not need the hub
    return [f"--config={config}", *rest, f"--model.weights={last}", f"--ckpt_path={last}"]


def evaluation_arguments(args: list[str]) -> tuple[list[str], str]:
    """What `validate` and `test` evaluate: a checkpoint, the weights given, or the best of the config's run.

    A model's own size, resize rule and classes become the defaults, so that it is tested as it is; options
    given by hand still win.

    Returns:
        The arguments with `--model.weights` set, and the model's source.

    Raises:
        ConfigError: there is nothing trained to evaluate.
    """
    configs = [Path(path) for path in options(args, "--config", "-c")]
    source = option(args, "--ckpt_path") or option(args, "--model.weights")
    if source is None:
        source = next(
            (str(best) for config in reversed(configs) if (best := _best_beside(config)).is_file()), None
        )
    if source is None:
        source = next((found for config in reversed(configs) if (found := value_in(config, "weights"))), None)
    if source is None:
        raise ConfigError(
            "nothing to evaluate: give --model.weights MODEL (a model folder), --ckpt_path CHECKPOINT, or "
            "the config.yaml of a run that has checkpoints/best.ckpt beside it."
        )
    source = locate(source)
    own: list[str] = []
    if info := read_module_info(source):
        exported = find_exported_file(source)
        if exported and options(args, "--data.size", "--data.eval_size", "--data.resize"):
            raise ConfigError(
                f"--data.size, --data.eval_size, --data.resize: expected none of them for {exported}, whose "
                f"graph resizes to {info.image_size} pixels itself. Leave them out."
            )
        own = [
            f"--data.size={info.image_size}",
            f"--data.eval_size={0 if exported else 'null'}",
            f"--data.resize={info.resize}",
            f"--data.classes={list(info.class_names)}",
            f"--model.name={info.architecture}",
        ]
    log.info("evaluating %s", source)
    rest = without_option(args, "--ckpt_path", "--config", "-c")
    # configs first, for training at another size may be what they are about
    return [*(f"--config={path}" for path in configs), *own, *rest, f"--model.weights={source}"], source


def _best_beside(config: Path) -> Path:
    return config.parent / "checkpoints" / "best.ckpt"


def value_in(config: Path, name: str, part: str | None = "model") -> Any:
    """An option's value in a config file; None where the file does not give it. No part: at its top."""
    try:
        options = yaml.safe_load(config.read_text()) or {}
        options = options.get(part) if part else options
    except (yaml.YAMLError, AttributeError, OSError):
        return None  # the parser will say what is wrong with it
    return options.get(name) if isinstance(options, dict) else None


def run_name(args: list[str]) -> str | None:
    """The name of a run after its last config; a run's own config.yaml is named after its run."""
    config = option(args, "--config", "-c")
    if config is None:
        return None
    path = Path(config)
    return path.absolute().parent.name if path.name == "config.yaml" else path.stem


def choose_folder(name: str, rank: int, parent: str | Path = RUNS) -> Path:
    """The folder of a new run: rank 0 makes runs/NAME, or NAME-2 … where it is taken; the others follow.

    Processes that rank 0 launches read its choice from the environment. Those launched beside it (torchrun,
    SLURM) only need a path to start with: everything that is written, is written by rank 0.
    """
    if rank != 0:
        return Path(os.environ.get(RUN_FOLDER_VARIABLE, Path(parent) / name))
    Path(parent).mkdir(parents=True, exist_ok=True)
    while True:
        folder = model_folder.unique_path(Path(parent) / name)
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another run took the name in this very moment
        os.environ[RUN_FOLDER_VARIABLE] = str(folder)
        return folder


def wandb_loggers(folder: Path, rank: int) -> list[Logger]:
    """W&B: online with a key, else offline; none if WANDB_MODE=disabled or wandb is not installed.

    Its files and the run's stable id live in the run folder, so that a resumed run continues the same curve.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return []
    try:
        wandb = import_module("wandb")
    except ImportError:
        log.info("W&B is not installed: curves go to %s only", folder / "metrics.csv")
        return []
    from lightning.pytorch.loggers import WandbLogger

    offline = mode in ("offline", "dryrun") or (mode is None and not _has_wandb_key())
    if offline and rank == 0:
        log.info(
            "W&B runs offline (no key found or WANDB_MODE=offline); `wandb sync` uploads %s/wandb", folder
        )
    id_file = folder / "wandb" / "run-id.txt"
    if rank == 0 and not id_file.exists():
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(secrets.token_hex(4))
    run_id = id_file.read_text() if id_file.exists() else None
    return [
        WandbLogger(
            project=os.environ.get("WANDB_PROJECT", "nailseg"),
            name=folder.name,
            id=run_id,
            save_dir=folder,
            offline=offline,
            resume="allow",
            settings=wandb.Settings(quiet=True),  # its table repeats what we print
        )
    ]


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
        return netrc.netrc().authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
