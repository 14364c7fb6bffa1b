"""Decode once: no pixel changes, nothing is decoded twice, and nobody's crash or disk spoils it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from nailseg.data import cache as cache_module
from nailseg.data.augmentation import TrainingTransform
from nailseg.data.cache import PixelCache
from nailseg.data.dataset import Mode, SegmentationDataset
from nailseg.data.manifest import Row
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.errors import DataError
from nailseg.imaging.geometry import Resize
from nailseg.types import Sample
from tests.data.test_dataset import BINARY, draw_rows, epochs

# odd, long, tiny, square, and two that are large enough to be reduced first
SIZES = [(33, 47), (50, 200), (1, 3), (64, 64), (701, 903), (900, 333)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    root = tmp_path_factory.mktemp("pairs")
    return root, draw_rows(root, SIZES)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn files are young; their times would not be trusted yet."""
    monkeypatch.setattr(cache_module, "SETTLED", -1.0)


def make(
    pairs: tuple[Path, list[Row]], folder: Path | None, mode: Mode = "train", resize: Resize = "keep"
) -> SegmentationDataset:
    transform = TrainingTransform(64, resize) if mode == "train" else None
    data = SegmentationDataset(pairs[1], pairs[0], BINARY, 64, resize, mode, transform=transform)
    if folder:
        data.cache = PixelCache(folder, mode, data.settings()).prepare()
    return data


def same(found: Sample, wanted: Sample) -> bool:
    assert found.keys() == wanted.keys()
    return all(
        torch.equal(found[key], wanted[key]) and found[key].dtype == wanted[key].dtype for key in wanted
    )


def entries(data: SegmentationDataset, part: str = "pixels") -> list[Path]:
    return sorted((data.cache.folder / part).iterdir())


def blind(data: SegmentationDataset) -> SegmentationDataset:
    """A data set that cannot decode."""

    def fixed(row: int) -> None:
        raise AssertionError(f"row {row} was decoded again")

    data.fixed = fixed
    return data


@pytest.mark.parametrize("resize", ["keep", "squash"])
@pytest.mark.parametrize("mode", ["train", "val"])  # a test reads each file once, unrounded
def test_no_pixel_changes_and_nothing_is_decoded_twice(
    pairs: tuple[Path, list[Row]], tmp_path: Path, mode: Mode, resize: Resize
) -> None:
    plain, filling = make(pairs, None, mode, resize), make(pairs, tmp_path, mode, resize)
    reading = blind(make(pairs, tmp_path, mode, resize))
    for row in range(len(plain)):
        for epoch in range(3 if mode == "train" else 1):
            wanted = plain[(epoch, row)]
            assert same(filling[(epoch, row)], wanted)
            assert same(reading[(epoch, row)], wanted)
        assert reading.cache.has(reading.files(row))
        assert sum(array.size for array in plain.fixed(row)) == plain.fixed_bytes(row)
    assert len(entries(filling)) == len(entries(filling, "files")) == len(SIZES)
    assert not entries(filling, "unfinished")


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_share_it(pairs: tuple[Path, list[Row]], tmp_path: Path, start_method: str) -> None:
    wanted = epochs(make(pairs, None), 2)
    options = {"num_workers": 2, "multiprocessing_context": start_method, "persistent_workers": True}
    for data in (make(pairs, tmp_path), make(pairs, tmp_path)):  # it fills, and is found full
        found = epochs(data, 2, **options)
        for first, second in zip(chain(*found), chain(*wanted), strict=True):
            assert same(first, second)
        assert len(entries(data)) == len(SIZES)


def fill(data: SegmentationDataset, start: object) -> None:
    start.wait()
    for row in range(len(data)):
        data[row]


