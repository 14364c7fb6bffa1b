"""Where decoded images are kept, and whether the disk has room for them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nailseg.data.cache import RESERVE, PixelCache, say_bytes
from nailseg.data.dataset import SegmentationDataset
from nailseg.errors import ConfigError


def give_caches(option: str, datasets: Sequence[SegmentationDataset]) -> str:
    """Gives data sets a cache if the disk has room; they fill it as they are read.

    Args:
        option: `auto`, `off` or a folder. `auto` takes half of what is free at most, a folder all but a GB.
        datasets: Data sets that are read more than once.

    Returns:
        A line for the log: how large it becomes, where it lies, or why there is none.

    Raises:
        ConfigError: The folder cannot be written into.
    """
    if option == "off":
        return "cache: off; every file is decoded in every epoch"
    try:
        root = _root(option)
    except ConfigError as error:
        if option != "auto":
            raise
        return f"cache: off. {error}"
    caches = [PixelCache(root, f"{data.mode}-{data.size}", data.settings()) for data in datasets]
    total = missing = 0
    for data, cache in zip(datasets, caches, strict=True):
        for row in range(len(data)):
            size = data.fixed_bytes(row)
            total += size
            missing += 0 if cache.has(data.files(row)) else size
    free = shutil.disk_usage(root).free
    room = free - RESERVE if option != "auto" else min(free - RESERVE, free // 2)
    size = f"{sum(map(len, datasets))} decoded images, {say_bytes(total)}"
    if missing > room:
        return (
            f"cache: off; expected room for {size}, {say_bytes(missing)} of it still to be written, found "
            f"{say_bytes(free)} free in {root}, of which {say_bytes(max(room, 0))} may be taken. Free some, "
            "or name a folder on another disk with --data.cache DIR"
        )
    for data, cache in zip(datasets, caches, strict=True):
        data.cache = cache.prepare()
    folders = " and ".join(str(cache.folder) for cache in caches)
    return (
        f"cache: {size}, {say_bytes(total - missing)} of it there already, the rest is written when it is "
        f"first read; {say_bytes(free)} free. It lies in {folders}, and may be deleted at any time. "
        "--data.cache off does without, --data.cache DIR puts it elsewhere"
    )


def _root(option: str) -> Path:
    """The folder of all caches, made if need be and tried."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = (Path(home, "nailseg") if option == "auto" else Path(option).expanduser()).absolute()
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        raise ConfigError(
            f"--data.cache: expected auto, off or a folder to write into, found {option!r}: {error}. "
            "Name another folder, or turn the cache off with --data.cache off."
        ) from error
