import pytest
import yaml

from nailseg import train
from nailseg.cli.arguments import CommandLine
from nailseg.cli.auto_config import auto_configure, choose_options
from nailseg.errors import ConfigError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


def configured(*args: str) -> list[str]:
    return auto_configure(CommandLine.read(args)).arguments()


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("longer", [20, 100, 432, 4000])
@pytest.mark.parametrize("images", [1, 7, 8, 20, 200, 5000])
def test_every_set_gets_options_that_the_data_module_takes(images, longer, on_gpu) -> None:
    options = choose_options(images, longer, 320, on_gpu)
    assert options["data.size"] % 32 == options["data.eval_size"] % 32 == 0
    assert 32 <= options["data.size"] <= options["data.eval_size"] <= (512 if on_gpu else 320)
    assert 1 <= options["data.batch_size"] <= images
    assert 0 < options["ema_decay"] < 1
    assert options["trainer.check_val_every_n_epoch"] <= options["trainer.max_epochs"]


def test_more_images_get_more_steps_but_fewer_epochs() -> None:
    few, many = (choose_options(images, 432, 320, False) for images in (20, 200))
    steps = [images // 8 * options["trainer.max_epochs"] for images, options in ((20, few), (200, many))]
    assert steps[0] < steps[1]
    assert few["trainer.max_epochs"] > many["trainer.max_epochs"]


def test_without_auto_config_nothing_changes(drawn) -> None:
    args = [f"--data.csv={drawn / 'dataset.csv'}"]
    assert configured(*args) == args
    assert configured(*args, "--auto_config=false") == [*args, "--auto_config=false"]


def test_yes_is_true_as_in_yaml(drawn) -> None:
    found = configured(f"--data.csv={drawn / 'dataset.csv'}", "--auto_config=yes")
    assert "--trainer.max_epochs" in " ".join(found)


def test_steps_follow_from_a_given_batch_size(drawn) -> None:
    def epochs(*given: str) -> int:
        found = configured(f"--data.csv={drawn / 'dataset.csv'}", "--auto_config=true", *given)
        return int(next(a for a in found if a.startswith("--trainer.max_epochs=")).partition("=")[2])

    assert epochs("--data.batch_size=2") < epochs()


def test_a_duplicate_row_is_left_to_the_data_module(drawn, tmp_path) -> None:
    lines = (drawn / "dataset.csv").read_text().splitlines()
    (tmp_path / "twice.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    args = ["--data.csv=twice.csv", f"--data.root={drawn}", "--data.skip_bad=true", "--auto_config=true"]
    assert len(configured(*args)) > len(args)


def test_auto_config_needs_data() -> None:
    with pytest.raises(ConfigError, match=r"expected --data\.csv"):
        configured("--auto_config=true")


def test_given_options_are_kept(drawn, tiny_folder, tmp_path, capsys) -> None:
    (tmp_path / "mine.yaml").write_text("data:\n  batch_size: 3\n")
    given = [
        "--config=finetune_small.yaml",
        "--config=mine.yaml",
        "--trainer.max_epochs=1",
        "--data.size",
        "64",
    ]
    small = [f"--data.csv={drawn / 'dataset.csv'}", f"--model.weights={tiny_folder}", "--data.workers=0"]
    assert train.main([*given, *small, "--trainer.accelerator=cpu", "--name=own"]) == 0
    saved = yaml.safe_load((tmp_path / "runs" / "own" / "config.yaml").read_text())
    assert saved["data"]["batch_size"] == 3
    assert saved["data"]["size"] == 64
    assert saved["trainer"]["max_epochs"] == 1
    logged = capsys.readouterr().err
    assert "auto-configuration for" in logged
    assert "--model.lr" in logged
    assert "batch_size" not in logged
    assert saved["model"]["lr"] == float(logged.split("--model.lr ")[1].split()[0])
