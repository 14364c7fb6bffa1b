"""Several processes, started by the command or by torchrun, share the images."""

import os
import subprocess
import sys

import pytest

from nailseg.cli.main import main
from tests.inference.conftest import read_pngs


def test_two_processes_share_the_images(predict, photos, capfd) -> None:
    (photos / "Images" / "2" / "broken.png").write_bytes((photos / "Images/e.png").read_bytes()[:100])
    options = (photos / "Images", "--polygons", "--csv")
    assert predict(*options, out="one")[0] == 1
    code, out = predict(*options, "--devices=2")
    log = capfd.readouterr().err
    assert code == 1
    assert log.count("broken.png") == 2  # once per command
    assert "5 masks in" in log
    for name in ("polygons.json", "objects.csv"):
        assert (out / name).read_bytes() == (out.parent / "one" / name).read_bytes()
    assert read_pngs(out) == read_pngs(out.parent / "one")
    assert not list(out.rglob(".*"))


def test_invalid_number_of_processes(predict, photos, capsys) -> None:
    assert predict(photos, "--devices=0")[0] == 1
    assert "--devices 0: expected 1 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_torchrun_shares_the_images(mixed_model, photos, tmp_path) -> None:
    predict = ["predict", str(photos / "Images"), "--model", str(mixed_model), "--polygons", "--device=cpu"]
    assert main([*predict, f"--out={tmp_path / 'one'}"]) == 0
    (photos / "Images" / "broken.png").write_bytes(b"")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*torchrun, "-m", "nailseg", *predict, f"--out={tmp_path / 'two'}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("5 masks in") == 1
    for name in [*read_pngs(tmp_path / "one"), "polygons.json"]:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
