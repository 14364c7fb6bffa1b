"""A training command line before Lightning parses it: config names, `--resume`, and the model to evaluate."""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from nailseg.checkpoints.model_folder import CHECKPOINT_KEY, describe_weights, read_checkpoint
from nailseg.cli.runner import UsageError
from nailseg.errors import ConfigError, WeightsError
from nailseg.inference.backends import find_exported_file
from nailseg.inference.backends.as_module import read_module_info
from nailseg.model_info import ModelInfo, locate
from nailseg.models.pretrained import are_default_labels
from nailseg.schema import read_yaml
from nailseg.training.run_dir import LOGGERS
from nailseg.types import split_class_names

log = logging.getLogger("nailseg")

LIMITS = {
    "seed_everything": (0, 2**32 - 1),
    "patience": (0, math.inf),
    "trainer.accumulate_grad_batches": (1, math.inf),
    "trainer.check_val_every_n_epoch": (1, math.inf),
    "trainer.gradient_clip_val": (0, math.inf),
    "trainer.log_every_n_steps": (0, math.inf),
    "trainer.limit_train_batches": (1e-9, math.inf),
    "trainer.val_check_interval": (1e-9, math.inf),
    "trainer.max_epochs": (1, math.inf),
    "trainer.max_steps": (1, math.inf),
}
"""Options that Lightning takes with any number, and then divides by, or ignores."""


def find_config(name: str) -> Path:
    """Finds a config by name: as given, in ./configs, then among those that come with nailseg."""
    package = Path(str(resources.files("nailseg")))
    # inside the package in a wheel, beside it in a checkout
    shipped = (package / "configs", package.parent / "configs")
    for candidate in (Path(name), *(folder / name for folder in (Path("configs"), *shipped))):
        if candidate.is_file():
            return candidate
    names = {path.name for folder in shipped for path in folder.glob("*.yaml")}
    known = ", ".join(sorted(names)) or "none"
    raise ConfigError(
        f"no config {name!r}: expected it in {Path.cwd()}, ./configs or nailseg's own: {known}."
    )


@dataclass(frozen=True)
class CommandLine:
    """Options of fit, validate, test or train, not parsed yet."""

    configs: tuple[Path, ...]  # the last config that has an option counts
    typed: tuple[str, ...]  # options as typed; they override the configs and the defaults
    defaults: tuple[str, ...] = ()  # they follow from a model or a data set, and override the configs

    @classmethod
    def read(cls, args: Sequence[str]) -> CommandLine:
        """Separates the configs from the other arguments and finds their files."""
        names, rest = _separate(args, "-c", "--config")
        allowed, rest = _separate(rest, "--allow_class", "--allow-class")
        rest += [f"--allow_class={name}" for name in allowed]
        rest = _name_logger(rest)
        classes, others = _separate(rest, "--data.classes", nargs="+")
        if classes:
            rest = [*others, f"--data.classes={json.dumps(split_class_names(classes[-1]))}"]
        return cls(tuple(map(find_config, names)), tuple(rest))

    def arguments(self) -> list[str]:
        """Returns the arguments for Lightning's parser, in which the last one of an option counts."""
        return [*(f"--config={path}" for path in self.configs), *self.defaults, *self.typed]

    def option(self, name: str) -> str | None:
        """Returns the typed value of an option, or None."""
        return (self.options(name) or [None])[-1]

    def options(self, name: str) -> list[str]:
        """Returns all typed values of an option."""
        return _separate(self.typed, f"--{name}")[0]

    def value(self, name: str) -> Any:
        """Returns the value of an option, typed or from the last config that has it, or None."""
        values = (_read_settings(config).get(name) for config in reversed(self.configs))
        return next((v for v in (self.option(name), *values) if v is not None), None)

    def parsed(self, name: str) -> Any:
        """Returns `value` as YAML reads it (true, [a, b]); the text itself if that is no YAML."""
        value = self.value(name)
        try:
            return yaml.safe_load(value) if isinstance(value, str) else value
        except yaml.YAMLError:
            return value

    def with_options(self, **options: Any) -> CommandLine:
        """Replaces typed options; `__` stands for a dot, and None removes an option."""
        values = {f"--{name.replace('__', '.')}": value for name, value in options.items()}
        _, others = _separate(self.typed, *values)
        added = (f"{name}={value}" for name, value in values.items() if value is not None)
        return replace(self, typed=(*others, *added))

    def run_name(self, default: str) -> str:
        """Names a run after its last config; a run's own config.yaml is named after its run."""
        if not self.configs:
            return default
        path = self.configs[-1].absolute()
        return path.parent.name if path.name == "config.yaml" else path.stem


def prepare_resume(line: CommandLine, run: str) -> CommandLine:
    """Makes a line of a run's own config, the other options, and its last checkpoint; ConfigError without."""
    if line.option("name"):
        raise ConfigError(f"--resume {run} continues in that folder: --name has no meaning beside it.")
    config, last = Path(run, "config.yaml"), Path(run, "checkpoints", "last.ckpt")
    if not config.is_file():
        raise ConfigError(f"--resume {run}: expected {config}, found none. Give a run with a checkpoint.")
    if not last.parent.is_dir() or not (found := list(last.parent.glob("*.ckpt"))):
        raise ConfigError(f"--resume {run}: expected {last}, found none. Give a run with a checkpoint.")
    checkpoint = _find_readable(sorted(found, key=lambda path: (path == last, path.stat().st_mtime)))
    # the weights come from the checkpoint too: building the network must not need the hub
    line = replace(line, configs=(config, *line.configs))
    return line.with_options(model__weights=checkpoint, ckpt_path=checkpoint)


