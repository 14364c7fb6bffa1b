import pytest
import yaml

from nailseg import train
from nailseg.cli.auto_config import adapted_arguments, recipe
from nailseg.errors import ConfigError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("longer", [20, 100, 432, 4000])
@pytest.mark.parametrize("images", [1, 7, 8, 20, 200, 5000])
def test_every_set_gets_options_that_the_data_module_takes(images, longer, on_gpu) -> None:
    options = recipe(images, longer, 320, on_gpu)
    assert options["data.size"] % 32 == options["data.eval_size"] % 32 == 0
    assert 32 <= options["data.size"] <= options["data.eval_size"] <= (512 if on_gpu else 320)
    assert 1 <= options["data.batch_size"] <= images
    assert 0 < options["ema_decay"] < 1
    assert options["trainer.check_val_every_n_epoch"] <= options["trainer.max_epochs"]


def test_more_pictures_want_more_steps_but_fewer_looks_at_each() -> None:
    few, many = (recipe(images, 432, 320, False) for images in (20, 200))
    steps = [images // 8 * options["trainer.max_epochs"] for images, options in ((20, few), (200, many))]
    assert steps[0] < steps[1]
    assert few["trainer.max_epochs"] > many["trainer.max_epochs"]


def test_without_adapt_nothing_changes(drawn) -> None:
    args = [f"--data.csv={drawn / 'nails.csv'}"]
    assert adapted_arguments(args) == args
    assert adapted_arguments([*args, "--adapt=false"]) == [*args, "--adapt=false"]


def test_yes_is_true_as_the_parser_has_it(drawn) -> None:
    assert "--trainer.max_epochs" in " ".join(
        adapted_arguments([f"--data.csv={drawn / 'nails.csv'}", "--adapt=yes"])
    )


def test_steps_follow_from_the_batch_that_is_given(drawn) -> None:
    def epochs(*given: str) -> int:
        found = adapted_arguments([f"--data.csv={drawn / 'nails.csv'}", "--adapt=true", *given])
        return int(next(a for a in found if a.startswith("--trainer.max_epochs=")).partition("=")[2])

    assert epochs("--data.batch_size=2") < epochs()


def test_a_row_that_is_there_twice_is_the_data_modules_business(drawn, tmp_path) -> None:
    lines = (drawn / "nails.csv").read_text().splitlines()
    (tmp_path / "twice.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    args = ["--data.csv=twice.csv", f"--data.root={drawn}", "--data.skip_bad=true", "--adapt=true"]
    assert len(adapted_arguments(args)) > len(args)


def test_adapt_needs_data() -> None:
    with pytest.raises(ConfigError, match=r"expected --data\.csv"):
        adapted_arguments(["--adapt=true"])


def test_what_the_user_gives_stands(drawn, tiny_folder, tmp_path, capsys) -> None:
    (tmp_path / "mine.yaml").write_text("data:\n  batch_size: 3\n")
    given = [
        "--config=finetune_small.yaml",
        "--config=mine.yaml",
        "--trainer.max_epochs=1",
        "--data.size",
        "64",
    ]
    small = [f"--data.csv={drawn / 'nails.csv'}", f"--model.weights={tiny_folder}", "--data.workers=0"]
    assert train.main([*given, *small, "--trainer.accelerator=cpu", "--name=own"]) == 0
    saved = yaml.safe_load((tmp_path / "runs" / "own" / "config.yaml").read_text())
    assert saved["data"]["batch_size"] == 3
    assert saved["data"]["size"] == 64
    assert saved["trainer"]["max_epochs"] == 1
    said = capsys.readouterr().err
    assert "recipe for" in said
    assert "--model.lr" in said
    assert "batch_size" not in said
    assert saved["model"]["lr"] == float(said.split("--model.lr ")[1].split()[0])
