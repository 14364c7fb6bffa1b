"""Checks data of other people's files against annotated types before anything uses it."""

import json
import reprlib
from pathlib import Path
from typing import Any

import yaml

from nailseg.errors import ConfigError, WeightsError

FIX = "Write or download it again."
MAX_YAML, MAX_ALIASES = 200_000, 10
"""Bytes and aliases of a config; aliases of aliases multiply: ten make at most 36 times as many values."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a config, executing nothing; raises `ConfigError` for all but options of a reasonable size."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_YAML else b""
        text = data.decode("utf-8-sig")
        if not data and path.stat().st_size:
            raise ValueError(f"more than {MAX_YAML:,} bytes")
        aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader))
        if aliases > MAX_ALIASES:
            raise ValueError(f"{aliases} aliases (more than {MAX_ALIASES})")
        content = yaml.safe_load(text)
        json.dumps(content, default=str)  # ValueError for a value that contains itself
    except (
        OSError,
        TypeError,
        ValueError,
        RecursionError,
        yaml.YAMLError,
    ) as error:  # ValueError: no UTF-8 too
        found = " ".join(str(error).split())
        raise ConfigError(f"{path}: expected a config in YAML, found {found}. Correct it.") from None
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: expected options (name: value), found a {type(content).__name__}.")
    return content or {}


def validate(kind: Any, content: Any, place: str | Path) -> Any:
    """Returns the content as `kind`, a type with limits (`Annotated[int, Ge(1)]`), without converting values.

    Args:
        kind: A type, dataclass or TypedDict.
        content: Plain values, as JSON gives them.
        place: The file, for the message.

    Raises:
        WeightsError: The first value of another type or outside of its limits.

    Example:
        >>> validate(list[int], [8, 16], "config.json")
        [8, 16]
    """
    from pydantic import TypeAdapter, ValidationError  # 0.1 s, and few commands read a model

    try:
        # JSON's rules: lists may become tuples and objects dataclasses, but no text a number
        return TypeAdapter(kind).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier())
        found = f"{field or 'content'}: {first['msg']}, found {reprlib.repr(first['input'])}"
    except (TypeError, ValueError, RecursionError) as error:  # of a checkpoint: no plain values
        found = f"expected plain values, found {error}"
    raise WeightsError(f"{place}: {found}. {FIX}")
