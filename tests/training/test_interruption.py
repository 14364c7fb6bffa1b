"""Interrupted trainings: they stop within a step, and continue as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from nailseg.cli.lightning import NailsegCLI
from nailseg.cli.main import main
from nailseg.errors import WriteError
from nailseg.files import write_atomically

EPOCHS = 3


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


class Signal(Callback):
    """Sends a signal to this process at the start of a training or validation batch, once for each place."""

    def __init__(self) -> None:
        self.places: list[tuple[str, int, int]] = []  # hook, epoch, batch
        self.number = signal.SIGTERM

    def _at(self, hook: str, trainer: Trainer, batch: int) -> None:
        if (hook, trainer.current_epoch, batch) in self.places and not trainer.sanity_checking:
            self.places.remove((hook, trainer.current_epoch, batch))
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self._at("train", trainer, batch_idx)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        self._at("val", trainer, batch_idx)


SIGNAL = Signal()


def arguments(drawn: Path, tiny_folder: Path, *more: str) -> list[str]:
    return [
        f"--data.csv={drawn / 'dataset.csv'}",
        f"--model.weights={tiny_folder}",
        "--data.size=64",
        "--data.batch_size=2",  # 6 batches an epoch
        "--model.drop_path=0.3",  # random numbers of the network
        f"--trainer.max_epochs={EPOCHS}",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        "--trainer.enable_progress_bar=false",
        *more,
    ]


def send_signals(places: list, monkeypatch, number=signal.SIGTERM) -> None:
    """Adds `SIGNAL` to the callbacks of every training."""
    original = NailsegCLI._fit_callbacks
    monkeypatch.setattr(NailsegCLI, "_fit_callbacks", lambda self: [*original(self), SIGNAL])
    SIGNAL.places, SIGNAL.number = list(places), number


def train_interrupted(places: list, line: list[str], name: str, monkeypatch, number=signal.SIGTERM) -> Path:
    """Trains with a signal at each place, resumes after each, and returns the run folder."""
    send_signals(places, monkeypatch, number)
    interruptions = 0
    code = main(["fit", *line, f"--name={name}"])
    while code == 128 + number:
        interruptions += 1
        code = main(["fit", *line, f"--resume=runs/{name}"])
    assert (code, interruptions) == (0, len(places))
    return Path("runs", name)


def load(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def assert_equal(found, expected, where: str = "") -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_equal(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_equal(*pair, f"{where}/{number}")
    else:
        assert found == expected, where


@pytest.fixture(scope="module")
def whole(drawn, tiny_folder, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    here = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("WANDB_MODE", "disabled")
        assert main(["fit", *arguments(drawn, tiny_folder, "--data.workers=0"), "--name=whole"]) == 0
    return here / "runs" / "whole"


def assert_same_run(run: Path, whole: Path) -> None:
    """Weights, averages, optimizer, schedule, random state and table of two runs are equal in every bit."""
    found, expected = load(run), load(whole)
    for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert_equal(found[key], expected[key], key)
    assert_equal(found["nailseg_processes"], expected["nailseg_processes"])
    assert (found["epoch"], found["global_step"]) == (expected["epoch"], expected["global_step"])
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


EVERYWHERE = [("train", 0, 0), ("val", 0, 0), ("train", 2, 4), ("val", 2, 0)]


@pytest.mark.parametrize(
    ("places", "workers"),
    [
        ([("train", 1, 1), ("train", 1, 3)], 0),  # twice in one epoch
        ([("train", 0, 5)], 0),  # the last step of an epoch
        ([("val", 1, 1)], 0),
        (EVERYWHERE, 2),
        pytest.param(EVERYWHERE, 0, marks=pytest.mark.slow),
        pytest.param([("train", 1, 1), ("train", 1, 3)], 2, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_equals_an_uninterrupted_one(
    places, workers, whole, drawn, tiny_folder, monkeypatch
) -> None:
    line = arguments(drawn, tiny_folder, f"--data.workers={workers}")
    assert_same_run(train_interrupted(places, line, "cut", monkeypatch), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_within_a_step_and_names_the_command(
    number, drawn, tiny_folder, monkeypatch, capsys
) -> None:
    line = arguments(drawn, tiny_folder, "--data.workers=0")
    train_interrupted([("train", 1, 2)], line, "cut", monkeypatch, number)
    errors = capsys.readouterr().err
    assert f"interrupted by {number.name}" in errors
    assert "to continue: nailseg fit --resume runs/cut" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_two_processes_continue_exactly(drawn, tiny_folder) -> None:
    """Ended once or twice at any moment, and continued: as the same two processes without a pause."""
    line = arguments(drawn, tiny_folder, "--data.workers=0", "--trainer.devices=2", "--trainer.strategy=ddp")
    command = [sys.executable, "-m", "nailseg", "fit"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *line, "--name=plain"], check=True, env=environment)
    codes, chosen = [], "--name=cut"
    while not codes or codes[-1] == 143:
        process = subprocess.Popen(
            [*command, *line, chosen], env=environment, stderr=subprocess.PIPE, text=True
        )
        before = Path("runs/cut/metrics.csv").read_text() if codes else ""
        while len(codes) < 2 and process.poll() is None:
            table = Path("runs/cut/metrics.csv")
            if table.exists() and table.read_text() != before:  # an epoch has ended
                time.sleep(0.3)
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.02)
        errors = process.communicate(timeout=120)[1]
        assert "Traceback" not in errors, errors
        codes.append(process.returncode)
        chosen = "--resume=runs/cut"
    assert codes[0] == 143
    assert codes[-1] == 0
    assert_same_run(Path("runs/cut"), Path("runs/plain"))


def test_a_checkpoint_in_the_middle_is_where_the_signal_came(drawn, tiny_folder, monkeypatch) -> None:
    send_signals([("train", 1, 2)], monkeypatch)
    assert main(["fit", *arguments(drawn, tiny_folder, "--data.workers=0"), "--name=cut"]) == 143
    assert load(Path("runs/cut"))["global_step"] == 6 + 3
    assert not list(Path("runs/cut").rglob("*.part"))


def test_accumulated_gradients_are_not_lost(drawn, tiny_folder, monkeypatch) -> None:
    line = arguments(drawn, tiny_folder, "--data.workers=0", "--trainer.accumulate_grad_batches=3")
    assert main(["fit", *line, "--name=plain"]) == 0
    cut = train_interrupted([("train", 1, 0)], line, "cut", monkeypatch)
    assert_same_run(cut, Path("runs/plain"))


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WriteError, match=r"last\.ckpt: expected to write 3 bytes, found: No space left"):
        write_atomically(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert path.read_bytes() == b"old"