def _find_readable(checkpoints: list[Path]) -> Path:
    """Returns the last that can be continued, with a warning if others were damaged; WeightsError if none."""
    *older, last = checkpoints
    try:
        require_resumable(last)
    except WeightsError as error:
        if not older:
            raise
        found = _find_readable(older)
        log.warning("%s\nContinuing from %s instead, which is older.", error, found)
        return found
    return last


def require_resumable(checkpoint: str | Path) -> None:
    """Raises `WeightsError` for a file that no training can continue from."""
    content = read_checkpoint(checkpoint)
    ModelInfo.from_dict(content[CHECKPOINT_KEY]["info"], checkpoint)  # its limits
    needed = ("optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step")
    if missing := [key for key in needed if key not in content]:
        raise WeightsError(
            f"{checkpoint}: expected a training's checkpoint, found none of {', '.join(missing)} in it. To "
            f"start a new training from its weights: --model.weights {checkpoint}"
        )


def check_limits(options: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for parsed options, by dotted name, that are outside of `LIMITS`."""
    for name, (low, high) in LIMITS.items():
        value = options.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_unlimited = value == -1 and name.startswith("trainer.max")
        if is_number and not is_unlimited and not low <= value <= high:
            expected = f"{low} or more" if high == math.inf else f"a number from {low} to {high}"
            expected = "a number above 0" if 0 < low < 1 else expected
            raise ConfigError(f"--{name}: expected {expected}, found {value}.")


def prepare_evaluation(line: CommandLine) -> tuple[CommandLine, str]:
    """Finds what `validate` and `test` evaluate: a checkpoint, weights, or the best of the config's run.

    The model's own size, resize rule and classes override a config, which may be about training at another
    size; typed options override them. Returns the line with `--model.weights`, and the model's source.
    """
    best = (config.parent / "checkpoints" / "best.ckpt" for config in reversed(line.configs))
    source = line.option("ckpt_path") or line.option("model.weights")
    source = source or next((str(path) for path in best if path.is_file()), line.value("model.weights"))
    if source is None:
        raise ConfigError(
            "nothing to evaluate: give --model.weights MODEL (a model folder), --ckpt_path CHECKPOINT, or "
            "the config.yaml of a run that has checkpoints/best.ckpt beside it."
        )
    source = locate(source)
    info = read_module_info(source)
    if info is None and ("/" in source or Path(source).is_dir()):
        info = describe_weights(source)
    if info:
        exported = find_exported_file(source)
        if exported and any(line.option(f"data.{name}") for name in ("size", "eval_size", "resize")):
            raise ConfigError(
                f"--data.size, --data.eval_size, --data.resize: expected none of them for {exported}, whose "
                f"size, {info.image_size} pixels, and resize rule are its own. Leave them out."
            )
        if not isinstance(info.image_size, int) and not line.option("data.size"):
            raise ConfigError(
                f"{source}: expected one size for validate and test, found {info.image_size} (height, width) "
                "in its preprocessor_config.json, which predict follows. Give --data.size and --data.resize."
            )
        options = {
            "data.size": info.longest_side,
            "data.resize": info.resize,
            "model.name": info.architecture,
        }
        options["data.eval_size"] = 0 if exported else "null"
        options["data.image_range"] = list(info.image_range) if info.image_range else "full"
        if not are_default_labels(info.class_names):
            options["data.classes"] = list(info.class_names)
        line = replace(line, defaults=tuple(f"--{name}={value}" for name, value in options.items()))
    return line.with_options(ckpt_path=None, model__weights=source), source


def _name_logger(args: list[str]) -> list[str]:
    """Makes `--trainer.logger CSVLogger`, if it has no own options, `--logger csv`: in the run folder."""
    given, others = _separate(args, "--trainer.logger")
    kinds = {name: kind for kind, name in LOGGERS.items()} | {kind: kind for kind in LOGGERS}
    kind = kinds.get(given[-1].rpartition(".")[2]) if given else None
    if kind is None or any(arg.startswith("--trainer.logger.") for arg in others):
        return args
    return [*others, f"--logger={kind}"]


def _separate(args: Sequence[str], *names: str, nargs: str | None = None) -> tuple[list[Any], list[str]]:
    """Separates the values of an option, under any of its names, from the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(*names, dest="values", action="append", default=[], nargs=nargs)
    try:
        found, rest = parser.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from None
    return found.values, rest


def _read_settings(config: Path) -> dict[str, Any]:
    """Reads the options of a config by dotted name."""
    content = read_yaml(config)
    settings = dict(content)
    for part, options in content.items():
        if isinstance(options, dict):
            settings.update({f"{part}.{name}": value for name, value in options.items()})
    return settings
