"""Decode cache: pixels do not change, nothing is decoded twice, crashes and full disks do no harm."""

from __future__ import annotations

import errno
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
from jsonargparse import ArgumentParser

from nailseg.data import cache as cache_module
from nailseg.data.augmentation import TrainingTransform
from nailseg.data.cache import PixelCache, attach_caches
from nailseg.data.datamodule import SegmentationDataModule
from nailseg.data.dataset import Mode, SegmentationDataset
from nailseg.data.manifest import Row
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.errors import ConfigError, DataError
from nailseg.imaging.geometry import Resize
from nailseg.types import Sample
from tests.data import test_datamodule
from tests.data.test_dataset import BINARY, draw_rows, epochs

csv = test_datamodule.csv

# odd, long, tiny, square, and two that are large enough to be downscaled
SIZES = [(33, 47), (50, 200), (1, 3), (64, 64), (701, 903), (900, 333)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    root = tmp_path_factory.mktemp("pairs")
    return root, draw_rows(root, SIZES)


def make(
    pairs: tuple[Path, list[Row]], folder: Path | None, mode: Mode = "train", resize: Resize = "keep"
) -> SegmentationDataset:
    transform = TrainingTransform(64, resize) if mode == "train" else None
    data = SegmentationDataset(pairs[1], pairs[0], BINARY, 64, resize, mode, transform=transform)
    if folder:
        data.cache = PixelCache(folder, mode, data.settings()).prepare()
    return data


def same(found: Sample, expected: Sample) -> bool:
    assert found.keys() == expected.keys()
    return all(
        torch.equal(found[key], expected[key]) and found[key].dtype == expected[key].dtype for key in expected
    )


def entries(data: SegmentationDataset, kind: str = "npy") -> list[Path]:
    return sorted(data.cache.folder.glob(f"*.{kind}"))


def without_decoder(data: SegmentationDataset) -> SegmentationDataset:
    """A data set that cannot decode."""

    def preprocess(row: int) -> None:
        raise AssertionError(f"row {row} was decoded again")

    data.preprocess = preprocess
    return data


@pytest.mark.parametrize("resize", ["keep", "squash"])
@pytest.mark.parametrize("mode", ["train", "val"])  # a test reads each file once, unrounded
def test_pixels_are_equal_and_decoded_once(
    pairs: tuple[Path, list[Row]], tmp_path: Path, mode: Mode, resize: Resize
) -> None:
    plain, filling = make(pairs, None, mode, resize), make(pairs, tmp_path, mode, resize)
    reading = without_decoder(make(pairs, tmp_path, mode, resize))
    for row in range(len(plain)):
        for epoch in range(3 if mode == "train" else 1):
            expected = plain[(epoch, row)]
            assert same(filling[(epoch, row)], expected)
            assert same(reading[(epoch, row)], expected)
        assert sum(array.size for array in plain.preprocess(row)) == plain.preprocessed_bytes(row)
    assert len(entries(filling)) == len(SIZES)
    assert not entries(filling, "part")


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_share_it(pairs: tuple[Path, list[Row]], tmp_path: Path, start_method: str) -> None:
    expected = epochs(make(pairs, None), 2)
    options = {"num_workers": 2, "multiprocessing_context": start_method, "persistent_workers": True}
    for data in (make(pairs, tmp_path), make(pairs, tmp_path)):  # the first fills it
        found = epochs(data, 2, **options)
        for first, second in zip(chain(*found), chain(*expected), strict=True):
            assert same(first, second)
        assert len(entries(data)) == len(SIZES)


def fill(data: SegmentationDataset, start: object = None) -> None:
    if start:
        start.wait()
    for row in range(len(data)):
        data[row]


def test_two_processes_fill_it_together(pairs: tuple[Path, list[Row]], tmp_path: Path) -> None:
    data = make(pairs, tmp_path)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    processes = [context.Process(target=fill, args=(data, start)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(entries(data)) == len(SIZES)
    assert not entries(data, "part")
    plain, full = make(pairs, None), without_decoder(make(pairs, tmp_path))
    assert all(same(full[row], plain[row]) for row in range(len(plain)))


def die_writing_the_third(data: SegmentationDataset) -> None:
    write, count = Path.write_bytes, 0

    def dying_write(path: Path, content: memoryview) -> int:
        nonlocal count
        count += 1
        if count == 3:
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content)

    Path.write_bytes = dying_write
    fill(data)


def test_a_killed_run_leaves_complete_entries(pairs: tuple[Path, list[Row]], tmp_path: Path) -> None:
    data, plain = make(pairs, tmp_path), make(pairs, None)
    process = multiprocessing.get_context("fork").Process(target=die_writing_the_third, args=(data,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(entries(data)) == 2
    assert len(entries(data, "part")) == 1
    assert all(same(without_decoder(make(pairs, tmp_path))[row], plain[row]) for row in range(2))
    assert all(same(data[row], plain[row]) for row in range(len(data)))
    assert len(entries(data)) == len(SIZES)


def test_what_a_killed_run_left_is_deleted_after_an_hour(tmp_path: Path) -> None:
    cache = PixelCache(tmp_path, "a", {}).prepare()
    old, recent = cache.folder / "x.1.part", cache.folder / "x.2.part"
    for file, age in ((old, 4000), (recent, 3000)):
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    PixelCache(tmp_path, "a", {}).prepare()
    assert not old.exists()
    assert recent.exists()


def test_an_interruption_while_writing_leaves_no_file(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted_write(path: Path, content: memoryview) -> int:
        path.touch()
        raise KeyboardInterrupt

    data = make(pairs, tmp_path)
    monkeypatch.setattr(Path, "write_bytes", interrupted_write)
    with pytest.raises(KeyboardInterrupt):
        data[0]
    assert [file.name for file in data.cache.folder.iterdir()] == [cache_module.MARKER]


def test_caches_that_are_long_unused_are_deleted(tmp_path: Path) -> None:
    old, recent = (PixelCache(tmp_path, name, {}).prepare() for name in ("old", "recent"))
    other = tmp_path / "photographs"
    other.mkdir()
    month = 30 * 86400
    for cache, age in ((old, 3 * month), (recent, month)):
        used = time.time() - age
        os.utime(cache.folder / cache_module.MARKER, (used, used))
    PixelCache(tmp_path, "new", {}).prepare()
    assert not old.folder.exists()
    assert recent.folder.exists()
    assert other.exists()


@pytest.mark.parametrize("changed", ["a.bmp", "a.png"])
def test_a_changed_file_is_decoded_again(tmp_path: Path, changed: str) -> None:
    cv2.imwrite(str(tmp_path / "a.bmp"), np.full((40, 50, 3), 10, np.uint8))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 50), np.uint8))
    pair = tmp_path, [Row("a.bmp", "a.png", "train", "a")]
    data, file = make(pair, tmp_path / "cache", "val"), tmp_path / changed
    before, size = data[0], file.stat().st_size
    pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(file), np.full_like(pixels, 255))
    if changed.endswith("bmp"):  # has as many bytes whatever it shows
        assert file.stat().st_size == size
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert same(data[0], make(pair, None, "val")[0])
    assert not same(data[0], before)
    assert same(without_decoder(make(pair, tmp_path / "cache", "val"))[0], data[0])


def test_a_file_that_is_replaced_while_it_is_read_is_not_stored(tmp_path: Path) -> None:
    data = make((tmp_path, draw_rows(tmp_path, [(20, 20)])), tmp_path / "cache", "val")
    decode = data.preprocess

    def slow_decode(row: int) -> tuple[np.ndarray, np.ndarray]:
        pair = decode(row)
        os.utime(tmp_path / "0.jpg", ns=(0, 0))
        return pair

    data.preprocess = slow_decode
    data[0]
    assert not entries(data)


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "zeros", "other"])
def test_a_damaged_entry_is_built_again(pairs: tuple[Path, list[Row]], tmp_path: Path, damage: str) -> None:
    data, plain = make(pairs, tmp_path), make(pairs, None)
    fill(data)
    np.save(tmp_path / "other.npy", np.zeros(5))
    for path in entries(data):
        content = path.read_bytes()
        kinds = {"cut": content[:-1], "empty": b"", "header": content[:8], "zeros": bytes(len(content))}
        path.write_bytes(kinds.get(damage, (tmp_path / "other.npy").read_bytes()))
    again = make(pairs, tmp_path)
    assert all(same(again[row], plain[row]) for row in range(len(plain)))
    assert all(same(without_decoder(make(pairs, tmp_path))[row], plain[row]) for row in range(len(plain)))


