"""Decode once: what is the same of a sample in every epoch, kept in files that are mapped into memory.

An entry is one pair of files, decoded and reduced (`SegmentationDataset.fixed`), as raw bytes. Its name is
a hash of both files' content, in a folder named after everything else that decides its pixels: settings, mask
values, the decoders' versions, our own source. Names made of the files' sizes and times link to it, so that
nothing is read or hashed again while a file stays as it is. Entries are written beside their place and
renamed: any number of workers, ranks and runs may fill one cache, and a killed run's part serves the next.

Why not `datasets`' Arrow cache: it reads as fast (benchmarks/loader.py at 512 px, a worker on 2 cores, ms an
image of a later epoch: 12 megapixels 8.8 here, 8.7 Arrow, 195 decoded; 432 x 432 pixels 6.7, 6.3, 8.1,
where augmentation takes nearly all), but it is written as a whole before it is first read: 175 ms for each
12-megapixel image ahead of the first step, anew after a kill and after any change of a file. Here the first
epoch writes as it goes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import struct
import time
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch

Pair = tuple[np.ndarray, np.ndarray]

HEADER = struct.Struct("<8s6I")
"""Mark, checksum of the pixels, shape of the image (3) and of the mask (2)."""
MARK = b"nailpix1"
USED = "nailseg-cache"
"""File in each cache's folder; its time says when a run last opened it."""
RESERVE = 2**30
"""Bytes of the disk that a cache never takes."""
ABANDONED = 3600.0
"""Seconds after which a file that was never finished belongs to no living process."""
UNUSED = 60 * 86400.0
"""Seconds after which a cache that no run has opened makes room."""
SETTLED = 2.0
"""Seconds since a file's change after which its times tell the next change, on coarse file systems too."""
SOURCES = (
    *("data/io/" + name for name in ("images", "decoding", "exif", "headers", "masks")),
    *("data/mask_encoding", "data/dataset", "data/downscale", "imaging/geometry"),
)
"""Our own code that decides the pixels: whoever changes it need not remember the caches."""


class PixelCache:
    """Image and mask of each pair of files, kept under one set of settings; picklable, holds no file open."""

    def __init__(self, root: str | Path, name: str, settings: dict[str, Any]) -> None:
        """Names the folder; `prepare` makes it.

        Args:
            root: Folder of all caches.
            name: Beginning of this one's folder name.
            settings: Whatever else than the two files decides the pixels; plain values.
        """
        key = _digest(json.dumps([settings, _program()], sort_keys=True).encode())
        self.folder = Path(root) / f"{name}-{key[:12]}"
        self.closed = False
        self._trusted: set[str] = set()

    def prepare(self) -> PixelCache:
        """Makes the folder; clears what killed processes left unfinished, and caches long out of use."""
        for part in ("pixels", "files", "unfinished"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / USED).touch()
        for used in self.folder.parent.glob(f"*/{USED}"):
            with suppress(OSError):
                if time.time() - used.stat().st_mtime > UNUSED:
                    shutil.rmtree(used.parent)
        for file in (self.folder / "unfinished").iterdir():
            with suppress(OSError):  # another process clears too
                if time.time() - file.stat().st_mtime > ABANDONED:
                    file.unlink()
        return self

    def has(self, files: Sequence[Path]) -> bool:
        """Whether a pair is there under its files' sizes and times.

        Args:
            files: The image and the mask.
        """
        stamp = _stamp(files)
        return stamp is not None and (self.folder / "files" / stamp).exists()

    def get(self, files: Sequence[Path], build: Callable[[], Pair]) -> Pair:
        """The pair, from the cache or else built and kept.

        Args:
            files: The image and the mask.
            build: Gives image uint8 (three axes) and mask uint8 (H, W) from the files.

        Returns:
            What `build` gives. Arrays from the cache may be written to: that changes no file.
        """
        stamp = _stamp(files)
        shortcut = self.folder / "files" / str(stamp)
        pair = self._load(shortcut)
        if pair is not None:
            return pair
        try:
            content = [_digest(file.read_bytes()) for file in files]
        except OSError:
            return build()  # which says what is wrong with the file
        entry = self.folder / "pixels" / _digest("".join(content).encode())
        pair = self._load(entry)
        found = pair is not None
        if pair is None:
            pair = build()
        # a file that was exchanged meanwhile must not be kept under the other's name
        if self.closed or _stamp(files) != stamp or not (found or self._store(entry, pair)):
            return pair
        if time.time() - max(file.stat().st_ctime for file in files) > SETTLED:
            # where the file system knows no links, files are read and hashed each time, but not decoded
            with suppress(OSError), self._beside(shortcut) as unfinished:
                os.link(entry, unfinished)
        return pair

    def _load(self, path: Path) -> Pair | None:
        """The entry, or None where there is none that is whole."""
        try:
            with open(path, "rb") as file:
                view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError):  # missing, or empty
            return None
        if len(view) <= HEADER.size:
            return None
        mark, checksum, *shape = HEADER.unpack_from(view)
        pixels = np.frombuffer(view, np.uint8, offset=HEADER.size)
        count = shape[0] * shape[1] * shape[2]
        if mark != MARK or len(pixels) != count + shape[3] * shape[4]:
            return None
        # a power cut may leave holes in a file; once per process is enough to find out
        if path.name not in self._trusted:
            if zlib.crc32(pixels) != checksum:
                return None
            self._trusted.add(path.name)
        return pixels[:count].reshape(shape[:3]), pixels[count:].reshape(shape[3:])

    def _store(self, path: Path, pair: Pair) -> bool:
        """Writes an entry; the disk's faults end the writing, never the training."""
        body = b"".join(np.ascontiguousarray(array).data for array in pair)
        header = HEADER.pack(MARK, zlib.crc32(body), *pair[0].shape, *pair[1].shape)
        try:
            free = shutil.disk_usage(self.folder).free
            if free < RESERVE + len(body):
                raise OSError(f"{say_bytes(free)} free on the disk, {say_bytes(RESERVE)} stay untouched")
            with self._beside(path) as unfinished:
                unfinished.write_bytes(header + body)
        except OSError as error:
            self.closed = True
            warnings.warn(
                f"{self.folder}: the cache takes no more images: {error}. Training goes on and decodes the "
                "others in each epoch. Free some room, or name another folder with --data.cache DIR.",
                stacklevel=2,
            )
            return False
        self._trusted.add(path.name)
        return True

    @contextmanager
    def _beside(self, path: Path) -> Iterator[Path]:
        """A name to write under, which becomes `path` at once or not at all."""
        unfinished = self.folder / "unfinished" / uuid.uuid4().hex
        try:
            yield unfinished
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def say_bytes(count: float) -> str:
    """A number of bytes for people, for example `1.8 GB`."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.3g} {units[0]}"


def _stamp(files: Sequence[Path]) -> str | None:
    """What changes whenever a file does, without reading it; None for a file that is not there."""
    with suppress(OSError):
        found = [file.stat() for file in files]
        return _digest(
            str([(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found]).encode()
        )
    return None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=20).hexdigest()


@lru_cache
def _program() -> list[str]:
    """What of this installation decides the pixels: decoders, arithmetic, our own code."""
    package = resources.files("nailseg")
    sources = [_digest((package / f"{name}.py").read_bytes()) for name in SOURCES]
    arithmetic = torch.backends.cpu.get_cpu_capability()
    return [cv2.__version__, PIL.__version__, torch.__version__, arithmetic, *sources]
