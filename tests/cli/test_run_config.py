"""A run folder of other people runs no code, and its checkpoint overrides nothing that was typed."""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.cli.run_config import require_known_classes
from nailseg.errors import ConfigError
from tests.cli.test_lightning import elsewhere, options, run  # noqa: F401  (fixtures)

MODULE = """
from pathlib import Path
from lightning.pytorch.callbacks import Callback
Path(__file__).with_name("imported").touch()
class Own(Callback):
    pass
"""
LIGHTNING = "lightning.pytorch.callbacks."
REFUSED = [
    {"callbacks": [{"class_path": "evilmod.Own"}]},
    {"callbacks": {"class_path": "evilmod.Own"}},
    {"callbacks": "evilmod.Own"},
    {"logger": [{"class_path": "evilmod.Own"}]},
    {"strategy": "evilmod.Own"},
    {"callbacks": [{"class_path": f"{LIGHTNING}LambdaCallback", "init_args": {"setup": "subprocess.call"}}]},
    {"callbacks": [{"class_path": "LambdaCallback", "init_args": {"setup": "subprocess.call"}}]},
    {"callbacks": [{"class_path": f"{LIGHTNING}LambdaCallback", "init_args": {"setup": "no_dots"}}]},
    {"callbacks": [{"class_path": "torch.hub.load"}]},
    {"callbacks": [{"class_path": "torch.nn.Linear", "init_args": {"in_features": 3}}]},
    {
        "callbacks": [
            {"class_path": f"{LIGHTNING}Timer", "init_args": {"duration": {"class_path": "os.popen"}}}
        ]
    },
]
HIDDEN = [
    "trainer: t.yaml",
    "trainer: sub/t.yaml",
    "trainer: {callbacks: sub/t.yaml}",
    "trainer: {callbacks: [t.yaml]}",
    "trainer: {callbacks: [plain]}",
    "trainer: '{callbacks: [{class_path: evilmod.Own}]}'",
    "trainer: {callbacks: '[{class_path: evilmod.Own}]'}",
    "trainer: {callbacks: '{class_path: evilmod.Own}'}",
    "trainer: {callbacks: \"['{class_path: evilmod.Own}']\"}",
    "trainer.callbacks: [{class_path: evilmod.Own}]",
    "trainer: {callbacks: [{class_path: ' evilmod.Own'}]}",
    "fit: {trainer: {callbacks: [{class_path: evilmod.Own}]}}",
    "trainer.callbacks: [plain]",
    "trainer: {callbacks+: [{class_path: evilmod.Own}]}",
    "model: m.yaml",
    "config: t.yaml",
]
"""Ways in which jsonargparse would find the class all the same: other files, and YAML within texts."""
TAKEN = [
    {"callbacks": [{"class_path": f"{LIGHTNING}LearningRateMonitor"}]},
    {"callbacks": [{"class_path": "LearningRateMonitor"}]},
    {"callbacks": [{"class_path": f"{LIGHTNING}Timer", "init_args": {"duration": "00:12:00:00"}}]},
    {"logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "a.b/c"}}},
    {"strategy": {"class_path": "lightning.pytorch.strategies.DDPStrategy"}},
]


@pytest.fixture
def foreign(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A copy of a run, as it would come from somebody else, beside a module that a config could name."""
    (tmp_path / "evilmod.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evilmod", raising=False)
    return Path(shutil.copytree(run, tmp_path / "runs" / "foreign"))


def add_to_trainer(run_folder: Path, change: dict) -> Path:
    config = run_folder / "config.yaml"
    content = yaml.safe_load(config.read_text())
    content["trainer"] |= change
    config.write_text(yaml.safe_dump(content))
    return config


@pytest.mark.parametrize("change", REFUSED)
def test_classes_that_are_refused(foreign: Path, change: dict) -> None:
    with pytest.raises(ConfigError, match=r"expected classes of nailseg, lightning, torch.*--allow-class"):
        require_known_classes(add_to_trainer(foreign, change))
    assert not Path("imported").exists()


@pytest.mark.parametrize("change", TAKEN)
def test_classes_that_are_taken(foreign: Path, change: dict) -> None:
    require_known_classes(add_to_trainer(foreign, change))


@pytest.mark.parametrize("text", HIDDEN)
def test_hidden_names_are_refused(foreign: Path, text: str) -> None:
    (foreign / "sub").mkdir()
    for name in ("t.yaml", "sub/t.yaml", "plain"):
        (foreign / name).write_text("class_path: evilmod.Own\n")
    (foreign / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"expected (options alone|classes of nailseg)"):
        require_known_classes(foreign / "config.yaml")


@pytest.mark.parametrize("verb", ["resume", "train", "fit", "test", "validate"])
def test_every_command_that_reads_a_runs_config(foreign: Path, verb: str, capsys) -> None:
    config = add_to_trainer(foreign, REFUSED[0])
    args = ["train", f"--resume={foreign}"] if verb == "resume" else [verb, f"--config={config}"]
    assert main(args) == 1
    assert "--allow-class evilmod.Own" in capsys.readouterr().err
    assert not Path("imported").exists()


def test_help_reads_no_foreign_class(foreign: Path, capsys) -> None:
    config = add_to_trainer(foreign, REFUSED[0])
    assert main(["fit", f"--config={config}", "--help"]) == 1
    assert not Path("imported").exists()


def test_a_class_is_let_in_by_name(foreign: Path) -> None:
    config = add_to_trainer(foreign, REFUSED[0])
    assert main(["test", f"--config={config}", "--allow-class", "evilmod.Own"]) == 0
    assert Path("imported").exists()


def test_a_config_outside_of_runs_may_name_any_class(foreign: Path) -> None:
    config = add_to_trainer(foreign, REFUSED[0])
    own = Path(shutil.copy(config, "own.yaml"))
    assert main(["fit", f"--config={own}", "--trainer.fast_dev_run=true"]) == 0
    assert Path("imported").exists()


def test_what_was_typed_beats_what_a_checkpoint_says(foreign: Path) -> None:
    last = foreign / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["hyper_parameters"] = {"lr": 0.25, "weights": "evil/hub-model", "_instantiator": "evilmod.Own"}
    torch.save(content, last)
    assert main(["fit", f"--resume={foreign}", "--trainer.max_epochs=4", "--model.lr=0.001"]) == 0
    rates = pd.read_csv(foreign / "metrics.csv")["lr"]
    assert rates.iloc[2] == pytest.approx(0.001 / 4), "the decay's last quarter, of what was typed"
    assert not Path("imported").exists()


def test_a_damaged_last_checkpoint_falls_back_to_the_newest_that_loads(foreign: Path, capsys) -> None:
    last = foreign / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    assert main(["fit", f"--resume={foreign}", "--trainer.max_epochs=3"]) == 0
    error = capsys.readouterr().err
    assert "last.ckpt: expected a file with tensors" in error
    assert "best.ckpt instead" in error
    assert model_folder.read_checkpoint(last)["epoch"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer_states": None}, "it does not fit"),
        ({"optimizer_states": "gone"}, "it does not fit"),
        ({"callbacks": 3}, "it does not fit"),
        ({"lr_schedulers": [5]}, "it does not fit"),
        ({"state_dict": {}}, "it does not fit"),
        ({"loops": {"fit_loop": 3}}, "it does not fit"),
        ({"nailseg": 5}, "last.ckpt"),
        ({"nailseg": {"info": {"image_size": -5}, "config": {}}}, "last.ckpt"),
        (None, "found none of optimizer_states"),
    ],
)
def test_a_checkpoint_that_cannot_be_continued(
    foreign: Path, drawn, tiny_folder, change: dict | None, message: str, capsys
) -> None:
    last = foreign / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    if change is None:
        content = {name: content[name] for name in ("nailseg", "state_dict")}
    torch.save(content | (change or {}), last)
    capsys.readouterr()
    assert main(["fit", *options(drawn, tiny_folder), f"--ckpt_path={last}", "--trainer.max_epochs=3"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert message in error.splitlines()[-1], error
    assert not (Path("runs") / "fit").exists()


HOLD = """
import sys, time
from pathlib import Path
from nailseg.training.run_dir import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_cannot_train_one_run(foreign: Path, capsys) -> None:
    (foreign / "checkpoints" / ".abc.part").touch()
    args = ["fit", f"--resume={foreign}", "--trainer.max_epochs=3"]
    with subprocess.Popen([sys.executable, "-c", HOLD, foreign], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        assert main(args) == 1
        assert f"process {other.pid} on {socket.gethostname()} does" in capsys.readouterr().err
        other.kill()
    assert (foreign / ".lock").exists(), "as a killed process leaves it"
    (foreign / "checkpoints" / ".abc.part").touch()
    assert main(args) == 0, "the lock of a process that has ended is free"
    assert not (foreign / ".lock").exists()
    assert not (foreign / "checkpoints" / ".abc.part").exists(), "what a killed process left is removed"


@pytest.mark.parametrize("content", ["", "[]", '{"pid": -1}', "\0"])
def test_the_content_of_a_lock_does_not_matter(foreign: Path, content: str, capsys) -> None:
    (foreign / ".lock").write_text(content)
    assert main(["fit", f"--resume={foreign}", "--trainer.max_epochs=3"]) == 0


def test_one_of_many_processes_gets_a_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, tmp_path]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(4)]
    try:
        ended = [other for other in others if _ends(other)]
        assert len(ended) == 3
    finally:
        for other in others:
            other.kill()
            other.communicate()


def _ends(process: subprocess.Popen) -> bool:
    """Whether it ends without the lock; the one that has it says so and sleeps."""
    return process.stdout.readline() == b""


def test_killed_processes_leave_a_run_that_is_continued(drawn, tiny_folder, tmp_path: Path) -> None:
    args = [sys.executable, "-m", "nailseg", "fit", *options(drawn, tiny_folder)]
    args += ["--name=killed", "--trainer.max_epochs=200"]
    last = tmp_path / "runs" / "killed" / "checkpoints" / "last.ckpt"
    with subprocess.Popen(
        args, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as child:
        for _ in range(600):
            if last.exists() or child.poll() is not None:
                break
            time.sleep(0.1)
        child.kill()
    epoch = model_folder.read_checkpoint(last)["epoch"]
    assert main(["fit", f"--resume={last.parent.parent}", f"--trainer.max_epochs={epoch + 2}"]) == 0


@pytest.mark.slow
@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs a second file system, /dev/shm")
def test_twenty_kills_on_two_file_systems(drawn, tiny_folder, tmp_path: Path) -> None:
    """Killed while it writes checkpoints, each run goes on; Lightning's own way left empty files."""
    runs = Path(tempfile.mkdtemp(dir="/dev/shm"))  # TMPDIR is on another file system
    last, moment = runs / "killed" / "checkpoints" / "last.ckpt", random.Random(0)
    start = [sys.executable, "-m", "nailseg", "fit"]
    long = ["--trainer.max_epochs=100000", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    new = [*start, *options(drawn, tiny_folder), f"--runs={runs}", "--name=killed", *long]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    steps = 0
    try:
        for _ in range(21):
            command = [*start, f"--resume={last.parent.parent}"] if steps else new
            before = last.stat().st_mtime_ns if steps else 0
            with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as child:
                end = time.monotonic() + 60
                while not last.exists() or last.stat().st_mtime_ns == before:
                    assert child.poll() is None, "it did not go on"
                    assert time.monotonic() < end
                    time.sleep(0.01)
                time.sleep(moment.random())
                child.kill()
            reached = model_folder.read_checkpoint(last)["global_step"]
            assert reached > steps
            steps = reached
        assert len(list(runs.rglob("*.part"))) <= 1, "what earlier kills left was removed"
    finally:
        shutil.rmtree(runs)
