"""Failures while a training runs: files that vanish, workers and processes that are killed, a full disk."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from nailseg.cli.main import main
from nailseg.errors import process_message
from nailseg.models.segformer import SegFormer
from tests.cli.test_lightning import options

MODULE = """
import os, signal
from pathlib import Path
from lightning.pytorch.callbacks import Callback

class Vanish(Callback):
    def __init__(self, folder):
        self.folder = folder
    def on_train_start(self, trainer, module):
        for file in Path(self.folder).rglob("hand_*"):
            file.unlink()

class KillWorker(Callback):
    def on_train_batch_start(self, trainer, *_):
        loader = trainer.fit_loop._data_fetcher._combined_loader._iterator.iterators[0]
        os.kill(loader._workers[0].pid, signal.SIGKILL)

class KillRank(Callback):
    def __init__(self, rank):
        self.rank = rank
    def on_train_start(self, trainer, module):
        Path(f"rank{trainer.global_rank}").write_text(str(os.getpid()))
        trainer.strategy.barrier()
        if trainer.global_rank == self.rank:
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def data(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the drawn data, in an empty folder with a module of failures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "failures", raising=False)
    (tmp_path / "failures.py").write_text(MODULE)
    return Path(shutil.copytree(drawn, tmp_path / "data"))


def only_one_message(error: str, *words: str) -> None:
    assert "Traceback" not in error, error
    last = [line for line in error.splitlines() if line.startswith("nailseg: ")]
    assert len(last) == 1
    assert all(word in last[0] for word in words), last


@pytest.mark.parametrize("workers", [0, 2])
def test_files_that_vanish_while_training(data: Path, tiny_folder: Path, workers: int, capfd) -> None:
    args = [*options(data, tiny_folder), "--data.cache=off", f"--data.workers={workers}"]
    vanish = ["--trainer.callbacks=failures.Vanish", f"--trainer.callbacks.folder={data}"]
    assert main(["fit", *args, *vanish]) == 1
    only_one_message(capfd.readouterr().err, "hand_", "expected a file, found nothing")
    assert not list(Path("runs").iterdir()), "nothing was trained"


def test_a_killed_worker(data: Path, tiny_folder: Path, capfd) -> None:
    args = [*options(data, tiny_folder), "--data.cache=off", "--data.workers=1", "--data.batch_size=1"]
    args += ["--trainer.max_epochs=20", "--trainer.callbacks=failures.KillWorker"]
    assert main(["fit", *args]) == 1
    only_one_message(capfd.readouterr().err, "a process that reads data has ended", "--data.workers")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_training_process(data: Path, tiny_folder: Path, rank: int) -> None:
    args = [sys.executable, "-m", "nailseg", "fit", *options(data, tiny_folder), "--trainer.devices=2"]
    args += ["--trainer.strategy=ddp", "--trainer.callbacks=failures.KillRank"]
    args += [f"--trainer.callbacks.rank={rank}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # to a file: a pipe would wait for the other process too
    with open("errors", "w") as errors:
        ended = subprocess.run(args, check=False, stderr=errors, timeout=120, env=environment)
    assert ended.returncode not in (0, -signal.SIGALRM)
    others = [int(Path(f"rank{number}").read_text()) for number in (0, 1)]
    limit = Path("killed").stat().st_mtime + 10
    while any(is_alive(pid) for pid in others):
        assert time.time() < limit, "all processes end within 10 s"
        time.sleep(0.05)
    error = Path("errors").read_text()
    assert "Traceback" not in error, error
    assert "another process of this training has ended" in error


def test_a_full_disk_keeps_the_checkpoint_before(data: Path, tiny_folder: Path, monkeypatch, capfd) -> None:
    args = [*options(data, tiny_folder), "--name=full"]
    assert main(["fit", *args]) == 0
    last = Path("runs/full/checkpoints/last.ckpt")
    before = last.read_bytes()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nailseg.files.os.fsync", no_space)
    capfd.readouterr()
    assert main(["fit", "--resume=runs/full", "--trainer.max_epochs=3"]) == 1
    only_one_message(capfd.readouterr().err, str(last.parent), "No space left on device", "Free some space")
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*.part"))


SMALL_FILES = """
import resource, sys
from nailseg.checkpoints.model_folder import describe_network, open_network, save_model_folder
from nailseg.errors import WriteError

network = open_network(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    save_model_folder(sys.argv[2], network, describe_network(network))
except WriteError as error:
    print(error)
"""


def test_a_model_folder_that_does_not_fit(tiny_folder: Path, tmp_path: Path) -> None:
    """Longer files cannot be written, as on a full disk; in a process of its own, whose output is short."""
    command = [sys.executable, "-c", SMALL_FILES, tiny_folder, tmp_path / "model"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert "model: expected to write the model, found: " in ended.stdout
    assert "File too large" in ended.stdout
    assert "Free some space" in ended.stdout
    assert not list(tmp_path.iterdir()), "no part of it stays"


def test_no_space_for_the_model_folder(data: Path, tiny_folder: Path, monkeypatch, capfd) -> None:
    """The training's last file does not fit; with space, --resume writes it."""

    def no_space(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as full:
        full.setattr(SegFormer, "save", no_space)
        assert main(["fit", *options(data, tiny_folder), "--name=full"]) == 1
    words = ("runs/full/model", "No space left on device", "Free some space", "--resume runs/full")
    only_one_message(capfd.readouterr().err, *words)
    assert main(["fit", "--resume=runs/full"]) == 0
    assert Path("runs/full/model/model.safetensors").exists()


def test_errors_of_the_program_keep_their_traceback() -> None:
    text = "Caught KeyError in DataLoader worker process 0.\nOriginal Traceback\nKeyError: 'a'"
    assert process_message(KeyError(text)) is None
    assert process_message(ValueError("x")) is None