def test_writing_into_a_sample_changes_no_entry(pairs: tuple[Path, list[Row]], tmp_path: Path) -> None:
    data = make(pairs, tmp_path, "val")
    expected = data[0]["image"].clone()
    for _ in range(2):
        data[0]["image"].zero_()
    assert torch.equal(data[0]["image"], expected)


def test_settings_and_versions_that_decide_the_pixels_name_the_folder(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(**changes: object) -> Path:
        data = make(pairs, None, "val")
        vars(data).update(changes)
        return PixelCache(tmp_path, "val", data.settings()).folder

    inverted = MaskEncoding(((0, 1), (255, 0)), ("background", "nail"))
    antialiased = MaskEncoding(BINARY.mapping, BINARY.class_names, antialiased=True)
    renamed = MaskEncoding(BINARY.mapping, ("background", "toe"))
    changes = [{}, {"size": 96}, {"resize": "squash"}, {"mode": "test"}, {"mask_encoding": inverted}]
    folders = [folder(**change) for change in [*changes, {"mask_encoding": antialiased}]]
    assert folder(mask_encoding=renamed) == folder() == folders[0]
    monkeypatch.setattr(cv2, "__version__", "another decoder")
    folders.append(folder())
    monkeypatch.setattr(cache_module, "CACHE_VERSION", cache_module.CACHE_VERSION + 1)
    assert len({*folders, folder()}) == 8


def set_free_space(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=count))


