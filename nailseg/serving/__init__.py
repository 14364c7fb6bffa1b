"""A model behind HTTP: the application (`create_app`), the verb `nailseg serve`, and a page to try it on."""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names
from nailseg.errors import ConfigError

if TYPE_CHECKING:
    from nailseg.serving.app import create_app, serve

__all__ = ["create_app", "serve"]
_import_name = lazy_names(__name__, "app.create_app", "app.serve")


def __getattr__(name: str) -> object:
    try:
        return _import_name(name)
    except ImportError as error:
        missing = f"nailseg serve needs packages that are missing ({error})."
        raise ConfigError(f"{missing} Run: pip install 'nailseg[serve]'") from error
