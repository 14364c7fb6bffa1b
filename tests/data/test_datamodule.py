"""From a CSV to batches, with and without a Trainer, in one process and in two."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from nailseg.data.augmentation import Augmentation
from nailseg.data.datamodule import SegmentationDataModule
from nailseg.errors import ConfigError, DataError
from tests.data.test_dataset import draw_rows

SPLIT = ["train"] * 9 + ["val"] * 3 + ["test"] * 5
SIZES = [(80, 100)] * 11 + [(64, 64)] + [(80, 100), (70, 50)] * 2 + [(90, 60)]


def write_set(root: Path) -> Path:
    rows = draw_rows(root, SIZES)
    lines = [f"{row.image},{row.mask},{split},{row.group}" for row, split in zip(rows, SPLIT, strict=True)]
    (root / "dataset.csv").write_text("\n".join(["image,mask,split,group", *lines]))
    return root / "dataset.csv"


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"))


def make(csv: Path, **options: object) -> SegmentationDataModule:
    return SegmentationDataModule(str(csv), **{"size": 64, "batch_size": 4, "workers": 0, **options})


class Recorder(LightningModule):
    """Learns nothing and records its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: dict[str, list[dict[str, torch.Tensor]]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        self.batches["train"].append(batch)
        return self.weight * 0

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        self.batches["val"].append(batch)

    def test_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        self.batches["test"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**options: object) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu", enable_model_summary=False, num_sanity_val_steps=0, **{**quiet, **options}
    )


few_workers = pytest.mark.filterwarnings(
    # zero workers keep the test fast
    "ignore:.*does not have many workers",
    # and so do few batches
    "ignore:.*is smaller than the logging interval",
)


def test_works_without_a_trainer(csv: Path) -> None:
    data = make(csv)
    assert data.class_names == ["background", "nail"]
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 64, 64)
    assert batch["mask"].shape == (4, 64, 64)
    assert data.mask_encoding.describe() == "0/255 read as background/nail"
    assert [row.image for row in data.rows("val")] == ["9.jpg", "10.jpg", "11.jpg"]
    assert data.rows("test")
    facts = data.facts()["data"]
    fingerprint = facts.pop("fingerprint")
    assert facts == {"csv": "dataset.csv", "train images": 9, "val images": 3, "test images": 5}
    other = csv.with_name("other.csv")
    other.write_text(csv.read_text().replace(",train", ",val", 1))
    again = make(other)
    again.setup("fit")
    assert again.facts()["data"]["fingerprint"] != fingerprint


def test_fit_evaluates_at_the_networks_size_and_test_at_the_masks_own_size(csv: Path) -> None:
    data = make(csv)
    data.setup("fit")
    assert [tuple(batch["mask"].shape) for batch in data.val_dataloader()] == [(2, 51, 64), (1, 64, 64)]
    data.setup("validate")
    assert [tuple(batch["mask"].shape) for batch in data.val_dataloader()] == [(2, 80, 100), (1, 64, 64)]
    data.setup("test")
    batches = list(data.test_dataloader())
    assert [batch["row"].tolist() for batch in batches] == [[0, 2], [1, 3], [4]]
    assert [tuple(batch["mask"].shape[1:]) for batch in batches] == [(80, 100), (70, 50), (90, 60)]


def test_a_last_batch_of_one_is_dropped_unless_it_is_the_only_batch(csv: Path) -> None:
    data = make(csv)
    data.setup("fit")
    assert [len(batch["row"]) for batch in data.train_dataloader()] == [4, 4]
    assert [len(batch["row"]) for batch in _refit(csv, batch_size=16)] == [9]
    assert [len(batch["row"]) for batch in _refit(csv, batch_size=1)] == [1] * 9


def _refit(csv: Path, **options: object) -> DataLoader:
    data = make(csv, **options)
    data.setup("fit")
    return data.train_dataloader()


@few_workers
def test_the_trainer_sets_the_epoch(csv: Path) -> None:
    data, model = make(csv), Recorder()
    trainer(max_epochs=2).fit(model, data)
    assert len(model.batches["train"]) == 4
    # the same epochs without a Trainer
    loader = _refit(csv)
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        trained = model.batches["train"][2 * epoch : 2 * epoch + 2]
        for expected, batch in zip(loader, trained, strict=True):
            assert torch.equal(expected["image"], batch["image"])
            assert torch.equal(expected["row"], batch["row"])
    assert not torch.equal(model.batches["train"][0]["image"], model.batches["train"][2]["image"])


