"""A training command line before Lightning parses it: config names, `--resume`, and the model to evaluate."""

from __future__ import annotations

import argparse
import difflib
import inspect
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from nailseg.cli.runner import UsageError
from nailseg.errors import ConfigError
from nailseg.inference.backends import find_exported_file
from nailseg.inference.backends.as_module import read_module_info
from nailseg.model_info import locate

log = logging.getLogger("nailseg")


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
        f"no config {name!r}: expected it in {Path.cwd()}, in ./configs or among those that come with "
        f"nailseg ({known})."
    )


@dataclass(frozen=True)
class CommandLine:
    """Options of fit, validate, test or train, not parsed yet. Later ones override earlier ones.

    Attributes:
        configs: paths of the config files.
        defaults: options that follow from a model or a data set; they override the configs.
        typed: options as the user typed them; they override both.
    """

    configs: tuple[Path, ...]
    typed: tuple[str, ...]
    defaults: tuple[str, ...] = ()

    @classmethod
    def read(cls, args: Sequence[str]) -> CommandLine:
        """Separates the configs from the other arguments and finds their files."""
        found, rest = _separate(args, "-c", "--config")
        return cls(tuple(find_config(name) for name in found), tuple(rest))

    def arguments(self) -> list[str]:
        """The arguments in the order in which Lightning's parser lets the last one count."""
        return [*(f"--config={path}" for path in self.configs), *self.defaults, *self.typed]

    def option(self, name: str) -> str | None:
        """What the user typed for an option; None if he did not."""
        found, _ = _separate(self.typed, f"--{name}")
        return found[-1] if found else None

    def value(self, name: str) -> Any:
        """An option's value: typed, or from the last config that has it; None without either."""
        values = (_settings(config).get(name) for config in reversed(self.configs))
        return next((v for v in (self.option(name), *values) if v is not None), None)

    def without(self, *names: str) -> CommandLine:
        """The same without some options that the user typed."""
        return replace(self, typed=tuple(_separate(self.typed, *(f"--{name}" for name in names))[1]))

    def with_options(self, **options: Any) -> CommandLine:
        """The same with further options, as if the user had typed them last; `__` stands for a dot."""
        further = (f"--{name.replace('__', '.')}={value}" for name, value in options.items())
        return replace(self, typed=(*self.typed, *further))

    def run_name(self) -> str | None:
        """The name of a run after its last config; a run's own config.yaml is named after its run."""
        if not self.configs:
            return None
        path = self.configs[-1]
        return path.absolute().parent.name if path.name == "config.yaml" else path.stem


def resumed(line: CommandLine, run: str) -> CommandLine:
    """What `--resume RUN` stands for: the run's own config, the other options, its last checkpoint.

    Raises:
        ConfigError: the folder is no run, or has no checkpoint yet.
    """
    if line.option("name"):
        raise ConfigError(f"--resume {run} continues in that folder: --name has no meaning beside it.")
    config, last = Path(run, "config.yaml"), Path(run, "checkpoints", "last.ckpt")
    for needed in (config, last):
        if not needed.is_file():
            raise ConfigError(
                f"--resume {run}: expected {needed}, found none. Give the folder of a run that has finished "
                f"at least one epoch (runs/NAME), or start a new run without --resume."
            )
    # the weights come from the checkpoint too: building the network must not need the hub
    line = replace(line, configs=(config, *line.configs))
    return line.with_options(model__weights=last, ckpt_path=last)


def evaluated(line: CommandLine) -> tuple[CommandLine, str]:
    """What `validate` and `test` evaluate: a checkpoint, the weights given, or the best of the config's run.

    The model's own size, resize rule and classes override a config, which may be about training at another
    size; options that the user typed override them.

    Returns:
        The command line with `--model.weights`, and the model's source.

    Raises:
        ConfigError: there is nothing trained to evaluate.
    """
    beside = (config.parent / "checkpoints" / "best.ckpt" for config in reversed(line.configs))
    source = line.option("ckpt_path") or line.option("model.weights")
    source = source or next((str(path) for path in beside if path.is_file()), line.value("model.weights"))
    if source is None:
        raise ConfigError(
            "nothing to evaluate: give --model.weights MODEL (a model folder), --ckpt_path CHECKPOINT, or "
            "the config.yaml of a run that has checkpoints/best.ckpt beside it."
        )
    source = locate(source)
    if info := read_module_info(source):
        exported = find_exported_file(source)
        if exported and any(line.option(f"data.{name}") for name in ("size", "eval_size", "resize")):
            raise ConfigError(
                f"--data.size, --data.eval_size, --data.resize: expected none of them for {exported}, whose "
                f"graph resizes to {info.image_size} pixels itself. Leave them out."
            )
        own = (
            f"--data.size={info.image_size}",
            f"--data.eval_size={0 if exported else 'null'}",
            f"--data.resize={info.resize}",
            f"--data.classes={list(info.class_names)}",
            f"--model.name={info.architecture}",
        )
        line = replace(line, defaults=own)
    log.info("evaluating %s", source)
    return line.without("ckpt_path").with_options(model__weights=source), source


def explain_error(verb: str, message: str, parser: argparse.ArgumentParser) -> str:
    """One line from jsonargparse's message, which lists every type that it has tried."""
    message = " ".join(message.split())
    options = parser._option_string_actions
    if unknown := re.search(r"unrecognized arguments: ([^\s=]+)|does not accept option '([^']+)'", message):
        name = unknown[1] or unknown[2]
        near = difflib.get_close_matches(f"--{name.lstrip('-')}", options, n=1, cutoff=0.7)
        hint = f"Did you mean {near[0]}?" if near else f"`nailseg {verb} --help` lists all."
        return f"{verb}: unknown option {name}. {hint}"
    wrong = re.search(r'key "([^"]+)": .*(?:Got|Given) value: (.*)', message)
    kind = wrong and getattr(options.get(f"--{wrong[1]}"), "_typehint", None)
    if wrong and kind:
        return f"{verb}: --{wrong[1]}: expected {inspect.formatannotation(kind)}, found {wrong[2]}"
    return f"{verb}: {message}"


def _separate(args: Sequence[str], *names: str) -> tuple[list[str], list[str]]:
    """The values of an option under any of its names, and the other arguments in their order."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        parser.add_argument(name, dest="values", action="append", default=[])
    try:
        found, rest = parser.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from None
    return found.values, rest


def _settings(config: Path) -> dict[str, Any]:
    """The options that a config file gives, by dotted name; none if it cannot be read, as the parser says."""
    try:
        content = yaml.safe_load(config.read_text())
    except (yaml.YAMLError, OSError):
        return {}
    settings = {}
    for name, value in content.items() if isinstance(content, dict) else ():
        settings |= (
            {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
        )
    return settings
