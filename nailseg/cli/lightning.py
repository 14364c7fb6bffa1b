"""Lightning's command line over our task and data: fit, validate, test and train, each in a run folder.

The only module that knows both; `add_arguments_to_parser` states which facts of the data reach the model.
"""

import contextlib
import logging
import os
import shutil
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from nailseg.checkpoints import model_folder
from nailseg.cli.arguments import (
    CommandLine,
    check_limits,
    prepare_evaluation,
    prepare_resume,
    require_resumable,
)
from nailseg.cli.auto_config import auto_configure
from nailseg.cli.cross_validation import FOLD_VARIABLE, train_folds
from nailseg.cli.messages import explain_error
from nailseg.cli.run_config import is_run_config, require_known_classes
from nailseg.cli.runner import UsageError
from nailseg.data.datamodule import SegmentationDataModule
from nailseg.errors import ConfigError, NailsegError, WeightsError, WriteError
from nailseg.evaluation import report
from nailseg.evaluation.wandb import report_to_wandb
from nailseg.files import require_writable
from nailseg.inference.backends import find_exported_file
from nailseg.inference.backends.torch import create_backend
from nailseg.inference.segmenter import Segmenter
from nailseg.model_info import RUNS, model_name
from nailseg.training import callbacks
from nailseg.training.interruption import StopOnSignal
from nailseg.training.run_dir import (
    create_logger,
    create_run_folder,
    find_git_commit,
    locked,
    record_start,
    removed_if_refused,
)
from nailseg.training.task import MONITOR, SegmentationTask

log = logging.getLogger("nailseg")

NOT_SAVED = {"config", "ckpt_path", "weights_only", "verbose"}
NOT_SAVED |= {"name", "runs", "resume", "folds", "auto_config", "allow_class"}
"""Options of one call, which a run's config.yaml must not repeat."""

HARMLESS = (
    "LightningCLI's args parameter",  # sys.argv cannot be parsed again: configs and --resume are replaced
    # Lightning 2.6.6 calls what jsonargparse and torch have renamed; users cannot change that
    r"(?s).*(was deprecated in v4\..* will be removed in v5|JSONARGPARSE_DEPRECATION_WARNINGS)",
    r".*isinstance\(treespec, LeafSpec\)",
    ".*does not have many workers",  # their number is chosen from the machine's cores, or by hand
    ".*The number of training batches",  # an epoch of a small set may be shorter than log_every_n_steps
    ".*Checkpoint directory .* exists and is not empty",  # --resume means it
    ".*checkpoint that ended before the epoch ended",  # the sampler goes on where it was
)
"""Patterns of warnings that are not shown."""


