"""A model behind HTTP: the application (`create_app`), the verb `nailseg serve`, and a page to try it on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from nailseg.errors import ConfigError

if TYPE_CHECKING:
    from nailseg.serving.app import create_app, serve

__all__ = ["create_app", "serve"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        app = import_module("nailseg.serving.app")
    except ImportError as error:
        raise ConfigError(
            f"nailseg serve needs packages that are missing ({error}). Run: pip install 'nailseg[serve]'"
        ) from error
    return getattr(app, name)
