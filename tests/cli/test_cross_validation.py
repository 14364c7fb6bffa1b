"""Cross-validation: how rows are split, and a whole one through the real command line."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nailseg import train
from nailseg.cli import cross_validation
from nailseg.data.manifest import Row
from nailseg.errors import ConfigError


def rows(n: int, per_group: int = 3, val: int = 6) -> list[Row]:
    """Rows of two folders, in groups of consecutive ones."""
    splits = ["val" if k < val else "train" for k in range(n)]
    return [Row(f"{k % 2}/{k}.png", "m.png", split, f"g{k // per_group}") for k, split in enumerate(splits)]


def test_every_row_is_tested_once_and_groups_stay_whole() -> None:
    given = rows(60)
    folded = cross_validation.split_folds(given, 4)
    tested = Counter(row.image for fold in folded for row in fold if row.split == "test")
    assert tested == {row.image: 1 for row in given}
    for fold in folded:
        assert len({(row.group, row.split) for row in fold}) == 20
        counts = Counter(row.split for row in fold)
        assert abs(counts["test"] - 15) <= 3
        assert abs(counts["val"] - 4.5) <= 3  # a tenth of the 45 others


@pytest.mark.parametrize("val", [0, 12])
def test_every_fold_can_train_whatever_the_splits_were(val: int) -> None:
    for fold in cross_validation.split_folds(rows(12, per_group=2, val=val), 3):
        assert {row.split for row in fold} == {"train", "val", "test"}


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--folds 3: .* found 2 and none for .* Take fewer folds"):
        cross_validation.split_folds(rows(12, per_group=6), 3)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return tmp_path


def background_iou(own: list[dict]) -> float:
    matrix = np.sum([fold["confusion_matrix"] for fold in own], 0)
    return matrix[0, 0] / (matrix.sum() - matrix[1, 1])


def test_folds_are_pooled_and_resumed(here, drawn, tiny_folder, capsys, monkeypatch) -> None:
    # in this process, for starting one takes ten times as long as training
    monkeypatch.setattr(cross_validation, "_train", train.main)
    args = [f"--data.csv={drawn / 'dataset.csv'}", f"--model.weights={tiny_folder}", "--folds=2", "--name=x"]
    args += ["--data.size=64", "--data.workers=0", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    assert train.main(args) == 0
    folder = Path("runs/x-folds")
    shown = capsys.readouterr().err
    assert "fold 2 of 2\n" in shown
    assert [path.name for path in Path("runs").iterdir()] == ["x-folds"]
    with (folder / "test" / "per_image.csv").open() as file:
        pooled = list(csv.DictReader(file))
    with (drawn / "dataset.csv").open() as file:
        assert sorted(row["image"] for row in pooled) == sorted(row["image"] for row in csv.DictReader(file))
    kinds = ("hits_nail", "false_alarms_nail", "misses_nail")
    hits, *wrong = (sum(int(row[kind]) for row in pooled) for kind in kinds)
    metrics = json.loads((folder / "test" / "metrics.json").read_text())
    assert metrics["iou_nail"] == pytest.approx(hits / (hits + sum(wrong)))
    own = [json.loads((folder / f"fold-{k}" / "test" / "metrics.json").read_text()) for k in (1, 2)]
    names = ("precision_nail", "recall_nail", "instance_precision_nail", "instance_recall_nail", "miou")
    for key in ("dice_nail", "dice_per_image_nail", *names):
        values = [fold[key] for fold in own]
        found = metrics["folds"][key]
        assert found["values"] == pytest.approx(values)
        assert (found["mean"], found["std"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert metrics["precision_nail"] == pytest.approx(hits / (hits + wrong[0]))
    objects, right = (
        sum(int(row[kind]) for row in pooled) for kind in ("objects_nail", "objects_found_nail")
    )
    assert metrics["instance_recall_nail"] == pytest.approx(right / objects)
    assert metrics["miou"] == pytest.approx((metrics["iou_nail"] + background_iou(own)) / 2)
    low, high = metrics["intervals"]["iou_nail"]
    assert low <= metrics["iou_nail"] <= high
    assert low < high
    assert f"{metrics['dice_nail']:.4f}" in shown
    # the first fold done, the second interrupted after its last checkpoint
    shutil.rmtree(folder / "fold-2" / "model")
    assert train.main([*args, f"--resume={folder}"]) == 0
    assert "fold 1 of 2, finished before" in capsys.readouterr().err
    assert (folder / "fold-2" / "test-2" / "per_image.csv").exists()
    again = json.loads((folder / "test-2" / "metrics.json").read_text())
    assert again["dice_nail"] == pytest.approx(metrics["dice_nail"], abs=1e-6)


def test_a_failing_fold_stops_with_its_message(here, drawn, capfd) -> None:
    args = [f"--data.csv={drawn / 'dataset.csv'}", "--folds=2", "--name=x", "--data.size=65"]
    assert train.main(args) == 1
    shown = capfd.readouterr().err
    assert "expected a multiple of 32, found 65" in shown
    assert "fold 2" not in shown
    assert not Path("runs/x-folds").exists(), "a refused option leaves nothing behind"


def test_invalid_options_are_refused_before_anything_is_written(here, drawn, monkeypatch, capsys) -> None:
    data = f"--data.csv={drawn / 'dataset.csv'}"
    Path("c.yaml").write_text("folds: 3\n")
    for args, message in (
        ([data, "--folds=1"], "expected --folds of 2 or more, found 1"),
        (["--folds=2"], "--folds: expected --data.csv, found none"),
        ([data, "--folds=2", "--resume=runs/y"], "expected 2 files fold-K.csv, found 0"),
        ([data, "--config=c.yaml"], "folds: expected as an option"),
    ):
        assert train.main(args) == 1
        assert message in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert train.main([data, "--folds=2"]) == 1
    assert not Path("runs").exists()


def folds_of(table: Path, *options: str) -> int:
    return train.main([f"--data.csv={table}", "--folds=2", "--name=x", *options])


def test_invalid_rows_are_refused_or_left_out_as_in_a_training(here, drawn, monkeypatch, capsys) -> None:
    monkeypatch.setattr(cross_validation, "_train", lambda args: 3)
    table = here / "dataset.csv"
    table.write_text((drawn / "dataset.csv").read_text() + "a.jpg,b.png,dev,a\n")
    root = f"--data.root={drawn}"
    for options in ([root], [root, "--data.allow=[mask-full]"]):
        assert folds_of(table, *options) == 1
        assert "expected split train, val or test; found dev" in capsys.readouterr().err
        assert not Path("runs").exists()
    Path("c.yaml").write_text("data:\n  allow: [unknown-split]\n")
    for option in ("--data.skip_bad=true", "--data.allow=[unknown-split]", "--config=c.yaml"):
        assert folds_of(table, root, option) == 3
        assert "expected split train, val or test; found dev" in capsys.readouterr().err


def test_a_csv_without_a_valid_row_is_refused(here, capsys) -> None:
    Path("x.csv").write_text("image,mask,split\na.jpg,a.png,dev\n")
    assert folds_of("x.csv", "--data.skip_bad=true") == 1
    assert "x.csv: expected rows without errors, found none" in capsys.readouterr().err


SIGNALLED = """
import os, signal, sys, threading, time
from pathlib import Path
from nailseg.cli import cross_validation as folds

