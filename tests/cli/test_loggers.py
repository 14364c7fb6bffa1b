"""Loggers write into the run folder; packages that are not installed meet one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nailseg.cli.main import main
from nailseg.training import run_dir
from nailseg.training.run_dir import LOGGERS, create_logger, create_wandb_logger, find_git_commit


@pytest.fixture
def args(drawn: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    own = [
        "--data.csv",
        str(drawn / "dataset.csv"),
        "--data.size",
        "64",
        "--data.workers",
        "0",
        "--name",
        "a",
    ]
    return ["fit", *own, "--model.weights", str(tiny_folder), "--trainer.max_epochs", "1"]


@pytest.mark.parametrize(
    "option",
    [
        ["--logger", "csv"],
        ["--trainer.logger", "CSVLogger"],
        ["--trainer.logger=lightning.pytorch.loggers.CSVLogger"],
    ],
)
def test_csv_logger_writes_into_the_run_folder(args: list[str], option: list[str], tmp_path: Path) -> None:
    assert main([*args, *option]) == 0
    (table,) = tmp_path.glob("runs/a/csv/metrics.csv")
    header = table.read_text().splitlines()[0].split(",")
    assert "train/loss" in header
    assert "loss" not in header, "the same as train/loss"
    settings = (tmp_path / "runs/a/csv/hparams.yaml").read_text()
    assert "data_fingerprint: " in settings
    assert "git_commit: " in settings
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_logger_without_its_package_meets_one_line(args, kind: str, monkeypatch, capsys) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named {kind!r}")

    monkeypatch.setattr(run_dir, LOGGERS[kind], missing)
    assert main([*args, "--logger", kind]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nailseg:")]
    assert f"--logger {kind}: its package is not installed" in line
    assert line.endswith(f"Run: pip install 'nailseg[{kind}]'")
    assert not Path("runs/a").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [("--optimizer=Adam", "AdamW: --model.lr"), ("--optimizer.lr=1", "--model.weight_decay"),
     ("--lr_scheduler=StepLR", "--model.schedule poly or step")],
)  # fmt: skip
def test_options_of_lightnings_command_line_name_ours(args, option: str, words: str, capsys) -> None:
    assert main([*args, option]) == 2
    assert words in capsys.readouterr().err


def test_wandb_gets_no_deprecated_setting(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = create_wandb_logger(tmp_path, 0)
    assert "anonymous" not in logger._wandb_init


def test_the_commit_of_a_repository(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert find_git_commit() is None
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"],
    ):
        subprocess.run(["git", *command], check=True)
    assert len(find_git_commit()) == 40


def test_the_main_job_needs_no_optional_package(drawn: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """In a process of its own: index, check, fit and predict without wandb, datasets and pycocotools."""
    code = f"""
import sys
for name in ("wandb", "datasets", "pycocotools", "tensorboard", "mlflow", "onnx", "onnxruntime", "openvino"):
    sys.modules[name] = None
from nailseg.cli.main import main
own = ["--data.csv", {str(drawn / "dataset.csv")!r}, "--data.size=64", "--data.workers=0", "--name=a"]
own += ["--model.weights", {str(tiny_folder)!r}, "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
assert main(["index", {str(drawn)!r}, "--out", "new.csv"]) == 0
assert main(["check", {str(drawn / "dataset.csv")!r}]) == 0
assert main(["fit", *own]) == 0
assert main(["predict", {str(drawn / "Images")!r}, "--model=runs/a", "--out=m", "--csv", "--polygons"]) == 0
assert main(["import", "hub", "a/b", "out"]) == 1
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "W&B is off: its package cannot be imported" in done.stderr
    assert "Run: pip install datasets" in done.stderr


def test_training_as_a_module_from_any_folder(drawn: Path, tiny_folder: Path, tmp_path: Path) -> None:
    own = ["--config=b0.yaml", f"--data.csv={drawn / 'dataset.csv'}", "--data.size=64", "--data.workers=0"]
    own += [f"--model.weights={tiny_folder}", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    command = [sys.executable, "-m", "nailseg.train", *own, "--trainer.logger=false"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs/b0/model/nailseg.json").is_file()


def test_csv_logger_in_python_still_works(tmp_path: Path) -> None:
    assert create_logger("csv", tmp_path, 0).log_dir == str(tmp_path / "csv")
