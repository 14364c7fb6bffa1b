"""The command line as a whole: the verbs, their options, their help, and what a mistyped option meets."""

import subprocess
import sys

import pytest

from nailseg import __version__
from nailseg.cli.main import VERBS, command_line, main

HEAVY = ("torch", "transformers", "lightning", "pandas", "cv2")
OPTIONS = {
    "sample": "--count --size --seed",
    "index": "--out --val --test --group --folds --no-near-duplicates --seed",
    "check": "--root --json --allow --for --skip-bad --write-clean --sheet --classes --mask-values "
    "--max-pixels",
    "import": "--classes --exif --resplit --seed --skip-bad --columns --subset --mask-values",
    "compare": "--out --seed",
    "predict": "--model --out --root --split --overlay --probability --polygons --csv --index --threshold "
    "--tta --tile --resume --device --devices",
    "export": "--format --out --precision --images --csv --root --max-drop",
    "bench": "--images --size --threads --repeats --out",
    "tryon": "--color --model --out --device",
    "serve": "--model --host --port --device --threshold",
    "convert": "--classes --encoder --licence",
}


def test_numbers_may_be_written_as_a_list(monkeypatch, tmp_path, capsys) -> None:
    main(["check", "x.csv", "--image-range", "[7600,8110]"])
    first = capsys.readouterr().err
    main(["check", "x.csv", "--image-range", "7600", "8110"])
    assert first == capsys.readouterr().err
    assert "x.csv: expected a CSV" in first


def test_the_promised_verbs_exist() -> None:
    assert set(VERBS) == {*OPTIONS, "fit", "validate", "test", "train"}


@pytest.mark.parametrize("verb", OPTIONS)
def test_the_promised_options_exist_and_have_a_help_text(verb: str, capsys) -> None:
    app = command_line(verb)
    arguments = app[verb].assemble_argument_collection(
        default_parameter=app.default_parameter, parse_docstring=True
    )
    names = {name for argument in arguments for name in argument.names}
    assert set(OPTIONS[verb].split()) <= names
    assert all(argument.parameter.help for argument in arguments), "a parameter without a line in Args:"
    assert all(argument.parameter.help[0].isupper() for argument in arguments)
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: nailseg {verb}" in shown
    positional = [argument.name for argument in arguments if argument.index is not None]
    assert not any(f"--{name.lower()} " in shown for name in positional), "not an option as well"
    assert "CHOICE" not in shown
    assert "STR|PATH" not in shown


def test_help_names_the_words_that_an_option_takes(capsys) -> None:
    assert main(["predict", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("--threshold FLOAT|model", "--tile INT|auto", "--split train|val|test", "--out PATH"):
        assert option in shown


def test_help_and_import_load_nothing_heavy() -> None:
    for code in ("import nailseg", "from nailseg.cli.main import main; assert main(['--help']) == 0"):
        check = f"{code}; import sys; loaded = set({HEAVY}) & set(sys.modules); assert not loaded, loaded"
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_help_lists_the_verbs_in_their_order(capsys) -> None:
    assert main(["--help"]) == 0
    listed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert listed[: len(VERBS)] == list(VERBS)


def test_version(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nailseg {__version__}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sample", "x", "--cuont", "3"], "Did you mean --count?"),
        (["predict", "a.jpg", "--out", "o", "--threshhold", "0.5"], "Did you mean --threshold?"),
        (["index", "x", "--no-near-duplicate"], "Did you mean --no-near-duplicates?"),
        (["serv"], "unknown command serv. Did you mean serve?"),
        (["draw"], "unknown command draw. `nailseg --help` lists all."),
        (["--zzz"], "`nailseg --help` lists all."),
        (["sample", "x", "--seat", "3"], "sample: unknown option --seat. `nailseg sample --help` lists all."),
        (["sample", "x", "y"], "sample: expected no further argument, found y. `nailseg sample --help`"),
        (["fit", "--data.seize", "64"], "unknown option --data.seize. Did you mean --data.size?"),
        (["fit", "--momentum", "64"], "unknown option --momentum. `nailseg fit --help` lists all."),
        (["fit", "--data.sise", "64"], "fit: unknown option --data.sise. Did you mean --data.size?"),
        (["train", "--fold=3"], "train: unknown option --fold. Did you mean --folds?"),
        (["validate", "--model.weights=b0-random", "--data.cvs=x"], "Did you mean --data.csv?"),
        (["test", "--model.weights=b0-random", "--trainer.device=1"], "Did you mean --trainer.devices?"),
        (["fit", "--zzz"], "unknown option --zzz. `nailseg fit --help` lists all."),
        (["fit", "--data.size", "many"], "fit: --data.size: expected a whole number, found many"),
        (["train", "--trainer.max_epochs=x"], "--trainer.max_epochs: expected a whole number, found x"),
        (["fit", "--data.csv"], "fit: argument --data.csv: expected one argument"),
        (["sample", "x", "--seed", "-1"], "--seed. expected a whole number from 0 on"),
        (["predict", "--out", "o"], "predict: expected PATHS, found none"),
        (
            ["predict", "x", "--out", "o", "--threshold", "high"],
            "predict: --threshold: expected a number or model, found high",
        ),
        (["check", "x.csv", "--for", "fot"], "check: --for: expected one of fit, validate, test, found fot"),
        (
            ["import", "foo", "a", "b"],
            "import: KIND: expected one of yolo, coco, labelme, via, cvat, hub, found foo",
        ),
        (["fit"], "fit: expected --data.csv, found none. `nailseg index DIR` makes one."),
        (["fit", "--data.csv", "x", "--data.allow", "a"], "--data.allow: expected a list such as '[A,B]'"),
        ([], "expected a command, found none"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_parsed_meets_one_line(args, message: str, capsys) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("evaluating")]
    assert not out
    assert len(lines) == 1
    assert lines[0].startswith("nailseg: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (
            "trainer: {max_epoch: 3}",
            2,
            "unknown option trainer.max_epoch. Did you mean --trainer.max_epochs?",
        ),
        ("model: {lr: high}", 2, "--model.lr: expected a number, found high"),
        ("model: [", 1, "c.yaml: expected a config in YAML, found"),
    ],
)
def test_an_error_in_a_config_meets_one_line(text: str, code: int, message: str, tmp_path, capsys) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert main(["fit", "--config", str(tmp_path / "c.yaml")]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_sample_says_what_comes_next(tmp_path, capsys) -> None:
    folder = tmp_path / "d"
    assert main(["sample", str(folder), "--count", "2", "--size", "64"]) == 0
    assert f"2 images with masks in {folder}. Next: nailseg index {folder}\n" in capsys.readouterr().out
