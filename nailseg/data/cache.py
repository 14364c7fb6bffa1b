"""Decode cache: what is the same of a sample in every epoch, in files that are mapped into memory.

An entry is one image/mask pair, decoded and downscaled (`SegmentationDataset.preprocess`), in an .npy file.
It is written under a temporary name and renamed: any number of workers, ranks and runs can fill one cache,
and an interrupted run leaves complete entries only. The Arrow cache of `datasets` is as fast to read
(benchmarks/loader.py), but is written as a whole before the first step, and again after any change.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import platformdirs
import torch
from tqdm import tqdm

from nailseg.errors import ConfigError

# Raise it with any change of the pixels that `SegmentationDataset.preprocess` gives. A hash of our source
# files instead would discard all caches with each edited comment.
CACHE_VERSION = 1
MARKER = "nailseg-cache"  # file in the folder of each cache; its modification time is that of the last use
RESERVE = 2**30  # bytes of the disk that a cache leaves free
UNFINISHED = 3600.0  # seconds after which no process still writes an entry
UNUSED = 60 * 86400.0  # seconds after which a cache that no run has opened is deleted

in_bytes = partial(tqdm.format_sizeof, suffix="B")


class PixelCache:
    """Image and mask of each pair of files; picklable, keeps no file open.

    Its folder in `root` is named after `name`, the `settings` (plain values that decide the pixels besides
    the two files) and the versions of the libraries.
    """

    def __init__(self, root: Path, name: str, settings: dict[str, Any]) -> None:
        versions = [CACHE_VERSION, cv2.__version__, PIL.__version__, torch.__version__]
        self.folder = root / f"{name}-{_digest([settings, versions])[:12]}"
        self.full = False

    def prepare(self) -> PixelCache:
        """Creates the folder, and deletes what killed runs left in it and caches that are long unused."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARKER).touch()
        for part in self.folder.glob("*.part"):
            if _is_older(part, UNFINISHED):
                part.unlink(missing_ok=True)
        for marker in self.folder.parent.glob(f"*/{MARKER}"):
            if _is_older(marker, UNUSED):
                shutil.rmtree(marker.parent, ignore_errors=True)  # another process deletes it too
        return self

    def entry(self, files: Sequence[Path]) -> Path:
        """Path of a pair's entry: a hash of the files' paths, sizes and modification times."""
        key = []
        for file in files:
            with suppress(OSError):  # a missing file has no entry, and `build` says that it is missing
                status = os.stat(file)
                key.append([os.path.abspath(file), status.st_size, status.st_mtime_ns])
        return self.folder / f"{_digest(key)}.npy"

    def get(self, files: Sequence[Path], build: Callable) -> tuple[np.ndarray, np.ndarray]:
        """Reads the image, uint8 with three axes, and the mask, uint8 (H, W), of two files, or builds them.

        `build` decodes the files; its result is stored. Writing into the arrays changes no file.
        """
        entry = self.entry(files)
        # an entry that is missing or cut off is built again; numpy has many errors for these
        with suppress(Exception):
            stored = np.load(entry, mmap_mode="c")
            return np.asarray(stored["image"]), np.asarray(stored["mask"])
        pair = build()
        if not self.full and self.entry(files) == entry:  # no file was replaced in the meantime
            self._store(entry, *pair)
        return pair

    def _store(self, entry: Path, image: np.ndarray, mask: np.ndarray) -> None:
        """Writes an entry; a full disk ends the writing, not the training."""
        pair = np.empty((), [("image", np.uint8, image.shape), ("mask", np.uint8, mask.shape)])
        pair["image"], pair["mask"] = image, mask
        content = io.BytesIO()  # numpy's own errors of a full disk do not say what is wrong
        np.save(content, pair)
        temporary = entry.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            free = shutil.disk_usage(self.folder).free
            if free < RESERVE + pair.nbytes:
                raise OSError(f"{in_bytes(free)} free on the disk, {in_bytes(RESERVE)} are left free")
            temporary.write_bytes(content.getbuffer())
            os.replace(temporary, entry)
        except OSError as error:
            self.full = True
            message = f"{self.folder}: the cache takes no more images: {error}. The others are decoded in"
            fix = "every epoch. Free some space, or name another folder with --data.cache DIR."
            warnings.warn(f"{message} {fix}", stacklevel=2)
        finally:  # an interruption must not leave it either; a finished entry has another name by now
            with suppress(OSError):
                temporary.unlink()


def attach_caches(option: str, datasets: Sequence[Any]) -> str:
    """Gives each `SegmentationDataset` a cache if the disk has enough space; it is filled as they are read.

    `option` is `auto` (at most half of the free space), a folder (all but 1 GiB) or `off`. Returns a line for
    the log: size and folder of the cache, or why there is none.

    Raises:
        ConfigError: The folder cannot be written to.
    """
    if option == "off":
        return "cache: off; every file is decoded in every epoch"
    folder = platformdirs.user_cache_dir("nailseg", appauthor=False) if option == "auto" else option
    try:
        root = Path(folder).expanduser().absolute()
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home folder
        message = "--data.cache: expected auto, off or a folder that can be written to, found "
        message += f"{option!r}: {error}. Name another folder, or turn the cache off with --data.cache off."
        if option == "auto":
            return f"cache: off. {message}"
        raise ConfigError(message) from error
    caches = [(data, PixelCache(root, f"{data.mode}-{data.size}", data.settings())) for data in datasets]
    total = missing = 0
    for data, cache in caches:
        for row in range(len(data)):
            size = data.preprocessed_bytes(row)
            total += size
            missing += 0 if cache.entry(data.files(row)).exists() else size
    free = shutil.disk_usage(root).free
    usable = max(0, min(free - RESERVE, free // 2 if option == "auto" else free))
    content = f"{sum(map(len, datasets))} decoded images, {in_bytes(total)}"
    content += f", {in_bytes(total - missing)} of it already written; {in_bytes(free)} free in {root}"
    if missing > usable:
        fix = "Free some space, or name a folder on another disk with --data.cache DIR"
        return f"cache: off; expected space for {content}, of which {in_bytes(usable)} may be used. {fix}"
    for data, cache in caches:
        data.cache = cache.prepare()
    return f"cache: {content}. The first epoch writes the rest. The folder may be deleted at any time"


def _is_older(file: Path, seconds: float) -> bool:
    """Whether a file was not changed for so long; False if another process has deleted it."""
    try:
        return time.time() - file.stat().st_mtime > seconds
    except FileNotFoundError:
        return False


def _digest(values: Any) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=20).hexdigest()
