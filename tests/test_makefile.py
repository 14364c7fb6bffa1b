"""`make demo` runs commands as people type them: its lines are read from make and run with a tiny network."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from nailseg.cli.main import main

MAKEFILE = Path(__file__).parents[1] / "Makefile"
SMALL = "--data.size=64 --data.eval_size=64 --data.workers=0 --trainer.max_epochs=1 --trainer.accelerator=cpu"


def recipe(target: str) -> list[str]:
    """The shell lines of a target, without those of `setup`."""
    command = ["make", "--dry-run", "--old-file=setup", f"--file={MAKEFILE}", target, "BIN=bin"]
    # below `make test` the flags of that make are in the environment, and change what this one prints
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_the_demo_ends_with_a_report_and_overlays(tiny_folder, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"sample": ["--size", "64"], "train": [*SMALL.split(), f"--model.weights={tiny_folder}"]}
    *steps, last = recipe("demo")
    verbs = []
    for step in steps:
        words = shlex.split(step.partition("bin/nailseg ")[2].replace("--count 400", "--count 24"))
        assert main([*words, *small.get(words[0], [])]) == 0
        made = step.split()[2]
        assert Path(made).exists(), "a second `make demo` leaves this step out"
        verbs.append(words[0])
    assert verbs == ["sample", "index", "train", "predict"]
    assert "runs/demo/test/report.html" in last
    assert Path("runs/demo/test/report.html").is_file()
    n_test = (tmp_path / "demo" / "dataset.csv").read_text().count(",test,")
    assert len(list(Path("runs/demo/predictions").rglob("*.overlay.jpg"))) == n_test > 0
