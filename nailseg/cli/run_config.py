"""A run's config.yaml is data: the classes that it may name, as a run comes from other people too."""

import contextlib
import inspect
import os
import re
from collections.abc import Collection, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment, Precision
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy

from nailseg.errors import ConfigError
from nailseg.schema import read_yaml

PACKAGES = ("nailseg", "lightning", "torch")
KINDS = (
    *(Callback, Logger, Strategy, Accelerator, Profiler),
    *(CheckpointIO, ClusterEnvironment, Precision, LayerSync),
)
"""Classes that the trainer takes."""
CLASSES = ("callbacks", "logger", "strategy", "accelerator", "profiler", "plugins")
"""Options of the trainer that take the name of a class."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def is_run_config(config: Path) -> bool:
    """Whether a config lies in a run folder; any other is its owner's, as a program is."""
    beside = (config.parent / name for name in ("checkpoints", "model", "metrics.csv"))
    return config.name == "config.yaml" and any(path.exists() for path in beside)


def require_known_classes(config: Path, allowed: Collection[str] = ()) -> None:
    """Raises `ConfigError` for a run's config that names anything but known classes with plain arguments.

    Args:
        config: The config.yaml of a run.
        allowed: Names that the user trusts, `--allow-class`.
    """
    content = read_yaml(config)
    groups = [value for name, value in content.items() if name in ("trainer", "model", "data")]
    names = {str(name) for name in (*content, *(content.get("trainer") or ()))}
    if (
        "config" in content
        or not all(map(str.isidentifier, names))
        or not all(isinstance(value, dict | None) for value in groups)
    ):
        raise ConfigError(f"{config}: expected options alone, found the name of another config among them.")
    for text in _find_texts(content.get("trainer")):
        # jsonargparse would read the options of a class from such a file
        if text.endswith((".yaml", ".yml", ".json")) or _is_file(text, config.parent):
            raise ConfigError(f"{config}: expected options alone, found the file {text} among the trainer's.")
    for name, arguments in _find_names(content):
        if name not in allowed and not _is_known(name, arguments):
            raise ConfigError(
                f"{config}: expected classes of {', '.join(PACKAGES)} for the trainer, without functions as "
                f"arguments; found {name}, which could run any code. If you trust it: --allow-class {name}"
            )


def _is_file(text: str, folder: Path) -> bool:
    return any((place / os.path.expanduser(text)).is_file() for place in (Path(), folder))


def _find_names(value: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what could be imported: each class_path with its arguments, and other dotted names."""
    if isinstance(value, dict):
        if isinstance(name := value.get("class_path"), str):
            arguments = value.get("init_args") or {}
            yield name, arguments if isinstance(arguments, dict) else {}
        for inner, part in value.items():
            takes_no_class = not key and inner in ("data", "model")
            if inner != "class_path" and not takes_no_class:
                yield from _find_names(part, str(inner))
    elif isinstance(value, list):
        for part in value:
            yield from _find_names(part, key)
    elif isinstance(value, str):
        if DOTTED.fullmatch(value) and (key in CLASSES or _is_importable(value)):
            yield value, {}
        with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):
            if isinstance(content := yaml.safe_load(value), dict | list):  # as jsonargparse reads it, too
                yield from _find_names(content, key)


def _find_texts(value: Any) -> Iterator[str]:
    """Yields all texts in a value, those in texts that are YAML themselves included."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _find_texts(part)
    elif isinstance(value, str):
        yield value.strip()
        with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):
            if isinstance(content := yaml.safe_load(value), dict | list):
                yield from _find_texts(content)


def _is_importable(name: str) -> bool:
    """Whether the first part of a dotted name is a module; nothing is imported."""
    try:
        return find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _is_known(name: str, arguments: dict[str, Any]) -> bool:
    """Whether a name is a class that the trainer takes, of a known package, and given no function."""
    module, _, attribute = name.rpartition(".")
    if not module:  # jsonargparse finds Lightning's own classes by their names alone
        places = ("callbacks", "loggers", "strategies", "plugins", "profilers", "accelerators")
        module = next((f"lightning.pytorch.{p}" for p in places if _find(f"lightning.pytorch.{p}", name)), "")
    if module.partition(".")[0] not in PACKAGES:
        return False
    found = _find(module, attribute)
    if not (inspect.isclass(found) and issubclass(found, KINDS)):
        return False
    parameters = inspect.signature(found).parameters
    return not any("Callable" in str(parameters[key].annotation) for key in arguments if key in parameters)


def _find(module: str, attribute: str) -> Any:
    try:
        return getattr(import_module(module), attribute, None)
    except ImportError:
        return None