def test_a_full_disk_ends_the_writing_only(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plain = make(pairs, tmp_path), make(pairs, None)
    data[0]
    set_free_space(monkeypatch, 2**30)
    with pytest.warns(UserWarning, match=r"takes no more images: 1.07GB free on the disk.*--data.cache DIR"):
        assert same(data[1], plain[1])
    assert all(same(data[row], plain[row]) for row in range(len(plain)))  # without a second warning
    assert len(entries(data)) == 1


def test_an_error_while_writing_leaves_no_file(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_write(path: Path, content: memoryview) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    data = make(pairs, tmp_path)
    monkeypatch.setattr(Path, "write_bytes", failing_write)
    with pytest.warns(UserWarning, match=r"takes no more images: \[Errno 28\] No space left"):
        assert same(data[0], make(pairs, None)[0])
    assert [file.name for file in data.cache.folder.iterdir()] == [cache_module.MARKER]


def test_a_deleted_folder_ends_the_writing_only(pairs: tuple[Path, list[Row]], tmp_path: Path) -> None:
    data = make(pairs, tmp_path)
    shutil.rmtree(data.cache.folder)
    with pytest.warns(UserWarning, match="takes no more images"):
        assert same(data[0], make(pairs, None)[0])


def test_errors_of_the_files_are_the_same_as_without_a_cache(tmp_path: Path) -> None:
    data = make((tmp_path, [Row("a.jpg", "a.png", "train", "a")]), tmp_path / "cache")
    with pytest.raises(DataError, match="expected a file, found nothing"):
        data[0]


def test_the_message_gives_size_folder_and_what_is_written(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free_space(monkeypatch, 2**40)
    train, val = make(pairs, None), make(pairs, None, "val")
    message = attach_caches(str(tmp_path / "new" / "folder"), [train, val])
    total = sum(array.size for data in (train, val) for row in range(6) for array in data.preprocess(row))
    content = f"12 decoded images, {total / 1000:.0f}kB"
    folder = tmp_path / "new" / "folder"
    assert message.startswith(f"cache: {content}, 0.00B of it already written; 1.10TB free in {folder}.")
    assert train.cache.folder.parent == val.cache.folder.parent == folder
    assert train.cache.folder.name.startswith("train-64-")
    for data in (train, val):
        fill(data)
    on_disk = sum(file.stat().st_size for file in tmp_path.rglob("*.npy"))
    assert total < on_disk <= total + 12 * 256
    assert f"{content}, {total / 1000:.0f}kB of it" in attach_caches(str(folder), [train, val])


def test_auto_is_the_users_cache_folder(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    data = make(pairs, None)
    attach_caches("auto", [data])
    assert data.cache.folder.parent == tmp_path / "theirs" / "nailseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    attach_caches("auto", [data])
    assert data.cache.folder.parent == tmp_path / "home" / ".cache" / "nailseg"


@pytest.mark.parametrize(
    ("option", "free", "given"),
    # 1.6 MB are needed; a GiB stays free, and half of the free space with auto
    [
        ("auto", 2**30, False),
        ("auto", 2**30 + 2**24, True),
        ("DIR", 2**30, False),
        ("DIR", 2**30 + 2**24, True),
    ],
)
def test_no_cache_without_space(
    pairs: tuple[Path, list[Row]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    free: int,
    given: bool,
) -> None:
    set_free_space(monkeypatch, free)
    data = make(pairs, None)
    message = attach_caches(option if option == "auto" else str(tmp_path), [data])
    assert (data.cache is not None) == given
    if not given:
        assert message.startswith("cache: off; expected space for 6 decoded images")
        assert "1.07GB free in" in message
        assert "0.00B may be used. Free some space, or name a folder on another disk" in message
        assert not list(tmp_path.iterdir())


def test_auto_uses_half_of_the_free_space(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(pairs, None)
    monkeypatch.setattr(data, "preprocessed_bytes", lambda row: 2**30)  # 6 GiB
    set_free_space(monkeypatch, 8 * 2**30)
    assert attach_caches("auto", [data]).startswith("cache: off; expected space")
    assert "may be deleted at any time" in attach_caches(str(tmp_path), [data])
    set_free_space(monkeypatch, 12 * 2**30)
    assert "may be deleted at any time" in attach_caches("auto", [data])


def test_off(pairs: tuple[Path, list[Row]]) -> None:
    data = make(pairs, None)
    assert attach_caches("off", [data]) == "cache: off; every file is decoded in every epoch"
    assert data.cache is None


def test_a_folder_that_cannot_be_written_to(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, file = make(pairs, None), tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match=r"expected auto, off or a folder that can be.*, found '.*file'"):
        attach_caches(str(file), [data])
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert attach_caches("auto", [data]).startswith(
        "cache: off. --data.cache: expected auto, off or a folder"
    )
    assert data.cache is None


def test_the_data_module_caches_in_fit_only(
    csv: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    plain, cached = (test_datamodule.make(csv, cache=option) for option in ("off", str(tmp_path)))
    for data in (plain, cached):
        data.setup("fit")
    assert "cache: off; every file is decoded in every epoch" in caplog.text
    assert "cache: 12 decoded images" in caplog.text
    for _ in range(2):
        for kind in ("train_dataloader", "val_dataloader"):
            loaders = (getattr(plain, kind)(), getattr(cached, kind)())
            for expected, batch in zip(*loaders, strict=True):
                assert all(torch.equal(expected[key], batch[key]) for key in expected)
    assert len(list(tmp_path.rglob("*.npy"))) >= 11  # the last of a shuffled epoch are left out
    cached.setup("test")
    cached.setup("validate")
    assert cached.dataset("test").cache is None
    assert cached.dataset("val").cache is None


@pytest.mark.parametrize("written", ["off", "auto", "some/folder"])
def test_the_option_in_a_config(csv: Path, tmp_path: Path, written: str) -> None:
    (tmp_path / "a.yaml").write_text(f"data:\n  csv: {csv}\n  cache: {written}\n")
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(SegmentationDataModule, "data")
    typed = [f"--data.csv={csv}", f"--data.cache={written}"]
    for arguments in (["--config", str(tmp_path / "a.yaml")], typed):
        parsed = parser.parse_args(arguments)
        assert SegmentationDataModule(str(csv), cache=parsed.data.cache).cache == written