@few_workers
def test_persistent_workers_use_the_current_epoch(csv: Path) -> None:
    without_workers, with_workers = Recorder(), Recorder()
    trainer(max_epochs=2).fit(without_workers, make(csv))
    trainer(max_epochs=2).fit(with_workers, make(csv, workers=2, start_method="fork"))
    for split in ("train", "val"):
        for expected, batch in zip(without_workers.batches[split], with_workers.batches[split], strict=True):
            assert all(torch.equal(expected[key], batch[key]) for key in expected)


@few_workers
@pytest.mark.filterwarnings("ignore:You requested to overfit")  # what this test is about
def test_overfit_batches_repeats_the_same_batches(csv: Path) -> None:
    model = Recorder()
    trainer(max_epochs=2, overfit_batches=1).fit(model, make(csv))
    first, second = model.batches["train"]
    assert torch.equal(first["image"], second["image"])
    assert all(batch["mask"].ndim == 3 for batch in model.batches["val"])


@few_workers
def test_data_is_validated_once_for_fit_and_test(csv: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data, model = make(csv), Recorder()
    runner = trainer(max_epochs=1)
    runner.fit(model, data)
    runner.test(model, data, verbose=False)
    assert caplog.text.count("0/255 read as background/nail") == 1
    assert sorted(int(row) for batch in model.batches["test"] for row in batch["row"]) == list(range(5))


class Processes:
    """The part of a Trainer that the data module uses, for a simulated process."""

    def __init__(self, world_size: int, rank: int, sent: object = None) -> None:
        self.world_size, self.global_rank, self.num_devices = world_size, rank, world_size
        self.strategy = SimpleNamespace(
            broadcast=lambda mine: sent if rank else mine, root_device=torch.device("cpu")
        )
        progress = SimpleNamespace(current=SimpleNamespace(processed=0, started=0, ready=0))
        self.fit_loop = SimpleNamespace(
            epoch_progress=progress, epoch_loop=SimpleNamespace(batch_progress=progress)
        )


def test_processes_share_the_rows(csv: Path) -> None:
    first = make(csv)
    first.trainer = Processes(2, 0)
    first.setup("fit")
    second = make(csv)
    second.trainer = Processes(2, 1, sent=first._summary)
    second.setup("fit")
    train, val = [], []
    for data in (first, second):
        assert len(data.train_dataloader()) == 1
        train += [int(row) for batch in data.train_dataloader() for row in batch["row"]]
        val += [int(row) for batch in data.val_dataloader() for row in batch["row"]]
    assert len(set(train)) == 8
    assert sorted(val) == [0, 1, 2]


def test_an_error_is_raised_in_every_process(tmp_path: Path) -> None:
    csv = write_set(tmp_path)
    (tmp_path / "16.png").unlink()  # of the test split: found before the training too
    first = make(csv)
    first.trainer = Processes(2, 0)
    with pytest.raises(DataError, match=r"16.png: expected a file, found nothing") as error:
        first.setup("fit")
    second = make(csv)
    second.trainer = Processes(2, 1, sent=error.value)
    with pytest.raises(DataError, match=r"16.png: expected a file, found nothing"):
        second.setup("fit")


@few_workers
def test_an_error_stops_the_trainer_before_the_first_step(tmp_path: Path) -> None:
    csv = write_set(tmp_path)
    (tmp_path / "3.jpg").write_bytes((tmp_path / "3.jpg").read_bytes()[:-200])
    model = Recorder()
    with pytest.raises(DataError, match=r"3\.jpg"):
        trainer(max_epochs=1).fit(model, make(csv))
    assert not model.batches["train"]


def test_a_fixed_data_set_is_validated_again(tmp_path: Path) -> None:
    csv = write_set(tmp_path)
    mask = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").unlink()
    data = make(csv)
    with pytest.raises(DataError, match=r"2\.png"):
        data.setup("fit")
    (tmp_path / "2.png").write_bytes(mask)
    data.setup("fit")
    assert len(data.train_dataloader()) == 2


def test_the_mask_encoding_can_be_given(tmp_path: Path) -> None:
    csv = write_set(tmp_path)
    for path in tmp_path.glob("*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(mask > 0, 10, 3).astype(np.uint8))
    with pytest.raises(DataError, match=r"mask-values \(17\)"):
        make(csv).setup("fit")
    data = make(csv, mask_values={3: "background", "10": "nail"})
    data.setup("fit")
    assert next(iter(data.val_dataloader()))["mask"].unique().tolist() == [0, 1]


def test_root_can_be_another_folder(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    csv = write_set(root).rename(tmp_path / "elsewhere.csv")
    data = make(csv, root=str(root))
    data.setup("test")
    assert len(list(data.test_dataloader())) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 500}, r"--data.size: expected a multiple of 32, found 500. The nearest is 512"),
        ({"size": 0}, r"--data.size: .*The nearest is 32"),
        ({"eval_size": 100}, r"--data.eval_size: expected a multiple of 32, found 100. The nearest is 96"),
        ({"eval_size": -32}, r"--data.eval_size: .*found -32. The nearest is 32"),
        ({"classes": ["nail"]}, r"--data.classes: expected 2 to 254 names"),
        ({"classes": "nail"}, "expected a list of names, found 'nail'"),
        ({"classes": ["background", "nail", "nail"]}, "expected names that differ"),
        ({"classes": ["nail", "background"]}, "expected background as the first name"),
        (
            {"classes": ["background", "nail", "wrong_nail"]},
            "expected a name other than wrong_nail, a column",
        ),
        ({"classes": ["background", "foreground", "nail"]}, "expected another name than foreground"),
        ({"batch_size": 0}, "--data.batch_size: expected a whole number from 1 on, found 0"),
        ({"eval_batch_size": 0}, "--data.eval_batch_size: expected a whole number from 1 on"),
        ({"workers": -1}, "--data.workers: expected a whole number from 0 on"),
        ({"seed": -1}, "--data.seed: expected a whole number from 0 on"),
    ],
)
def test_options_out_of_range(csv: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(csv, **options)


def test_what_setup_has_not_prepared_is_an_error(csv: Path) -> None:
    data = make(csv)
    with pytest.raises(ConfigError, match=r"test split is not set up. Call setup\('test'\) first"):
        data.test_dataloader()
    with pytest.raises(ConfigError, match="known after setup"):
        _ = data.mask_encoding
    with pytest.raises(
        ConfigError, match=r"expected a stage of .*'fit', 'validate', 'test'.*, found 'predict'"
    ):
        data.setup("predict")


def test_options_are_documented_on_the_command_line(csv: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SegmentationDataModule, "data")
    shown = " ".join(parser.format_help().split())
    assert "--data.augmentation.rotate ROTATE Largest rotation in either direction, in degrees." in shown
    assert "Names of the classes in the order of their indices" in shown
    options = ["--data.csv", str(csv), "--data.augmentation.rotate=5", "--data.augmentation.scale=[0.8,1.2]"]
    options += ["--data.mask_values={0: background, 255: nail}", "--data.size=64"]
    data = parser.instantiate(parser.parse_args(options)).data
    assert data.augmentation == Augmentation(rotate=5, scale=(0.8, 1.2))
    data.setup("test")
    assert data.mask_encoding.describe() == "0/255 read as background/nail"


def test_workers_leave_cores_for_the_training(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    data = make(csv, workers=None)
    data.setup("fit")
    assert data.train_dataloader().num_workers == 8
    for devices, workers in {1: 8, 2: 7, 4: 3, 16: 1}.items():
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(num_devices=devices, world_size=1, global_rank=0, strategy=strategy)
        assert data.train_dataloader().num_workers == workers


def test_evaluation_size_can_exceed_the_training_size(drawn) -> None:
    data = SegmentationDataModule(csv=drawn / "dataset.csv", size=64, eval_size=96, batch_size=4, workers=0)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["image"].shape[-2:] == (64, 64)
    assert max(next(iter(data.val_dataloader()))["image"].shape[-2:]) == 96


def test_facts_count_a_missing_file_that_is_left_out(csv: Path, tmp_path: Path) -> None:
    table = csv.read_text().splitlines()
    broken = csv.with_name("broken.csv")
    broken.write_text("\n".join([*table, table[1].replace(table[1].split(",")[0], "gone.jpg")]) + "\n")
    data = make(broken, skip_bad=True)
    data.setup("fit")
    assert data.facts()["data"]["left out"] == 1
    assert len(data.facts()["data"]["fingerprint"]) == 16