def test_two_processes_fill_it_at_once(pairs: tuple[Path, list[Row]], tmp_path: Path) -> None:
    data = make(pairs, tmp_path)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    processes = [context.Process(target=fill, args=(data, start)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(entries(data)) == len(entries(data, "files")) == len(SIZES)
    assert not entries(data, "unfinished")
    plain, full = make(pairs, None), blind(make(pairs, tmp_path))
    assert all(same(full[row], plain[row]) for row in range(len(plain)))


def die_writing_the_third(data: SegmentationDataset) -> None:
    write, count = Path.write_bytes, 0

    def dying_write(path: Path, content: bytes) -> int:
        nonlocal count
        count += 1
        if count == 3:
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content)

    Path.write_bytes = dying_write
    for row in range(len(data)):
        data[row]


def test_a_killed_run_leaves_what_it_has_finished(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plain = make(pairs, tmp_path), make(pairs, None)
    process = multiprocessing.get_context("fork").Process(target=die_writing_the_third, args=(data,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(entries(data)) == 2
    assert len(entries(data, "unfinished")) == 1
    assert all(same(blind(make(pairs, tmp_path))[row], plain[row]) for row in range(2))
    assert all(same(data[row], plain[row]) for row in range(len(data)))
    assert len(entries(data)) == len(SIZES)
    # what lies there unfinished may be a living process's, until it is old
    assert len(entries(make(pairs, tmp_path), "unfinished")) == 1
    os.utime(entries(data, "unfinished")[0], (0, 0))
    assert not entries(make(pairs, tmp_path), "unfinished")


def test_caches_long_out_of_use_make_room(tmp_path: Path) -> None:
    old, recent = (PixelCache(tmp_path, name, {}).prepare() for name in ("old", "recent"))
    stranger = tmp_path / "photographs"
    stranger.mkdir()
    month = 30 * 86400
    for cache, age in ((old, 3 * month), (recent, month)):
        used = time.time() - age
        os.utime(cache.folder / cache_module.USED, (used, used))
    PixelCache(tmp_path, "new", {}).prepare()
    assert not old.folder.exists()
    assert recent.folder.exists()
    assert stranger.exists()


@pytest.mark.parametrize("trusted_after", [-1.0, 3600.0], ids=["by times", "by content"])
def test_a_changed_file_is_read_again(
    tmp_path: Path, trusted_after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SETTLED", trusted_after)
    image = tmp_path / "a.bmp"  # as many bytes whatever it shows
    cv2.imwrite(str(image), np.full((40, 50, 3), 10, np.uint8))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 50), np.uint8))
    pair = tmp_path, [Row("a.bmp", "a.png", "train", "a")]
    data, times = make(pair, tmp_path / "cache", "val"), image.stat()
    before = data[0]
    changed = cv2.imread(str(image))
    changed[:] = 200
    cv2.imwrite(str(image), changed)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert image.stat().st_size == times.st_size
    assert same(data[0], make(pair, None, "val")[0])
    assert not torch.equal(data[0]["image"], before["image"])
    os.utime(image)  # the same content at another time, or elsewhere, is known
    assert same(blind(make(pair, tmp_path / "cache", "val"))[0], data[0])
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))
    copied = make((tmp_path / "copy", pair[1]), tmp_path / "cache", "val")
    assert same(blind(copied)[0], data[0])
    assert len(entries(data)) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "header"])
def test_a_damaged_entry_is_built_anew(pairs: tuple[Path, list[Row]], tmp_path: Path, damage: str) -> None:
    data, plain = make(pairs, tmp_path), make(pairs, None)
    fill(data, SimpleNamespace(wait=bool))
    for path in entries(data):  # the same file as its links
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        kinds = {"cut": content[:-1], "flip": content, "empty": b"", "header": content[:8]}
        with open(path, "r+b") as file:
            file.truncate(0)
            file.write(kinds[damage])
    again = make(pairs, tmp_path)
    assert all(same(again[row], plain[row]) for row in range(len(plain)))
    assert all(same(blind(make(pairs, tmp_path))[row], plain[row]) for row in range(len(plain)))


def test_writing_into_a_sample_changes_no_entry(pairs: tuple[Path, list[Row]], tmp_path: Path) -> None:
    data = make(pairs, tmp_path, "val")
    wanted = data[0]["image"].clone()
    for _ in range(2):
        data[0]["image"].zero_()
    assert torch.equal(data[0]["image"], wanted)


def test_whatever_else_decides_the_pixels_has_a_folder_of_its_own(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(**changes: object) -> Path:
        data = make(pairs, None, "val")
        vars(data).update(changes)
        return PixelCache(tmp_path, "val", data.settings()).folder

    other_values = MaskEncoding(((0, 1), (255, 0)), ("background", "nail"))
    smooth = MaskEncoding(BINARY.mapping, BINARY.class_names, antialiased=True)
    renamed = MaskEncoding(BINARY.mapping, ("background", "toe"))
    changes = [{}, {"size": 96}, {"resize": "squash"}, {"mode": "test"}, {"mask_values": other_values}]
    folders = [folder(**change) for change in [*changes, {"mask_values": smooth}]]
    assert folder(mask_values=renamed) == folder() == folders[0]
    monkeypatch.setattr(cache_module, "_program", lambda: ["another decoder"])
    assert len({*folders, folder()}) == 7


def test_a_full_disk_ends_the_writing_and_nothing_else(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plain = make(pairs, tmp_path), make(pairs, None)
    data[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    with pytest.warns(UserWarning, match=r"takes no more images: 1.07 GB free on the disk.*--data.cache DIR"):
        assert same(data[1], plain[1])
    assert all(same(data[row], plain[row]) for row in range(len(plain)))  # without a second warning
    assert len(entries(data)) == 1


def test_faults_of_the_files_are_told_as_ever(tmp_path: Path) -> None:
    data = make((tmp_path, [Row("a.jpg", "a.png", "train", "a")]), tmp_path / "cache")
    with pytest.raises(DataError, match="expected a file, found nothing"):
        data[0]
