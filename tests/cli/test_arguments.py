import pytest

from nailseg.cli import arguments
from nailseg.errors import ConfigError, WeightsError
from nailseg.model_info import locate


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(arguments.RUN_FOLDER_VARIABLE, raising=False)
    return tmp_path


def test_configs_are_found_here_then_in_configs_then_shipped(tmp_path) -> None:
    shipped = arguments.find_config("b4.yaml")
    assert shipped.parent.name == "configs"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "b4.yaml").touch()
    assert arguments.find_config("b4.yaml").resolve() == tmp_path / "configs" / "b4.yaml"
    (tmp_path / "b4.yaml").touch()
    assert arguments.find_config("b4.yaml").resolve() == tmp_path / "b4.yaml"


def test_unknown_config_lists_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"no config 'b9.yaml'.*b4\.yaml"):
        arguments.find_config("b9.yaml")


def test_config_names_become_paths_in_both_spellings() -> None:
    args = arguments.with_config_paths(["--config", "b4.yaml", "--config=b0.yaml", "--x", "b1.yaml"])
    assert args[1].endswith("configs/b4.yaml")
    assert args[2].endswith("configs/b0.yaml")
    assert args[3:] == ["--x", "b1.yaml"]


def test_option_takes_the_last() -> None:
    args = ["--a", "1", "--b=2", "--a=3"]
    assert arguments.option(args, "--a") == "3"
    assert arguments.option(args, "--c") is None
    assert arguments.without_option(args, "--a") == ["--b=2"]


def test_run_folders_count_up_and_other_ranks_follow() -> None:
    first, second = arguments.choose_folder("x", rank=0), arguments.choose_folder("x", rank=0)
    assert (first.name, second.name) == ("x", "x-2")
    assert arguments.choose_folder("x", rank=1) == second


def test_resume_needs_a_run_with_a_checkpoint(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"--resume runs/x: expected runs/x/config\.yaml, found none"):
        arguments.resume_arguments([], "runs/x")
    folder = tmp_path / "runs" / "x"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"last\.ckpt"):
        arguments.resume_arguments([], str(folder))
    (folder / "checkpoints" / "last.ckpt").touch()
    args = arguments.resume_arguments(["--resume", str(folder), "--trainer.max_epochs=3"], str(folder))
    last = folder / "checkpoints" / "last.ckpt"
    assert args == [
        f"--config={folder / 'config.yaml'}",
        "--trainer.max_epochs=3",
        f"--model.weights={last}",
        f"--ckpt_path={last}",
    ]


def test_evaluation_needs_something_trained() -> None:
    with pytest.raises(ConfigError, match="nothing to evaluate: give --model"):
        arguments.evaluation_arguments(["--data.csv", "x.csv"])


def test_wandb_is_offline_without_a_key_and_off_when_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert arguments.wandb_loggers(tmp_path, rank=0) == []
    monkeypatch.delenv("WANDB_MODE")
    (logger,) = arguments.wandb_loggers(tmp_path, rank=0)
    assert logger._offline
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    (again,) = arguments.wandb_loggers(tmp_path, rank=0)
    assert not again._offline
    assert again._id == logger._id, "a resumed run continues the same curve"


def test_a_run_that_was_broken_off_says_what_there_is(tmp_path) -> None:
    checkpoint = tmp_path / "runs" / "x" / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    with pytest.raises(
        WeightsError, match=r"an interrupted one\. Give .*best\.ckpt, or continue the training"
    ):
        locate(tmp_path / "runs" / "x")
    assert locate(checkpoint) == str(checkpoint)
