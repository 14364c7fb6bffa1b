"""The folder of a run, runs/NAME: a free name, and its W&B logger."""

import contextlib
import errno
import json
import logging
import netrc
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from nailseg.checkpoints import model_folder
from nailseg.errors import ConfigError, NailsegError, WeightsError, process_message
from nailseg.files import write_atomically
from nailseg.schema import validate

log = logging.getLogger("nailseg")


def create_run_folder(folder: Path) -> Path:
    """Creates the folder of a new run, with a number behind its name if that exists already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        free = model_folder.unique_path(folder)
        with contextlib.suppress(FileExistsError):  # another run took the name in this very moment
            free.mkdir()
            log.info("run folder: %s", free)
            return free


@contextlib.contextmanager
def removed_if_refused(folder: Path, is_new: bool) -> Iterator[None]:
    """Removes a new run folder where input is refused before the first epoch; later, its curves are kept."""
    try:
        yield
    except Exception as error:
        refused = isinstance(error, NailsegError) or process_message(error)  # in a worker process
        if (
            refused
            and is_new
            and not (folder / "checkpoints").exists()
            and not (folder / "metrics.csv").exists()
        ):
            shutil.rmtree(folder)
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run for this process, so that no second one writes its checkpoints; removes leftovers first.

    The operating system locks the file .lock, and unlocks it when the process ends, however it ends. The
    file has the process's number and machine, for the message.

    Raises:
        ConfigError: another process holds it.
    """
    lock = folder / ".lock"
    while True:
        file = open(lock, "a+", encoding="utf-8")  # noqa: SIM115 - open as long as it is locked
        if not _try_lock(file):
            file.close()
            raise ConfigError(
                f"{folder}: expected a run that no other process trains, found that {_read_holder(lock)} "
                f"does. Wait for its end, or end it; another --name trains beside it."
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(lock), os.fstat(file.fileno())):
                break
        file.close()  # its holder has ended, and removed it after it was opened here
    try:
        file.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
        file.flush()
        for partial in (*folder.glob(".*.part"), *folder.glob("checkpoints/.*.part")):
            partial.unlink(missing_ok=True)  # of a process that was killed while it wrote
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps a file that is open, or the folder was removed
            lock.unlink()
        file.close()


def _try_lock(file: TextIO) -> bool:
    """Locks an open file for this process alone (not for its children); False if another one holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 20)  # behind the content: what is locked there cannot be read by others
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        log.warning("%s: its file system has no locks (%s); train it once at a time", file.name, error)
    return True


def _read_holder(lock: Path) -> str:
    """The process that holds a lock, in words; one that is being written names none."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(lock.read_text(encoding="utf-8"))
        return f"process {content['pid']} on {content['host']}"
    return "another one"


LOGGERS = {
    "wandb": "WandbLogger",
    "tensorboard": "TensorBoardLogger",
    "mlflow": "MLFlowLogger",
    "csv": "CSVLogger",
}
"""What `--logger` takes, and Lightning's class for each."""


def create_logger(kind: str, folder: Path, rank: int) -> Logger | None:
    """Creates a logger that writes into the run folder; MLflow's to MLFLOW_TRACKING_URI if that is set.

    Raises:
        ConfigError: its package is not installed.
    """
    if kind == "wandb":
        return create_wandb_logger(folder, rank)
    try:
        if kind == "tensorboard":
            return TensorBoardLogger(folder, name="", version="tensorboard")
        if kind == "mlflow":
            uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.absolute() / 'mlflow.db'}")
            return MLFlowLogger("nailseg", run_name=folder.name, tracking_uri=uri)
    except ModuleNotFoundError as error:
        missing = f"--logger {kind}: its package is not installed ({str(error).splitlines()[0]})."
        raise ConfigError(f"{missing} Run: pip install 'nailseg[{kind}]'") from error
    return CSVLogger(folder, name="", version="csv")


def create_wandb_logger(folder: Path, rank: int) -> WandbLogger | None:
    """Creates the W&B logger: online with a key, else offline; None if disabled or not installed.

    Its files and the run's stable id are in the run folder, so that a resumed run continues the same curve.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return None
    try:
        import wandb
    except ImportError as error:
        if rank == 0:
            log.warning("W&B is off: its package cannot be imported (%s). Run: pip install wandb", error)
        return None
    offline = mode in ("offline", "dryrun") or (mode is None and not _has_wandb_key())
    if offline and rank == 0:
        log.info("W&B runs offline (no key, or WANDB_MODE=offline); `wandb sync` uploads %s/wandb", folder)
    id_file = folder / "wandb" / "run-id.txt"
    if rank == 0 and not id_file.exists():
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(secrets.token_hex(4), encoding="utf-8")
    run_id = id_file.read_text(encoding="utf-8") if id_file.exists() else None
    project = os.environ.get("WANDB_PROJECT", "nailseg")
    settings = wandb.Settings(quiet=True)  # its table repeats what we print
    logger = WandbLogger(
        folder.name, folder, offline=offline, id=run_id, project=project, resume="allow", settings=settings
    )
    logger._wandb_init.pop(
        "anonymous", None
    )  # Lightning passes it always, and W&B warns that it has no effect
    return logger


def find_git_commit() -> str | None:
    """The commit of the current folder's git repository, None without one."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def record_start(path: Path, facts: dict[str, Any]) -> None:
    """Adds a start of the run to its provenance.json: when, where, with what; a resumed run has several.

    Args:
        path: The file, a JSON list; one that is no such list is kept under another name.
        facts: What the caller knows: device, git commit, fingerprint of the data.
    """
    packages = ("nailseg", "torch", "lightning", "transformers")
    start = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }
    starts = []
    with contextlib.suppress(FileNotFoundError):
        try:
            starts = validate(list[dict[str, Any]], json.loads(path.read_text(encoding="utf-8")), path)
        except (ValueError, WeightsError):
            path.rename(model_folder.unique_path(path.with_name("provenance-damaged.json")))
    content = json.dumps([*starts, start | facts], indent=2, ensure_ascii=False)
    write_atomically(path, f"{content}\n".encode())


def _has_wandb_key() -> bool:
    """Whether W&B's key is in the environment or in ~/.netrc."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return bool(os.environ.get("WANDB_API_KEY") or netrc.netrc().authenticators(host))
    except (OSError, netrc.NetrcParseError):
        return False
