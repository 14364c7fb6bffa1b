"""SegmentationDataModule: from a CSV to checked, reproducible batches, with or without a Trainer."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from nailseg.data.augmentation import DEFAULT_AUGMENTATION, Augmentation, TrainingTransform
from nailseg.data.cache_room import give_caches
from nailseg.data.dataset import Mode, SegmentationDataset, collate, start_worker
from nailseg.data.io.images import MAX_PIXELS, MaskEncoding, read_image_size
from nailseg.data.manifest import SPLITS, Manifest, Row, load_manifest
from nailseg.data.options import at_least, reading_processes, valid_size
from nailseg.data.samplers import EpochSampler, EqualSizeSampler
from nailseg.data.validation.issues import check_codes
from nailseg.data.validation.statistics import digest
from nailseg.data.validation.validate import DataSummary, check_rows
from nailseg.errors import ConfigError, NailsegError
from nailseg.imaging.geometry import Resize
from nailseg.types import check_class_names

log = logging.getLogger("nailseg")  # the command line lets rank 0 speak only

Stage = Literal["fit", "validate", "test"]

# what each stage reads, and how; fit validates at the network's size, because it does so every epoch
STAGES: dict[str, dict[str, Mode]] = {
    "fit": {"train": "train", "val": "val"},
    "validate": {"val": "test"},
    "test": {"test": "test"},
}


class SegmentationDataModule(LightningDataModule):
    """Images and masks listed in a CSV, split into train, val and test."""

    def __init__(
        self,
        csv: str,
        root: str | None = None,
        classes: tuple[str, ...] | list[str] = ("background", "nail"),
        mask_values: dict[str | int, str] | None = None,
        size: int = 512,
        eval_size: int | None = None,
        resize: Resize = "keep",
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        workers: int | None = None,
        start_method: Literal["fork", "spawn", "forkserver"] | None = None,
        seed: int = 0,
        augmentation: Augmentation = DEFAULT_AUGMENTATION,
        balance_folders: bool = False,
        cache: str | bool = "auto",
        allow: tuple[str, ...] | list[str] = (),
        skip_bad: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Checks the options; files are read by `setup`.

        Args:
            csv: The data set's CSV: image,mask,split,group, or image,mask, or images (`nailseg index`).
            root: Folder the CSV's paths start from; the CSV's own folder when not given.
            classes: Names of the classes in the order of their indices; the first is the background.
            mask_values: What the values in mask files mean: value (or colour, '#rrggbb') to class name, or to
                'ignore' for what must not count; found out from the whole set when not given.
            size: Pixels of the network's input: both sides of training images, the longer side of others.
                A multiple of 32.
            eval_size: Pixels of the longer side in evaluation and of the model that results; as size when not
                given. Larger than in training may pay (Touvron et al. 2019, "Fixing the train-test resolution
                discrepancy"). 0 leaves images as they are, for exported models, which do it themselves.
            resize: Keep the aspect ratio and pad, or squash into a square.
            batch_size: Training images per step and process.
            eval_batch_size: Most evaluation images per step and process; as batch_size when not given.
            workers: Processes that read files, per training process; 0 reads in the training process. By
                default the cores left over, shared among the training processes, at most 8.
            start_method: How those processes start; the system's own way when not given.
            seed: Seed of the order and of the augmentation.
            augmentation: How strongly training images are varied.
            balance_folders: Show training images of all folders equally often, however many each holds.
            cache: Folder that keeps decoded images from epoch to epoch and run to run; it changes no pixel.
                'auto' is the user's cache folder, if the disk has room; 'off' decodes every time.
            allow: Codes of faults that may pass, as `nailseg check` says them; rows that cannot be used are
                left out.
            skip_bad: Leave out every row that a fault names.
            max_pixels: Most pixels (height times width) an image may have.

        Raises:
            ConfigError: An option is out of range or contradicts another.
        """
        super().__init__()
        # rank 0 alone checks the data, its finding is sent to the others: see setup
        self.prepare_data_per_node = False
        self.csv = str(csv)
        self.root = root
        self._class_names = tuple(check_class_names(classes, "--data.classes"))
        self.size = valid_size(size)
        self.eval_size = self.size if eval_size is None else eval_size and valid_size(eval_size, "eval_size")
        self.resize: Resize = resize
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.eval_batch_size = (
            batch_size if eval_batch_size is None else at_least("eval_batch_size", eval_batch_size, 1)
        )
        self.workers = None if workers is None else at_least("workers", workers, 0)
        self.start_method = start_method
        self.seed = at_least("seed", seed, 0)
        self.augmentation = augmentation
        self.balance_folders = balance_folders
        # YAML reads a bare off as false
        self.cache = {False: "off", True: "auto"}.get(cache, cache)
        self.allow = sorted(check_codes(allow))
        self.skip_bad = skip_bad
        self.max_pixels = at_least("max_pixels", max_pixels, 1)
        self._left_out: set[str] = set()
        self._given_values = mask_values
        self._manifest: Manifest | None = None
        self._mask_values: MaskEncoding | None = None
        self._finding: DataSummary | NailsegError | None = None
        self._checked: set[str] = set()
        self._datasets: dict[str, SegmentationDataset] = {}

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their indices; known before `setup`."""
        return list(self._class_names)

    @property
    def manifest(self) -> Manifest:
        """The CSV's rows, read on first use."""
        if self._manifest is None:
            self._manifest = load_manifest(self.csv, self.root, strict=False)
        return self._manifest

    @property
    def mask_values(self) -> MaskEncoding:
        """How mask files' values become classes; known after `setup`."""
        if self._mask_values is None:
            raise ConfigError("SegmentationDataModule.mask_values: known after setup only. Call setup first.")
        return self._mask_values

    def rows(self, split: str) -> list[Row]:
        """The rows of one split; a batch's `row` counts through this list.

        Args:
            split: train, val or test.
        """
        return self.manifest.select(split)

    def has_split(self, split: str) -> bool:
        """Whether the CSV has rows of a split.

        Args:
            split: train, val or test.
        """
        return bool(self.rows(split))

    def facts(self) -> dict[str, Any]:
        """What a model folder records of its training data, in plain values; known after `setup`."""
        rows = {split: len(self.rows(split)) for split in SPLITS}
        return {
            "mask_values": self.mask_values.to_dict(),
            "data": {
                "csv": Path(self.csv).name,
                **{f"{split} images": count for split, count in rows.items()},
                "fingerprint": digest([r for s in SPLITS for r in self.rows(s)], self.manifest.root),
                **({"allowed": self.allow} if self.allow else {}),
                **({"left out": len(self._left_out)} if self._left_out else {}),
            },
        }

    def prepare_data(self) -> None:
        """Checks every needed file, in one process; called by the Trainer.

        A fault is kept for `setup` to raise in all processes alike: here, the others would wait for it.
        """
        if self.trainer:
            self._check(self.trainer.state.fn.value)

    def setup(self, stage: Stage = "fit") -> None:
        """Checks the data (once) and builds a stage's data sets; by the Trainer, or by hand in a notebook.

        Args:
            stage: fit (train and val), validate (val at the masks' own size) or test.

        Raises:
            DataError: The CSV or any file in it cannot be trusted; the message lists every fault.
        """
        stage = getattr(stage, "value", stage)
        if stage not in STAGES:
            raise ConfigError(f"setup: expected a stage of {list(STAGES)}, found {stage!r}.")
        world_size, rank = self._place()
        finding = self._check(stage) if rank == 0 else None
        if world_size > 1:
            finding = self.trainer.strategy.broadcast(finding)
        if isinstance(finding, NailsegError):
            # a notebook's next try shall look again
            self._manifest = self._finding = None
            self._checked.clear()
            raise finding
        self._mask_values = finding.mask_values
        self._left_out.update(finding.left_out)
        self._manifest = self.manifest.without(self._left_out)
        for split, mode in STAGES[stage].items():
            self._datasets[split] = SegmentationDataset(
                self.rows(split),
                self.manifest.root,
                finding.mask_values,
                size=self.size if mode == "train" else self.eval_size,
                resize=self.resize,
                mode=mode,
                seed=self.seed,
                transform=TrainingTransform(self.size, self.resize, self.augmentation)
                if mode == "train"
                else None,
                max_pixels=self.max_pixels,
            )
        if stage == "fit":  # the other stages read each file once
            log.info(give_caches(self.cache, [self._datasets[split] for split in STAGES[stage]]))

    def train_dataloader(self) -> DataLoader:
        """Shuffled, varied batches of `size` x `size`; a last batch that is not full is left out."""
        world_size, rank = self._place()
        dataset = self.dataset("train")
        folders = [str(PurePosixPath(row.image).parent) for row in dataset.rows]
        strata = folders if self.balance_folders else None
        sampler = EpochSampler(len(dataset), self.seed, world_size, rank, strata)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            # batch norm cannot learn from a last batch of one
            drop_last=len(sampler) >= self.batch_size,
            **self._loading(persistent=True),
        )

    def val_dataloader(self) -> DataLoader:
        """Batches of equal image size, in the order of the CSV."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        """Batches of equal image size, in the order of the CSV, with masks at their own size."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> DataLoader:
        world_size, rank = self._place()
        dataset = self.dataset(split)
        sizes = [read_image_size(dataset.root / row.image, self.max_pixels) for row in dataset.rows]
        return DataLoader(
            dataset,
            batch_size=None,  # the sampler yields whole batches
            sampler=EqualSizeSampler(sizes, self.eval_batch_size, world_size, rank),
            collate_fn=collate,
            **self._loading(persistent=dataset.mode == "val"),
        )

    def _loading(self, persistent: bool) -> dict[str, Any]:
        """What all loaders share."""
        processes = self.trainer.num_devices if self.trainer else 1
        workers = reading_processes(processes) if self.workers is None else self.workers
        on_gpu = (
            self.trainer.strategy.root_device.type == "cuda" if self.trainer else torch.cuda.is_available()
        )
        return {
            "num_workers": workers,
            "persistent_workers": persistent and workers > 0,
            "multiprocessing_context": self.start_method if workers > 0 else None,
            "worker_init_fn": start_worker,
            "pin_memory": on_gpu,
        }

    def _place(self) -> tuple[int, int]:
        """Number of training processes, and which one this is."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _check(self, stage: str) -> DataSummary | NailsegError:
        """Decodes every file a stage needs, once, and returns what was found instead of raising it."""
        if isinstance(self._finding, NailsegError):
            return self._finding
        try:
            splits = {*STAGES[stage]}
            if stage == "fit" and self.has_split("test"):
                splits.add("test")  # its faults should not wait until after the training
            if not splits <= self._checked:
                known = self._finding.mask_values if self._finding else self._given_values
                needed = [split for split in SPLITS if split in splits]
                self._finding = check_rows(
                    self.manifest,
                    self.class_names,
                    known,
                    splits_needed=needed,
                    max_pixels=self.max_pixels,
                    allow=self.allow,
                    skip_bad=self.skip_bad,
                )
                self._checked |= splits
                log.info(str(self._finding))
        except NailsegError as error:
            self._finding = error
        return self._finding

    def dataset(self, split: str) -> SegmentationDataset:
        """The data set of a split that `setup` has built.

        Args:
            split: train, val or test.
        """
        if split not in self._datasets:
            stages = [stage for stage, splits in STAGES.items() if split in splits]
            raise ConfigError(
                f"SegmentationDataModule: the {split} split was asked for before setup. "
                f"Call setup({stages[0]!r}) first; a Trainer does."
            )
        return self._datasets[split]
