import pytest

from nailseg.training import run_dir


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(run_dir.RUN_FOLDER_VARIABLE, raising=False)


def test_run_folders_count_up_and_other_ranks_follow() -> None:
    first, second = run_dir.choose_folder("x", rank=0), run_dir.choose_folder("x", rank=0)
    assert (first.name, second.name) == ("x", "x-2")
    assert run_dir.choose_folder("x", rank=1) == second


def test_wandb_is_offline_without_a_key_and_off_when_disabled(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert run_dir.wandb_loggers(tmp_path, rank=0) == []
    monkeypatch.delenv("WANDB_MODE")
    (logger,) = run_dir.wandb_loggers(tmp_path, rank=0)
    assert logger._offline
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    (again,) = run_dir.wandb_loggers(tmp_path, rank=0)
    assert not again._offline
    assert again._id == logger._id, "a resumed run continues the same curve"
