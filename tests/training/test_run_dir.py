import json
import sys
from pathlib import Path

import pytest

from nailseg.training import run_dir


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_run_folders_count_up() -> None:
    folders = [run_dir.create_run_folder(Path("runs", "x")) for _ in range(2)]
    assert folders == [Path("runs", "x"), Path("runs", "x-2")]
    assert all(folder.is_dir() for folder in folders)


def test_training_goes_on_without_the_package_wandb(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run_dir.create_wandb_logger(tmp_path, rank=0) is None
    assert "W&B is off: its package cannot be imported" in caplog.text


def test_wandb_is_offline_without_a_key_and_off_when_disabled(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert run_dir.create_wandb_logger(tmp_path, rank=0) is None
    monkeypatch.delenv("WANDB_MODE")
    logger = run_dir.create_wandb_logger(tmp_path, rank=0)
    assert logger._offline
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    again = run_dir.create_wandb_logger(tmp_path, rank=0)
    assert not again._offline
    assert again._id == logger._id, "a resumed run continues the same curve"


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", "x", "[[]]"])
def test_a_damaged_provenance_is_kept_under_another_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "provenance.json"
    path.write_text(content)
    for _ in range(2):
        run_dir.record_start(path, {"device": "cpu"})
    assert [start["device"] for start in json.loads(path.read_text())] == ["cpu", "cpu"]
    assert (tmp_path / "provenance-damaged.json").read_text() == content
