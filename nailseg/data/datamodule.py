"""SegmentationDataModule: validates the data set of a CSV and loads it, with or without a Trainer."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities import suggested_max_num_workers
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from nailseg.data.augmentation import DEFAULT_AUGMENTATION, Augmentation, TrainingTransform
from nailseg.data.cache import attach_caches
from nailseg.data.dataset import Mode, SegmentationDataset, collate, start_worker
from nailseg.data.io.images import MAX_PIXELS, read_image_size
from nailseg.data.io.levels import RangeOption, check_image_range
from nailseg.data.issues import check_codes
from nailseg.data.manifest import SPLITS, Manifest, Row, load_manifest
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.samplers import EpochSampler, EqualSizeSampler
from nailseg.data.validation.statistics import compute_fingerprint
from nailseg.data.validation.validate import DataSummary, validate_rows
from nailseg.errors import ConfigError, NailsegError
from nailseg.imaging.geometry import MULTIPLE, Resize
from nailseg.types import DEFAULT_CLASSES, check_class_names

log = logging.getLogger("nailseg")  # the command line silences it except on rank 0

# the splits that each stage reads, and their modes; fit evaluates val in every epoch, so in the cheap mode
STAGES: dict[str, dict[str, Mode]] = {
    "fit": {"train": "train", "val": "val"},
    "validate": {"val": "test"},
    "test": {"test": "test"},
}


class SegmentationDataModule(LightningDataModule):
    """Images and masks of a CSV, with its splits train, val and test."""

    def __init__(
        self,
        csv: str,
        root: str | None = None,
        classes: tuple[str, ...] | list[str] = DEFAULT_CLASSES,
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
        image_range: RangeOption = "full",
        class_weights: Literal["balanced"] | list[float] | None = None,
    ) -> None:
        """Checks the options; `setup` reads the files, and `class_names` is known before.

        Args:
            csv: CSV of the data set (`nailseg index`): image,mask,split,group, or image,mask, or images.
            root: Folder that the CSV's paths are relative to; by default the CSV's own.
            classes: Names of the classes in the order of their indices; the first is the background.
            mask_values: The mask encoding: value in mask files (or color, '#rrggbb') to class name, or to
                'ignore' for pixels that do not count; by default inferred from the whole data set.
            size: Side of training images, longer side of others, in pixels; a multiple of 32.
            eval_size: Longer side (with `crop`: side of the tiles) in evaluation and in the resulting model;
                by default `size`. A larger one can be better (Touvron et al. 2019, "Fixing the train-test
                resolution discrepancy"). 0 leaves images as they are, for exported models, which resize.
            resize: Keep the aspect ratio and pad, or squash into a square; for large images of small objects
                crop: train on crops at the images' own scale, evaluate and predict in overlapping tiles.
            batch_size: Training images per step and process.
            eval_batch_size: Most evaluation images per step and process; by default `batch_size`.
            workers: Processes that read files, per training process; 0 reads in the training process. By
                default the remaining cores, shared among the training processes, at most 8.
            start_method: How Python starts the processes that read files; by default as usual on the system.
            seed: Seed of the order and of the augmentation.
            augmentation: Strengths and probabilities of the augmentation.
            balance_folders: Show training images of all folders equally often, however many each holds.
            cache: Folder that keeps decoded images between epochs and runs; 'auto' is the user's cache
                folder, if the disk has enough space; 'off' decodes every time. It changes no pixel.
            allow: Codes of issues to accept, as `nailseg check` prints them; unusable rows are left out.
            skip_bad: Leave out every row with an error.
            class_weights: Weights of the classes' pixels in cross-entropy and focal loss, by class index, or
                balanced: training pixels / (classes * pixels of the class), as in scikit-learn.
            image_range: The 16-bit values that become 0 and 255: full (0 and 65535), two values, or
                percentile, which measures the training images (0.5 and 99.5 %). Recorded with the model.
            max_pixels: Most pixels (height times width) an image may have.

        Raises:
            ConfigError: An option is out of range or contradicts another.
        """
        super().__init__()
        # rank 0 alone validates the data and sends the result to the others, see setup
        self.prepare_data_per_node = False
        self.csv, self.root = str(csv), root
        self.class_names = check_class_names(classes, "--data.classes")
        self.size, self.eval_size = size, size if eval_size is None else eval_size
        self.resize: Resize = resize
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.workers, self.start_method = workers, start_method
        self.seed = seed
        self.augmentation, self.balance_folders = augmentation, balance_folders
        # YAML reads a bare off as false
        self.cache = {"false": "off", "true": "auto"}.get(str(cache).lower(), cache)
        self.allow, self.skip_bad = sorted(check_codes(allow)), skip_bad
        self.max_pixels = max_pixels
        if isinstance(class_weights, list) and len(class_weights) != len(self.class_names):
            expected = f"one weight for each of {', '.join(self.class_names)}, or balanced"
            raise ConfigError(f"--data.class_weights: expected {expected}, found {class_weights}.")
        if isinstance(class_weights, list) and not (min(class_weights) >= 0 < max(class_weights)):
            raise ConfigError(f"--data.class_weights: expected weights from 0 on, found {class_weights}.")
        self._class_weights = class_weights
        check_image_range(image_range, "--data.image_range")
        self.image_range: RangeOption = image_range
        for name, least in {"size": MULTIPLE, "eval_size": 0}.items():
            value = getattr(self, name)
            if value < least or value % MULTIPLE:
                nearest = max(MULTIPLE, round(value / MULTIPLE) * MULTIPLE)
                expected = f"expected a multiple of {MULTIPLE}, found {value}. The nearest is {nearest}"
                raise ConfigError(f"--data.{name}: {expected}.")
        minimum = {"batch_size": 1, "eval_batch_size": 1, "workers": 0, "seed": 0, "max_pixels": 1}
        for name, least in minimum.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--data.{name}: expected a whole number from {least} on, found {value}.")
        self._left_out: set[str] = set()
        self._given_encoding = mask_values
        self._summary: DataSummary | NailsegError | None = None
        self._validated: set[str] = set()
        self._datasets: dict[str, SegmentationDataset] = {}

    @cached_property
    def manifest(self) -> Manifest:
        """The CSV's rows, read on first use; without the rows that `setup` leaves out."""
        return load_manifest(self.csv, self.root, strict=False)

    @property
    def mask_encoding(self) -> MaskEncoding:
        """How values in mask files become classes; known after `setup`."""
        if not isinstance(self._summary, DataSummary):
            raise ConfigError("The mask encoding is known after setup. Call setup first.")
        return self._summary.mask_encoding

    @property
    def class_weights(self) -> list[float] | None:
        """Weights of the classes' pixels in the loss, None for equal ones; known after `setup`."""
        if self._class_weights != "balanced":
            return self._class_weights
        pixels = self._summary.train_pixels  # known, because the mask encoding is
        return [sum(pixels) / (len(pixels) * max(count, 1)) for count in pixels]

    def rows(self, split: str) -> list[Row]:
        """The rows of train, val or test; a batch's `row` counts through this list."""
        return self.manifest.select(split)

    def dataset(self, split: str) -> SegmentationDataset:
        """The data set of train, val or test that `setup` has built."""
        if split not in self._datasets:
            stages = [stage for stage, splits in STAGES.items() if split in splits]
            raise ConfigError(f"The {split} split is not set up. Call setup({stages[0]!r}) first.")
        return self._datasets[split]

    def fingerprint(self) -> str:
        """A hash of the rows, their paths and the sizes of their files; see `compute_fingerprint`."""
        rows = [row for split in SPLITS for row in self.rows(split)]
        return compute_fingerprint(rows, self.manifest.root)

    def facts(self) -> dict[str, Any]:
        """What a model folder records about its training data, in plain values; known after `setup`."""
        data = {"csv": Path(self.csv).name} | {f"{split} images": len(self.rows(split)) for split in SPLITS}
        data["fingerprint"] = self.fingerprint()
        optional = {"allowed": self.allow, "left out": len(self._left_out)}
        optional["class weights"] = self.class_weights
        data |= {name: value for name, value in optional.items() if value}
        image_range = self._summary.image_range and list(self._summary.image_range)
        return {"mask_values": self.mask_encoding.to_dict(), "image_range": image_range, "data": data}

    def prepare_data(self) -> None:
        """Validates every needed file, in one process; called by the Trainer."""
        # `setup` raises the errors, in all processes: raised here, the others would wait for this one
        if self.trainer:
            self._validate(self.trainer.state.fn.value)

    def setup(self, stage: Literal["fit", "validate", "test"] = "fit") -> None:
        """Validates the data (once) and builds a stage's data sets; the Trainer calls it, or a notebook.

        Args:
            stage: fit (train and val), validate (val at the masks' own size) or test.

        Raises:
            DataError: The CSV or a file in it has errors; the message lists all of them.
        """
        stage = getattr(stage, "value", stage)
        if stage not in STAGES:
            raise ConfigError(f"setup: expected a stage of {list(STAGES)}, found {stage!r}.")
        world_size, rank = self._processes()
        summary = self._validate(stage) if rank == 0 else None
        if world_size > 1:
            summary = self.trainer.strategy.broadcast(summary)
        if isinstance(summary, NailsegError):
            vars(self).pop("manifest", None)  # the next call, in a notebook, validates again
            self._summary, self._validated = None, set()
            raise summary
        self._summary = summary
        self._left_out.update(summary.left_out)
        self.manifest = self.manifest.without(self._left_out)
        common = {"resize": self.resize, "seed": self.seed, "max_pixels": self.max_pixels}
        for split, mode in STAGES[stage].items():
            size, transform = self.eval_size, None
            if mode == "train":
                size, transform = self.size, TrainingTransform(self.size, self.resize, self.augmentation)
            files = self.rows(split), self.manifest.root, self.mask_encoding
            options = {"mode": mode, "transform": transform, "image_range": summary.image_range, **common}
            self._datasets[split] = SegmentationDataset(*files, size, **options)
        if stage == "fit" and self._class_weights:
            weights = zip(self.class_names, self.class_weights, strict=True)
            log.info("class weights: %s", ", ".join(f"{name} {weight:.4g}" for name, weight in weights))
        if stage == "fit":  # the other stages read each file once
            log.info(attach_caches(self.cache, [self._datasets[split] for split in STAGES[stage]]))

    def train_dataloader(self) -> DataLoader:
        """Shuffled, augmented batches of `size` x `size`; an incomplete last batch is left out."""
        dataset = self.dataset("train")
        strata = [row.folder for row in dataset.rows] if self.balance_folders else None
        sampler = EpochSampler(
            len(dataset), self.seed, *self._processes(), strata, self._position if self.trainer else None
        )
        if len(sampler) < self.batch_size:
            log.info("batch size: %d, all images of an epoch, not %d", len(sampler), self.batch_size)
        drop_last = len(sampler) >= self.batch_size  # batch norm cannot learn from a last batch of one
        return self._loader(dataset, batch_size=self.batch_size, sampler=sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader:
        """Batches of equal image size, in the order of the CSV."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        """Batches of equal image size, in the order of the CSV, with masks at their own size."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> DataLoader:
        dataset = self.dataset(split)
        sizes = [read_image_size(dataset.root / row.image, self.max_pixels) for row in dataset.rows]
        sampler = EqualSizeSampler(sizes, self.eval_batch_size, *self._processes())
        # without a batch size, because the sampler yields whole batches
        return self._loader(dataset, batch_size=None, sampler=sampler, collate_fn=collate)

    def _loader(self, dataset: SegmentationDataset, **options: Any) -> DataLoader:
        trainer, workers = self.trainer, self.workers
        on_gpu = trainer.strategy.root_device.type == "cuda" if trainer else torch.cuda.is_available()
        if workers is None:
            workers = min(8, suggested_max_num_workers(trainer.num_devices if trainer else 1))
        return DataLoader(
            dataset,
            num_workers=workers,
            persistent_workers=workers > 0 and dataset.mode != "test",  # a test reads its data once
            multiprocessing_context=self.start_method if workers > 0 else None,
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # the global one is the network's: its state is in checkpoints
            pin_memory=on_gpu,
            **options,
        )

    def _position(self) -> tuple[int, int]:
        """The training's epoch, and how many of its rows this process has read before a checkpoint."""
        loop = self.trainer.fit_loop
        epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
        # Lightning sets the sampler's epoch only after workers have begun to read
        return epochs.processed, self.batch_size * batches.ready * (epochs.started > epochs.processed)

    def _processes(self) -> tuple[int, int]:
        """Number of training processes, and the rank of this one."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _validate(self, stage: str) -> DataSummary | NailsegError:
        """Decodes every file a stage needs, once; returns errors instead of raising them."""
        if isinstance(self._summary, NailsegError):
            return self._summary
        try:
            splits = {*STAGES[stage]}
            if stage == "fit" and self.rows("test"):
                splits.add("test")  # its errors should not be found only after the training
            if not splits <= self._validated:
                self._summary = validate_rows(
                    self.manifest,
                    self.class_names,
                    self._summary.mask_encoding if self._summary else self._given_encoding,
                    splits_needed=[split for split in SPLITS if split in splits],
                    max_pixels=self.max_pixels,
                    allow=self.allow,
                    skip_bad=self.skip_bad,
                    image_range=self._summary.image_range or "full" if self._summary else self.image_range,
                ).summarize()
                self._validated |= splits
                log.info(self._summary.text)
        except NailsegError as error:
            self._summary = error
        return self._summary
