"""The folder of a run, runs/NAME: a free name, the same on every rank, and its W&B logger."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nailseg.checkpoints import model_folder

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

log = logging.getLogger("nailseg")

RUNS = Path("runs")
RUN_FOLDER_VARIABLE = "NAILSEG_RUN_FOLDER"
"""Environment variable with the run folder that rank 0 chose."""
FOLD_VARIABLE = "NAILSEG_FOLD"
"""Environment variable set in the processes of `--folds`, which says itself how to continue."""


def choose_folder(name: str, rank: int, parent: str | Path = RUNS) -> Path:
    """The folder of a new run: rank 0 makes runs/NAME, or NAME-2 … if that exists; the other ranks follow.

    Processes that rank 0 starts read its choice from the environment. Those started beside it (torchrun,
    SLURM) only need a path to begin with, because rank 0 alone writes files.
    """
    if rank != 0:
        return Path(os.environ.get(RUN_FOLDER_VARIABLE, Path(parent) / name))
    Path(parent).mkdir(parents=True, exist_ok=True)
    while True:
        folder = model_folder.unique_path(Path(parent) / name)
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another run took the name in this very moment
        os.environ[RUN_FOLDER_VARIABLE] = str(folder)
        return folder


def wandb_loggers(folder: Path, rank: int) -> list[Logger]:
    """W&B: online with a key, else offline; none with WANDB_MODE=disabled or without the package.

    Its files and the run's stable id are in the run folder, so that a resumed run continues the same curve.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return []
    try:
        wandb = import_module("wandb")
    except ImportError:
        log.info("W&B is not installed: curves go to %s only", folder / "metrics.csv")
        return []
    from lightning.pytorch.loggers import WandbLogger

    offline = mode in ("offline", "dryrun") or (mode is None and not _has_wandb_key())
    if offline and rank == 0:
        log.info(
            "W&B runs offline (no key found or WANDB_MODE=offline); `wandb sync` uploads %s/wandb", folder
        )
    id_file = folder / "wandb" / "run-id.txt"
    if rank == 0 and not id_file.exists():
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(secrets.token_hex(4))
    run_id = id_file.read_text() if id_file.exists() else None
    return [
        WandbLogger(
            project=os.environ.get("WANDB_PROJECT", "nailseg"),
            name=folder.name,
            id=run_id,
            save_dir=folder,
            offline=offline,
            resume="allow",
            settings=wandb.Settings(quiet=True),  # its table repeats what we print
        )
    ]


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
        return netrc.netrc().authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
