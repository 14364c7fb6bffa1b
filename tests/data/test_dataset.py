"""Samples: the same bytes from any worker, and the documented sizes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nailseg.data import dataset
from nailseg.data.augmentation import TrainingTransform
from nailseg.data.dataset import Mode, SegmentationDataset, collate, start_worker
from nailseg.data.manifest import Row
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.samplers import EpochSampler
from nailseg.errors import ConfigError, DataError
from nailseg.imaging import geometry
from nailseg.types import Batch

BINARY = MaskEncoding(((0, 0), (255, 1)), ("background", "nail"))


def draw_rows(root: Path, sizes: list[tuple[int, int]]) -> list[Row]:
    """Ellipses on noise, mask 0/255, one pair for each (height, width)."""
    rng = np.random.default_rng(0)
    rows = []
    for number, (height, width) in enumerate(sizes):
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, (width // 2, height // 2), (width // 4, height // 5), 30 * number, 0, 360, 255, -1)
        image = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
        image[mask > 0] += 120
        cv2.imwrite(str(root / f"{number}.jpg"), image)
        cv2.imwrite(str(root / f"{number}.png"), mask)
        rows.append(Row(f"{number}.jpg", f"{number}.png", "train", str(number)))
    return rows


def make(root: Path, rows: list[Row], mode: Mode, size: int = 64, seed: int = 0) -> SegmentationDataset:
    transform = TrainingTransform(size) if mode == "train" else None
    return SegmentationDataset(rows, root, BINARY, size, mode=mode, seed=seed, transform=transform)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    root = tmp_path_factory.mktemp("pairs")
    return root, draw_rows(
        root, [(80, 100), (100, 80), (64, 64), (50, 200), (90, 90), (33, 47), (80, 100), (70, 70)]
    )


def test_training_samples_are_square(folder: tuple[Path, list[Row]]) -> None:
    dataset = make(*folder, "train")
    for row in range(len(dataset)):
        sample = dataset[(0, row)]
        assert sample["image"].shape == (3, 64, 64)
        assert sample["image"].dtype == torch.uint8
        assert sample["image"].is_contiguous()
        assert sample["mask"].shape == (64, 64)
        assert sample["mask"].dtype == torch.int64
        assert set(sample["mask"].unique().tolist()) <= {0, 1, 255}
        assert sample["valid_size"].tolist() == [64, 64]
        assert sample["row"] == row


def test_a_sample_depends_on_seed_epoch_and_row(folder: tuple[Path, list[Row]]) -> None:
    dataset = make(*folder, "train")
    first = dataset[(0, 2)]["image"]
    assert torch.equal(make(*folder, "train")[(0, 2)]["image"], first)
    assert torch.equal(dataset[2]["image"], first)
    assert not torch.equal(dataset[(1, 2)]["image"], first)
    assert not torch.equal(make(*folder, "train", seed=1)[(0, 2)]["image"], first)


def test_two_rows_of_one_image_are_augmented_differently(folder: tuple[Path, list[Row]]) -> None:
    root, rows = folder
    dataset = make(root, [rows[0], rows[0]], "train")
    assert not torch.equal(dataset[(0, 0)]["image"], dataset[(0, 1)]["image"])


@pytest.mark.parametrize("mode", ["val", "test"])
def test_evaluation_samples_are_resized_by_geometry(folder: tuple[Path, list[Row]], mode: Mode) -> None:
    dataset = make(*folder, mode)
    for row in range(len(dataset)):
        image, mask = dataset.read(row)
        sample = dataset[row]
        expected, valid = geometry.fit_image(torch.from_numpy(image).permute(2, 0, 1)[None], 64)
        assert torch.equal(
            sample["image"], expected[0] if mode == "test" else expected[0].round().to(torch.uint8)
        )
        assert sample["valid_size"].tolist() == list(valid)
        if mode == "test":
            assert np.array_equal(sample["mask"], mask)
        else:
            assert tuple(sample["mask"].shape) == valid
            share = float((sample["mask"] == 1).float().mean())
            assert share == pytest.approx((mask == 1).mean(), abs=0.02)


def test_the_downscaled_mask_is_not_shifted(tmp_path: Path) -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[40:88, 40:88] = 255  # symmetric: any shift shows
    cv2.imwrite(str(tmp_path / "a.png"), mask)
    cv2.imwrite(str(tmp_path / "a.jpg"), np.repeat(mask[..., None], 3, axis=2))
    for size in (32, 96, 160):
        small = make(tmp_path, [Row("a.jpg", "a.png", "val", "a")], "val", size)[0]["mask"]
        assert torch.equal(small, small.flip(0))
        assert torch.equal(small, small.flip(1))


def test_squash_is_an_option(folder: tuple[Path, list[Row]]) -> None:
    root, rows = folder
    dataset = SegmentationDataset(rows, root, BINARY, 64, resize="squash", mode="val")
    assert dataset[3]["image"].shape == (3, 64, 64)
    assert dataset[3]["mask"].shape == (64, 64)


def test_a_list_of_rows_is_a_batch(folder: tuple[Path, list[Row]]) -> None:
    dataset = make(*folder, "test")
    batch = collate(dataset[[0, 6]])
    assert batch["image"].shape == (2, 3, 64, 64)
    assert batch["mask"].shape == (2, 80, 100)
    assert batch["row"].tolist() == [0, 6]
    assert collate(dataset[6])["row"].tolist() == [6]


def epochs(dataset: SegmentationDataset, count: int, **options: object) -> list[list[Batch]]:
    sampler = EpochSampler(len(dataset), seed=0)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, worker_init_fn=start_worker, **options)
    found = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        found.append(list(loader))
    return found


@pytest.mark.parametrize(
    ("start_method", "persistent"), [("fork", False), ("fork", True), ("spawn", True)], ids=str
)
def test_workers_give_the_same_bytes(
    folder: tuple[Path, list[Row]], start_method: str, persistent: bool
) -> None:
    dataset = make(*folder, "train")
    expected = epochs(dataset, 2)
    found = epochs(
        dataset, 2, num_workers=2, multiprocessing_context=start_method, persistent_workers=persistent
    )
    for expected_epoch, found_epoch in zip(expected, found, strict=True):
        for expected_batch, batch in zip(expected_epoch, found_epoch, strict=True):
            assert expected_batch.keys() == batch.keys()
            for key in expected_batch:
                assert torch.equal(expected_batch[key], batch[key]), key
    first, second = (torch.cat([batch["image"] for batch in epoch]) for epoch in expected)
    assert not torch.equal(first, second)


def test_all_samples_of_an_epoch_are_augmented_differently(folder: tuple[Path, list[Row]]) -> None:
    root, rows = folder
    dataset = make(root, [rows[0]] * 8, "train")
    (epoch,) = epochs(dataset, 1, num_workers=2, multiprocessing_context="fork")
    images = torch.cat([batch["image"] for batch in epoch])
    assert len({image.numpy().tobytes() for image in images}) == 8


def test_a_mask_of_another_size_is_an_error(folder: tuple[Path, list[Row]]) -> None:
    root, rows = folder
    dataset = make(root, [Row(rows[0].image, rows[1].mask, "test", "0")], "test")
    with pytest.raises(
        DataError, match=r"1.png: expected the width x height of its image 0.jpg, 100x80, found 80x100"
    ):
        dataset[0]


@pytest.mark.parametrize(("mode", "transform"), [("train", None), ("val", TrainingTransform(64))])
def test_only_training_takes_a_transform(
    tmp_path: Path, mode: Mode, transform: TrainingTransform | None
) -> None:
    with pytest.raises(ConfigError, match="expected a transform for mode 'train' and none for any other"):
        SegmentationDataset([], tmp_path, BINARY, 64, mode=mode, transform=transform)


def test_preprocessed_bytes_respects_the_pixel_limit(folder: tuple[Path, list[Row]]) -> None:
    root, rows = folder
    data = SegmentationDataset(rows, root, BINARY, 64, mode="val", max_pixels=8_000)
    assert data.preprocessed_bytes(0) > 0
    with pytest.raises(DataError, match="expected at most 8,000 pixels"):
        data.preprocessed_bytes(3)


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs POSIX signals")
def test_a_worker_outlives_signals_for_a_moment_only(monkeypatch) -> None:
    """A scheduler's SIGTERM must not take the data from a step; multiprocessing waits after its own."""
    monkeypatch.setattr(dataset, "GRACE", 1)

    def work() -> None:
        dataset.start_worker(0)
        time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    time.sleep(0.3)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        os.kill(process.pid, number)
    process.join(0.4)
    assert process.is_alive()
    process.join(10)
    assert not process.is_alive()
