"""Public names that a package imports on first use, so that importing it loads no torch."""

from collections.abc import Callable
from importlib import import_module


def lazy_names(package: str, *names: str) -> Callable[[str], object]:
    """Returns a package's `__getattr__` for names given as `module.name`, relative to the package."""
    modules = {name: module for module, _, name in (path.rpartition(".") for path in names)}

    def import_name(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return import_name