def run(verb: str, args: Sequence[str]) -> object:
    """Runs fit, validate, test, or train (fit, then the test of the best checkpoint) with typed options."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # device lists and tips hide the lines that matter
    line = CommandLine.read(args)
    lightning_verb = "fit" if verb == "train" else verb
    run_name = line.run_name(lightning_verb)
    if not {"-h", "--help"} & set(args):
        if verb == "train" and line.option("folds"):
            return train_folds(line)
        if verb in ("validate", "test"):
            line, source = prepare_evaluation(line)
            run_name = model_name(source)
            log.info("evaluating %s", source)
        elif folder := line.option("resume"):
            line = prepare_resume(line, folder)
        else:
            line = auto_configure(line)
    for config in line.configs:  # with --help, too: the parser reads them all the same
        if is_run_config(config) or line.option("resume"):
            require_known_classes(config, line.options("allow_class"))
    try:
        return NailsegCLI([lightning_verb, *line.arguments()], run_name, test_after_fit=verb == "train")
    except MisconfigurationException as error:  # Lightning's name for options that do not go together
        raise ConfigError(f"--trainer: {error} Correct that option, or leave it out.") from error
    finally:
        if wandb := sys.modules.get("wandb"):
            wandb.finish()


@dataclass
class RunOptions:
    """Options of a run, beside the trainer's, the task's and the data's.

    Args:
        logger: Where curves go besides metrics.csv: wandb, tensorboard, mlflow or csv, in the run folder;
            --trainer.logger false turns them off.
        name: Name of the run folder; by default that of the last config.
        runs: Folder in which run folders are created.
        resume: Run folder to continue after its last checkpoint; further options override its config.
        patience: Stop after this many validations without a better foreground IoU; null trains to the end.
        ema_decay: Decay of the averaged weights that are validated and saved; 0 turns the average off.
        auto_config: Choose run length, learning rate, crop and batch size from the data set and the machine.
    """

    logger: Literal["wandb", "tensorboard", "mlflow", "csv"] = "wandb"
    name: str | None = None
    runs: str = str(RUNS)
    resume: str | None = None
    patience: int | None = None
    ema_decay: float = 0.999
    auto_config: bool = False


class NailsegCLI(LightningCLI):
    """Lightning's command line over our task and data, with a run folder for all output.

    Args:
        args: a verb (fit, validate, test) and its options.
        run_name: name of the run folder, unless `--name` gives one.
        test_after_fit: whether `fit` ends with the test of the best checkpoint.
    """

    def __init__(self, args: list[str], run_name: str, test_after_fit: bool = False) -> None:
        self.run_name, self.test_after_fit = run_name, test_after_fit
        with warnings.catch_warnings(), contextlib.ExitStack() as self.held:
            for message in HARMLESS:
                warnings.filterwarnings("ignore", message)
            super().__init__(
                SegmentationTask,
                SegmentationDataModule,
                args=args,
                parser_kwargs={"prog": "nailseg", "exit_on_error": False, "allow_abbrev": False},
                save_config_callback=None,
                auto_configure_optimizers=False,  # the task brings its own
                seed_everything_default=0,
                trainer_defaults={
                    "max_epochs": 50,
                    "gradient_clip_val": 5.0,  # the tutorial's
                    "log_every_n_steps": 10,
                    "enable_model_summary": False,  # `before_fit` logs one line
                    "use_distributed_sampler": False,  # the data module assigns rows to ranks itself
                },
            )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The verbs that Lightning runs; `nailseg predict` is another command."""
        return {verb: skip for verb, skip in LightningCLI.subcommands().items() if verb != "predict"}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run's options and states which facts of the data reach the model."""
        parser.add_class_arguments(RunOptions, instantiate=False)
        sending = "Send the validation images to W&B too. Photographs leave this machine then."
        parser.add_argument("--log_images", action="store_true", help=sending)
        trusting = "A class that a run's own config may name besides those of nailseg, lightning and torch."
        parser.add_argument("--allow_class", "--allow-class", type=str | None, help=trusting)
        if self.test_after_fit:
            folds = "Cross-validate with this many folds, each tested on its own part of the rows."
            parser.add_argument("--folds", type=int | None, help=folds)
        parser.link_arguments("data.classes", "model.class_names")
        sizes = ("data.size", "data.eval_size")
        parser.link_arguments(sizes, "model.image_size", compute_fn=lambda size, eval_size: eval_size or size)
        parser.link_arguments("data.resize", "model.resize")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parses the options; UsageError with one line, and the nearest valid name of an unknown option."""
        for verb in ("validate", "test"):
            self._parser(verb).set_defaults(verbose=False)  # our table replaces Lightning's
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            verb = "train" if self.test_after_fit else args[0]
            raise UsageError(explain_error(verb, str(error), self._parser(args[0]))) from None
        check_limits(self.config[args[0]])  # here, because the seed is used next

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning's would let the options in a checkpoint override those that were typed."""

    def before_instantiate_classes(self) -> None:
        """Refuses options that contradict each other or mean nothing: ConfigError with the option's name."""
        self.options = options = self.config[self.subcommand]
        fits = self.subcommand == "fit"
        if options.name and Path(options.name).name != options.name:
            raise ConfigError(f"--name: expected a name without folders, found {options.name!r}.")
        if options.get("folds") is not None:  # `run` takes it from the command line
            raise ConfigError("folds: expected as an option, --folds K; found in a config. Remove it there.")
        if options.resume and not (fits and options.ckpt_path):  # `run` takes it from there, too
            where = "a config" if fits else self.subcommand
            raise ConfigError(
                f"resume: expected as an option of a training, found in {where}. Remove it there."
            )
        if not 0 <= options.ema_decay < 1:
            raise ConfigError(f"--ema_decay: expected a number from 0 to below 1, found {options.ema_decay}.")
        if fits and options.ckpt_path and not options.resume:  # that of a run that is resumed was read
            require_resumable(options.ckpt_path)
        if fits and find_exported_file(options.model.weights):
            raise ConfigError(
                f"--model.weights {options.model.weights}: expected weights that can be trained, found an "
                f"exported model. Give the model folder or checkpoint that it was made from."
            )
        if fits and options.trainer.enable_checkpointing is False:
            raise ConfigError(
                "--trainer.enable_checkpointing false: the model folder is made from the best checkpoint. "
                "Leave the option out, or train from Python and call task.save(folder)."
            )

    def instantiate_trainer(self) -> Trainer:
        """Creates the run folder, and removes it again if the trainer cannot be built."""
        options, rank, fits = self.options, rank_zero_only.rank or 0, self.subcommand == "fit"
        self.folder = Path(options.resume or Path(options.runs, options.name or self.run_name))
        is_new = fits and not options.resume and rank == 0  # rank 0 alone writes files
        if is_new:
            # the trainer is instantiated last: refused options leave no run folder behind
            self.folder = create_run_folder(self.folder)
        if not fits:
            require_writable(self.folder)  # for the report, at the end
        if fits and rank == 0:
            self.held.enter_context(locked(self.folder))
        try:
            return self._build_trainer(rank, fits)
        except Exception as error:
            if is_new:
                shutil.rmtree(self.folder)
            if isinstance(error, ValueError):  # Lightning's for unknown names
                text = str(error).splitlines()[0]
                raise ConfigError(f"--trainer: {text} Correct that option, or leave it out.") from error
            raise

    def _build_trainer(self, rank: int, fits: bool) -> Trainer:
        """The trainer with the callbacks, precision and loggers of every run; `rank` is the process's."""
        given = self._get(self.config_init, "trainer")
        on_gpu = torch.cuda.is_available() and given.accelerator in ("auto", "gpu", "cuda")
        logger, own, plugins = given.logger, given.callbacks or [], given.plugins or []
        if fits and (logger is None or logger is True):
            logger = create_logger(self.options.logger, self.folder, rank)
        added = [] if given.enable_progress_bar is False else [callbacks.ProgressBar()]
        added += self._fit_callbacks() if fits else []
        self.stop = StopOnSignal(self.folder / "checkpoints" / "last.ckpt")
        stopping = [self.stop] if fits else []
        return super().instantiate_trainer(
            callbacks=[*added, *(own if isinstance(own, list) else [own]), *stopping],
            plugins=[callbacks.AtomicCheckpointIO(), *(plugins if isinstance(plugins, list) else [plugins])],
            default_root_dir=str(self.folder),
            logger=logger or False,
            precision=given.precision or ("bf16-mixed" if _has_bf16(on_gpu) else "32-true"),
            sync_batchnorm=given.sync_batchnorm or on_gpu,  # torch's refuses CPU tensors
        )

    def _fit_callbacks(self) -> list[Callback]:
        """The callbacks of a training."""
        options, checkpoints = self.options, self.folder / "checkpoints"
        # before the last one's, so that last.ckpt knows of a new best
        self.best = callbacks.RunCheckpoint(checkpoints, "best", MONITOR)
        added: list[Callback] = [
            callbacks.ValidationImages(self.folder / "images", to_wandb=options.log_images),
            callbacks.MetricsTable(self.folder / "metrics.csv"),
            callbacks.ValidateLastEpoch(),
            self.best,
            callbacks.RunCheckpoint(checkpoints, "last"),
        ]
        if options.ema_decay:
            added.append(callbacks.AveragedWeights(options.ema_decay))
        if options.patience is not None:
            added.append(EarlyStopping(MONITOR, mode="max", patience=options.patience))
        return added

    def _is_new(self) -> bool:
        """Whether this process has created the run folder."""
        return self.trainer.is_global_zero and not self.options.resume

    def before_fit(self) -> None:
        """Logs what will be trained and saves the configuration."""
        network = self.model.network
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        log.info("network: %.1f M parameters, weights: %s", count, network.origin["weights"])
        content = yaml.safe_load(self._parser("fit").dump(self.options, skip_validation=True))
        with removed_if_refused(self.folder, self._is_new()):
            facts = {"data_fingerprint": self.datamodule.fingerprint(), "git_commit": find_git_commit()}
        if self.trainer.is_global_zero:
            device = str(self.trainer.strategy.root_device)
            if device.startswith("cuda"):
                device = f"{self.trainer.world_size} x {torch.cuda.get_device_name()}"
            record_start(self.folder / "provenance.json", facts | {"device": device})
        for logger in self.trainer.loggers:
            logger.log_hyperparams(content | facts)
        if self._is_new():
            # absolute paths: the run can be resumed from any folder
            for part, name in (("data", "csv"), ("data", "root"), ("model", "weights")):
                value = content[part].get(name)
                if value and Path(value).exists():
                    content[part][name] = str(Path(value).absolute())
            saved = {name: value for name, value in content.items() if name not in NOT_SAVED}
            (self.folder / "config.yaml").write_text(yaml.safe_dump(saved, sort_keys=False))

    def fit(self, model: SegmentationTask, **kwargs: Any) -> None:
        """Runs Lightning's fit; an interruption logs how to continue."""
        try:
            with removed_if_refused(self.folder, self._is_new()):
                self._continue(model, **kwargs)
        except SystemExit:
            alone = self.trainer.is_global_zero and not os.environ.get(FOLD_VARIABLE)
            if alone and (self.folder / "checkpoints" / "last.ckpt").exists():
                verb = "train" if self.test_after_fit else "fit"
                log.info("interrupted; to continue: nailseg %s --resume %s", verb, self.folder)
            raise

    def _continue(self, model: SegmentationTask, **kwargs: Any) -> None:
        """Fits; errors of Lightning while it restores a checkpoint become one message."""
        try:
            self.trainer.fit(model, **kwargs)
        except Exception as error:  # a checkpoint whose parts do not fit causes many kinds
            path = self.options.ckpt_path
            if isinstance(error, NailsegError) or self.stop.has_begun or not path:
                raise
            reason = (str(error).splitlines() or [repr(error)])[0]
            raise WeightsError(
                f"{path}: expected a checkpoint that this training can continue from, found that it does not "
                f"fit: {reason} For its weights alone give it as --model.weights, without --ckpt_path."
            ) from error

    def after_fit(self) -> None:
        """Loads the best weights, tests them if asked, and writes the model folder."""
        if self.trainer.fast_dev_run:
            log.info("a fast_dev_run keeps no checkpoint, so there is no model folder")
            return
        best = self.best.best_model_path
        if not best:  # --trainer.limit_val_batches 0, or --trainer.max_steps before the first validation
            best = Path(self.best.dirpath) / "last.ckpt"  # rank 0 chose the folder
            log.info("nothing was validated: using %s", best)
        model_folder.load_checkpoint_weights(self.model.network, model_folder.read_checkpoint(best), best)
        if self.best.best_model_path:
            self.trainer.validate(self.model, self.datamodule, verbose=False)
            self.model.choose_threshold()
        metrics: dict[str, Any] = {}
        if self.test_after_fit and self.datamodule.rows("test"):
            self.trainer.test(self.model, self.datamodule, verbose=False)
            metrics = self._report("test", best)
        elif self.test_after_fit:
            log.info("no row of the CSV has the split 'test': the model is not tested")
        if self.trainer.is_global_zero:
            target = self.folder / "model"
            if target.exists():  # of the run before it was resumed
                older = model_folder.unique_path(self.folder / "model-old")
                target.rename(older)
                log.info("the previous model is now %s", older)
            try:
                self.model.save(target, metrics=metrics)
            except WriteError as error:
                kept = f"The training is kept in {target.with_name('checkpoints')}"
                verb = f"nailseg fit --resume {self.folder}"
                raise WriteError(f"{error} {kept}; to write its model: {verb}") from error
            log.info("model folder: %s", target)

    def before_validate(self) -> None:
        """Refuses to evaluate a classifier with random weights."""
        model_folder.require_trained(self.model.network, self.options.model.weights)

    def after_validate(self) -> None:
        """Writes the report of the split that was evaluated."""
        self._report("test" if self.subcommand == "test" else "val", self.options.model.weights)

    before_test, after_test = before_validate, after_validate

    def _report(self, split: str, source: str | Path) -> dict[str, Any]:
        """Writes the report on rank 0, and returns the content of metrics.json."""
        task = self.model
        if not self.trainer.is_global_zero:
            return task.summary
        target = model_folder.unique_path(self.folder / split)
        segmenter = Segmenter(create_backend(task.network, task.info(), task.device))
        metrics, table = report.write_report(
            target, task.image_counts, segmenter, self.datamodule, split, source, task.surface_tolerance
        )
        log.info("%s\nreport: %s", report.summary_table(metrics), target / "report.html")
        dataset, images = self.datamodule.dataset(split), self.options.log_images
        report_to_wandb(self.trainer.loggers, segmenter, dataset, metrics, table, split, images)
        return metrics


def _has_bf16(on_gpu: bool) -> bool:
    """Whether the device computes in bfloat16 itself; emulation would be slower than float32."""
    if on_gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(name in flags.read_text() for name in ("avx512_bf16", "amx_bf16"))
