import zipfile

import pytest

from nailseg.cli import arguments
from nailseg.cli.arguments import CommandLine
from nailseg.cli.runner import UsageError
from nailseg.errors import ConfigError, WeightsError
from nailseg.model_info import locate


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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


def test_a_package_without_its_configs_gets_the_same_message(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(arguments.resources, "files", lambda name: tmp_path / "site-packages" / name)
    with pytest.raises(ConfigError, match=r"no config 'b4.yaml'.*nailseg's own: none\."):
        arguments.find_config("b4.yaml")


def test_configs_come_first_in_all_spellings_and_the_rest_keeps_its_order() -> None:
    args = ["--config", "b4.yaml", "--a", "-1", "--config=b0.yaml", "--x", "b1.yaml", "-c", "b2.yaml", "--y"]
    line = CommandLine.read(args)
    assert [path.name for path in line.configs] == ["b4.yaml", "b0.yaml", "b2.yaml"]
    assert line.arguments()[0].endswith("configs/b4.yaml")
    assert line.arguments()[3:] == ["--a", "-1", "--x", "b1.yaml", "--y"]
    assert line.run_name("fit") == "b2"


def test_the_last_of_an_option_counts_and_configs_follow() -> None:
    with open("a.yaml", "w") as file:
        file.write("data:\n  size: 5\n  csv: null\nname: x\n")
    with open("b.yaml", "w") as file:
        file.write("data:\n  size: 6\n")
    line = CommandLine.read(["--a", "1", "--b=2", "--a=3", "-c", "a.yaml", "-c", "b.yaml"])
    assert (line.option("a"), line.option("c"), line.option("data.size")) == ("3", None, None)
    assert (line.value("a"), line.value("data.size"), line.value("name")) == ("3", 6, "x")
    assert line.value("data.csv") is line.value("model.lr") is None
    assert line.with_options(a=None).typed == ("--b=2",)
    assert line.with_options(model__lr=1, b=3).typed[-2:] == ("--model.lr=1", "--b=3")


@pytest.mark.parametrize(
    "text", [b"data: [", b"- 1", b"\xff\xfe\x00", b"a: &a [1]\nb: [" + b"*a," * 11 + b"]", b"a: &a [*a]"]
)
def test_a_config_that_cannot_be_read_is_refused(text: bytes, tmp_path) -> None:
    (tmp_path / "a.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=r"a\.yaml: expected"):
        CommandLine.read(["-c", "a.yaml"]).value("data.size")


def test_an_empty_config_has_no_options(tmp_path) -> None:
    (tmp_path / "a.yaml").touch()
    assert CommandLine.read(["-c", "a.yaml"]).value("data.size") is None


def test_an_option_without_its_value_is_refused() -> None:
    with pytest.raises(UsageError, match="--resume: expected one argument"):
        CommandLine.read(["--resume", "--x"]).option("resume")


def test_resume_needs_a_run_with_a_checkpoint(tmp_path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"--resume runs/x: expected runs/x/config\.yaml, found none"):
        arguments.prepare_resume(CommandLine.read([]), "runs/x")
    folder = tmp_path / "runs" / "x"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"last\.ckpt"):
        arguments.prepare_resume(CommandLine.read([]), str(folder))
    (folder / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(WeightsError, match=r"last\.ckpt: expected a file with tensors"):
        arguments.prepare_resume(CommandLine.read([]), str(folder))
    monkeypatch.setattr(arguments, "require_resumable", lambda path: None)
    args = [f"--resume={folder}", "--trainer.max_epochs=3"]
    last = folder / "checkpoints" / "last.ckpt"
    assert arguments.prepare_resume(CommandLine.read(args), str(folder)).arguments() == [
        f"--config={folder / 'config.yaml'}",
        *args,
        f"--model.weights={last}",
        f"--ckpt_path={last}",
    ]


def test_evaluation_needs_something_trained() -> None:
    with pytest.raises(ConfigError, match="nothing to evaluate: give --model"):
        arguments.prepare_evaluation(CommandLine.read(["--data.csv", "x.csv"]))


def test_an_interrupted_run_names_its_checkpoint(tmp_path) -> None:
    checkpoint = tmp_path / "runs" / "x" / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    zipfile.ZipFile(checkpoint, "w").close()
    with pytest.raises(
        WeightsError, match=r"an interrupted one\. Give .*best\.ckpt, or continue the training"
    ):
        locate(tmp_path / "runs" / "x")
    assert locate(checkpoint) == str(checkpoint)