place, number = Path(sys.argv[1]), int(sys.argv[2])
folds.sys.executable = str(place / "python")
ours = []
signal.signal(signal.SIGTERM, lambda number, frame: ours.append(number))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def send():
    while not (place / "started").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), number)
    if number == signal.SIGINT:  # which reaches the child of a terminal only
        (place / "let-go").touch()

threading.Thread(target=send).start()
code = folds._train([])
assert ours == [], "the handler of the caller was not asked"
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.01)
assert ours == [signal.SIGTERM], "and is back afterwards"
print(code)
"""


EARLY = """
import os, signal, subprocess, sys
from nailseg.cli import cross_validation as folds

started = []

class Popen(subprocess.Popen):
    def __init__(self, command, **options):
        super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **options)
        started.append(self.pid)
        os.kill(os.getpid(), signal.SIGTERM)

folds.subprocess.Popen = Popen
print(folds._train([]), *started)
"""


def test_a_signal_while_the_training_starts_leaves_no_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, check=False, timeout=50
    )
    code, started = map(int, done.stdout.split())
    assert code == 143
    with pytest.raises(ProcessLookupError):
        os.kill(started, 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_reach_the_training(number: int, code: int, tmp_path) -> None:
    """A script stands for Python; it dies of SIGTERM, and ends by itself with 1 when it is let go.

    In a process of its own: signals are the whole process's, and this one has other libraries' threads.
    """
    script, started, let_go = (tmp_path / name for name in ("python", "started", "let-go"))
    script.write_text(
        f"#!/bin/sh\necho $$ > {started}.new; mv {started}.new {started}\n"
        f"while [ ! -e {let_go} ]; do sleep 0.05; done; exit 1\n"
    )
    script.chmod(0o755)
    try:
        command = [sys.executable, "-c", SIGNALLED, str(tmp_path), str(int(number))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.stdout == f"{code}\n", done.stderr
        with pytest.raises(ProcessLookupError):
            os.kill(int(started.read_text()), 0)
    finally:
        let_go.touch()
