"""Writes files completely or not at all."""

import contextlib
import os
import uuid
from pathlib import Path

from nailseg.errors import WriteError


def write_atomically(path: Path, content: bytes | memoryview, durable: bool = False) -> None:
    """Writes a file completely or not at all: under another name in its folder, then renamed.

    Args:
        path: The file; its folder is created. An existing file is replaced.
        content: Its bytes.
        durable: Also survive a crash of the machine, which takes longer (fsync).

    Raises:
        WriteError: The file cannot be written, for example because the disk is full.
    """
    partial = path.with_name(f".{uuid.uuid4().hex}.part")  # two processes may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "xb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        found = f"expected to write {len(content):,} bytes, found: {error.strerror or error}"
        raise WriteError(f"{path}: {found}. Free some space, or choose another place.") from error
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or its folder does not exist
            partial.unlink()


def require_writable(folder: Path) -> None:
    """Raises `WriteError` for a folder that cannot be made or written to: before the work, not after it."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        found = f"found that {existing} is read-only"
        raise WriteError(
            f"{folder}: expected a folder that can be written to, {found}. Choose another place."
        )
