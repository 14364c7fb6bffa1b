"""Several processes give the numbers of one. Lightning relaunches the command, so they are subprocesses."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import assert_same_metrics


def nailseg(module: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs `python -m nailseg VERB …`, or `python -m nailseg.train …` for the module ".train"."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAILSEG")}
    environment |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            *([f"nailseg{module}"] if module.startswith(".") else ["nailseg", module]),
            *args,
        ],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def subset(drawn: Path, target: Path, n_images: int) -> Path:
    """A CSV with `n_images` test rows of the drawn data."""
    with (drawn / "dataset.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:n_images]
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"split": "test", "group": ""} for row in rows)
    return target


def same_test(one: Path, two: Path) -> dict:
    """The metrics.json and the tables of two runs agree; returns the first metrics."""
    first, second = (json.loads((run / "test" / "metrics.json").read_text()) for run in (one, two))
    assert_same_metrics(first, second)
    tables = [(run / "test" / "per_image.csv").read_text().splitlines() for run in (one, two)]
    assert [line.split(",")[0] for line in tables[0]] == [line.split(",")[0] for line in tables[1]]
    return first


GRID = [(n, devices, batch) for n in (7, 8, 13) for devices in (2, 3) for batch in (1, 2, 4)]
QUICK = [(7, 2, 2), (13, 3, 4)]


@pytest.mark.parametrize(
    ("n_images", "devices", "batch"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in GRID],
)
def test_several_processes_give_the_numbers_of_one(
    mixed_model, drawn, tmp_path, n_images, devices, batch
) -> None:
    table = subset(drawn, tmp_path / "part.csv", n_images)
    args = [
        "test",
        f"--model.weights={mixed_model}",
        f"--data.csv={table}",
        f"--data.root={drawn}",
        f"--data.batch_size={batch}",
        "--data.workers=0",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]
    nailseg(*args, "--name=one", cwd=tmp_path)
    nailseg(*args, "--name=many", f"--trainer.devices={devices}", "--trainer.strategy=ddp", cwd=tmp_path)
    metrics = same_test(tmp_path / "runs" / "one", tmp_path / "runs" / "many")
    assert metrics["n_images"] == n_images
    assert 0 < metrics["iou_nail"] < 1


def test_two_processes_train_and_test(drawn, tiny_folder, tmp_path) -> None:
    # 5 validation images in batches of 2: three batches for two processes
    with (drawn / "dataset.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    surplus = [row for row in rows if row["split"] == "val"][5:]
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row not in surplus)
    nailseg(
        ".train",
        f"--data.csv={tmp_path / 'data.csv'}",
        f"--data.root={drawn}",
        f"--model.weights={tiny_folder}",
        "--data.size=64",
        "--data.batch_size=2",
        "--data.workers=0",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.enable_progress_bar=false",
        "--name=both",
        cwd=tmp_path,
    )
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["both"]
    run = tmp_path / "runs" / "both"
    assert (run / "model" / "model.safetensors").exists()
    with (run / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["epoch"] for row in table] == ["0", "1"]
    assert all(float(row["val/loss"]) > 0 for row in table)
    # one process gets the same numbers from the model folder that two processes wrote
    nailseg(
        "test",
        f"--model.weights={run / 'model'}",
        f"--data.csv={tmp_path / 'data.csv'}",
        f"--data.root={drawn}",
        "--data.workers=0",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--name=again",
        cwd=tmp_path,
    )
    same_test(run, tmp_path / "runs" / "again")
