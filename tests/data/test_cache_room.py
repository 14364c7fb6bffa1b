"""Which data sets get a cache, what is said about it, and what a disk without room does."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import ArgumentParser

from nailseg.data import cache as cache_module
from nailseg.data.cache import say_bytes
from nailseg.data.cache_room import give_caches
from nailseg.data.datamodule import SegmentationDataModule
from nailseg.data.manifest import Row
from nailseg.errors import ConfigError
from tests.data import test_datamodule
from tests.data.test_cache import SIZES, make, same
from tests.data.test_dataset import draw_rows

csv = test_datamodule.csv


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    root = tmp_path_factory.mktemp("pairs")
    return root, draw_rows(root, SIZES)


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=count))


def test_says_size_and_folder_and_what_is_there(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SETTLED", -1.0)
    free(monkeypatch, 2**40)
    train, val = make(pairs, None), make(pairs, None, "val")
    said = give_caches(str(tmp_path / "new" / "folder"), [train, val])
    total = sum(array.size for data in (train, val) for row in range(6) for array in data.fixed(row))
    size = f"12 decoded images, {total / 1000:.0f} kB"
    assert said.startswith(f"cache: {size}, 0 bytes of it there already")
    assert f"1.1 TB free. It lies in {train.cache.folder} and {val.cache.folder}, and may be deleted" in said
    assert train.cache.folder.parent == tmp_path / "new" / "folder"
    assert train.cache.folder.name.startswith("train-64-")
    for data in (train, val):
        for row in range(len(data)):
            data[row]
    on_disk = sum(file.stat().st_size for file in tmp_path.rglob("pixels/*"))
    assert on_disk == total + 12 * cache_module.HEADER.size
    assert f"{size}, {total / 1000:.0f} kB of it there" in give_caches(
        str(tmp_path / "new/folder"), [train, val]
    )


def test_auto_is_the_users_cache_folder(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    data = make(pairs, None)
    give_caches("auto", [data])
    assert data.cache.folder.parent == tmp_path / "theirs" / "nailseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    give_caches("auto", [data])
    assert data.cache.folder.parent == tmp_path / "home" / ".cache" / "nailseg"


@pytest.mark.parametrize(
    ("option", "room", "given"),
    # 1.6 MB are asked for; a GiB always stays, and without being asked half of what is free
    [
        ("auto", 2**30, False),
        ("auto", 2**30 + 2**24, True),
        ("DIR", 2**30, False),
        ("DIR", 2**30 + 2**24, True),
    ],
)
def test_no_cache_without_room(
    pairs: tuple[Path, list[Row]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    room: int,
    given: bool,
) -> None:
    free(monkeypatch, room)
    data = make(pairs, None)
    said = give_caches(option if option == "auto" else str(tmp_path), [data])
    assert (data.cache is not None) == given
    if not given:
        assert said.startswith("cache: off; expected room for 6 decoded images")
        assert "found 1.07 GB free in" in said
        assert (
            "0 bytes may be taken. Free some, or name a folder on another disk with --data.cache DIR" in said
        )
        assert not list(tmp_path.iterdir())


def test_auto_takes_half_of_what_is_free(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(pairs, None)
    monkeypatch.setattr(data, "fixed_bytes", lambda row: 2**30)  # 6 GiB
    free(monkeypatch, 8 * 2**30)
    assert give_caches("auto", [data]).startswith("cache: off; expected room")
    assert "may be deleted at any time" in give_caches(str(tmp_path), [data])
    free(monkeypatch, 12 * 2**30)
    assert "may be deleted at any time" in give_caches("auto", [data])


def test_off_is_off(pairs: tuple[Path, list[Row]]) -> None:
    data = make(pairs, None)
    assert give_caches("off", [data]) == "cache: off; every file is decoded in every epoch"
    assert data.cache is None


def test_a_folder_that_cannot_be_one(
    pairs: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, file = make(pairs, None), tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match=r"expected auto, off or a folder to write into, found '.*file'"):
        give_caches(str(file), [data])
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert give_caches("auto", [data]).startswith("cache: off. --data.cache: expected auto, off or a folder")
    assert data.cache is None


def test_the_data_module_caches_for_fit_alone(
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
            for wanted, batch in zip(*loaders, strict=True):
                assert all(torch.equal(wanted[key], batch[key]) for key in wanted)
    assert len(list(tmp_path.rglob("pixels/*"))) >= 11  # the last of a shuffled epoch are left out
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


@pytest.mark.parametrize(
    ("count", "said"), [(7, "7 bytes"), (1800, "1.8 kB"), (2**30, "1.07 GB"), (5e15, "5e+03 TB")]
)
def test_sizes_for_people(count: float, said: str) -> None:
    assert say_bytes(count) == said


def test_a_folder_that_vanishes_ends_the_writing_and_nothing_else(
    pairs: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    data = make(pairs, tmp_path)
    shutil.rmtree(data.cache.folder)
    with pytest.warns(UserWarning, match="takes no more images"):
        assert same(data[0], make(pairs, None)[0])
