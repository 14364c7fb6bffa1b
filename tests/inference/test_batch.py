"""Inputs and outputs of `nailseg predict`, interrupted runs, and several processes."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import nailseg
from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.errors import ConfigError
from nailseg.inference import sources
from nailseg.inference.batch import Options, name_outputs
from nailseg.models.segformer import SegFormer
from tests.conftest import TINY

NAMES = ["1/a", "1/b", "2/c", "2/d", "e"]


@pytest.fixture
def photos(tmp_path) -> Path:
    """A data set of five images, with masks that must not be predicted."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        noise = rng.integers(0, 256, (48 + 8 * number, 70, 3), dtype=np.uint8)
        for folder, image in (("Images", noise), ("Masks", noise[..., 0])):
            path = tmp_path / "photos" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path / "photos"


@pytest.fixture
def predict(mixed_model, tmp_path):
    """Runs the verb on paths into a folder below tmp_path; gives exit code and folder."""

    def run(*args: object, out: str = "out") -> tuple[int, Path]:
        fixed = ["--model", str(mixed_model), "--out", str(tmp_path / out), "--device", "cpu"]
        return main(["predict", *map(str, args), *fixed]), tmp_path / out

    return run


def pngs(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def pixels(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_masks_of_a_data_set_are_skipped(predict, photos, capsys) -> None:
    code, out = predict(photos)
    assert code == 0
    assert set(pngs(out)) == {f"Images/{name}.png" for name in NAMES}
    assert "takes the 5 images in Images/ and skips 5 others" in capsys.readouterr().err


def test_csv_lists_images(photos, tmp_path) -> None:
    table = tmp_path / "elsewhere.csv"
    lines = [f"Images/{name}.png,{split}" for name, split in zip(NAMES, ["train", "val"] * 3, strict=False)]
    table.write_text("\n".join(["image,split", *lines]))  # without a column mask
    found = sources.find_images([str(table)], tmp_path / "out", root=photos)
    assert [p.as_posix() for p in found.values()] == [f"Images/{name}.png" for name in NAMES]
    assert all(path.is_file() for path in found)
    found = sources.find_images([str(table)], tmp_path / "out", root=photos, split="val")
    assert [p.as_posix() for p in found.values()] == ["Images/1/b.png", "Images/2/d.png"]
    with pytest.raises(ConfigError, match=r"elsewhere.csv: expected .* rows of the split, found none"):
        sources.find_images([str(table)], tmp_path / "out", root=photos, split="test")
    with pytest.raises(ConfigError, match=r"--split: expected a CSV among the paths, found .*photos"):
        sources.find_images([str(photos)], tmp_path / "out", split="test")


def test_predict_csv(predict, photos) -> None:
    (photos / "nails.csv").write_text("images\nImages/e.png\nImages/lost.png\n")
    code, out = predict(photos / "nails.csv")
    assert code == 1  # lost.png does not exist
    assert set(pngs(out)) == {"Images/e.png"}


def test_out_is_a_file(predict, photos, tmp_path, capsys) -> None:
    (tmp_path / "out").write_text("mine")
    assert predict(photos)[0] == 1
    assert predict(photos, out="out/deeper")[0] == 1
    assert capsys.readouterr().err.count("expected a folder, found the file") == 2
    assert (tmp_path / "out").read_text() == "mine"


def test_probability_is_16_bit(predict, photos, mixed_model, tmp_path) -> None:
    code, out = predict(photos / "Images/1", "--probability", "--overlay")
    assert code == 0
    assert {p.name for p in out.iterdir()} == {
        f"{n}.{end}" for n in "ab" for end in ("png", "probability.png", "overlay.jpg")
    }
    written = pixels(out / "a.probability.png")
    result = nailseg.load(mixed_model, device="cpu")(photos / "Images/1/a.png")
    assert written.dtype == np.uint16
    assert np.abs(written / 65535 - result.probability[1]).max() < 1e-5
    clear = np.abs(result.probability[1] - 0.5) > 1e-4
    assert ((pixels(out / "a.png") > 0) == (written > 32767))[clear].all()
    assert 0.1 < result.mask.mean() < 0.9


def test_one_probability_file_per_class(photos, tmp_path) -> None:
    torch.manual_seed(0)
    network = SegFormer.from_config(TINY, ["background", "nail", "polish/red"])
    model = model_folder.save_model_folder(
        tmp_path / "m", network, model_folder.describe_network(network, image_size=64)
    )
    out = tmp_path / "out"
    args = ["predict", str(photos / "Images/e.png"), "--model", str(model), "--out", str(out)]
    assert main([*args, "--probability", "--polygons", "--csv", "--device=cpu"]) == 0
    assert {p.name for p in out.iterdir()} == {
        "e.png",
        "e.probability.nail.png",
        "e.probability.polish_red.png",
        "polygons.json",
        "objects.csv",
    }
    result = nailseg.load(model, device="cpu")(photos / "Images/e.png")
    assert (pixels(out / "e.png") == result.mask).all()
    for index, name in ((1, "nail"), (2, "polish_red")):
        written = pixels(out / f"e.probability.{name}.png") / 65535
        assert np.abs(written - result.probability[index]).max() < 1e-5


def test_import_reads_polygons(predict, photos, tmp_path) -> None:
    code, out = predict(photos / "Images", "--polygons", "--csv")
    assert code == 0
    shutil.copy(out / "polygons.json", photos / "Images")
    assert main(["import", "coco", str(photos / "Images"), str(tmp_path / "again")]) == 0
    masks = pngs(tmp_path / "again" / "Masks")
    assert set(masks) == {f"{name}.png" for name in NAMES}
    for name in masks:
        assert (pixels(tmp_path / "again" / "Masks" / name) == pixels(out / name)).all(), name
    content = json.loads((out / "polygons.json").read_text())
    assert all(0.5 <= entry["score"] <= 1 for entry in content["annotations"])
    with (out / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"{name}.png" for name in NAMES]
    for row in rows:
        regions = cv2.connectedComponents(pixels(out / row["mask"]), connectivity=8)[0] - 1
        assert int(row["count_nail"]) == regions > 0
        assert int(row["area_nail"]) == (pixels(out / row["mask"]) > 0).sum()


def test_resume_predicts_only_what_is_left(predict, photos, capsys) -> None:
    (photos / "Images" / "2" / "broken.png").write_bytes((photos / "Images/e.png").read_bytes()[:100])
    options = (photos / "Images", "--overlay")
    assert predict(*options, out="whole")[0] == 1
    code, out = predict(*options)
    assert code == 1
    for name in ("1/b.png", "2/c.png", "2/c.overlay.jpg"):  # as an interrupted run leaves it
        (out / name).unlink()
    kept = (out / "1" / "a.png").stat().st_mtime_ns
    assert predict(*options)[0] == 1  # existing files are not overwritten
    assert "use --resume" in capsys.readouterr().err
    assert predict(*options, "--resume")[0] == 1
    log = capsys.readouterr().err
    assert "3 of 6 images are done already" in log
    assert "not done: " in log
    assert "broken.png" in log
    assert (out / "1" / "a.png").stat().st_mtime_ns == kept
    assert pngs(out) == pngs(out.parent / "whole")
    (photos / "Images" / "2" / "broken.png").unlink()
    assert predict(*options, "--resume")[0] == 0  # nothing is left


def test_resume_refuses_incomplete_tables(predict, photos, capsys) -> None:
    images = photos / "Images/1"
    assert predict(images, "--polygons", "--csv", "--resume")[0] == 0  # nothing was done before
    code, out = predict(images / "a.png", "--polygons", out="other")
    assert code == 0
    before = (out / "polygons.json").read_bytes()
    for options, tables in (
        (["--polygons", "--csv"], "polygons.json and objects.csv"),
        (["--csv"], "objects.csv"),
    ):
        assert predict(images, *options, "--resume", out="other")[0] == 1
        message = f"--resume: {tables} would lack the 1 of 2 images that are done already"
        assert message in capsys.readouterr().err
    assert (out / "polygons.json").read_bytes() == before
    assert predict(images / "b.png", "--polygons", "--resume", out="other")[0] == 1
    assert "polygons.json) and are not overwritten" in capsys.readouterr().err
    assert predict(images, "--resume", out="other")[0] == 0
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png", "polygons.json"}


def test_resume_does_not_take_an_image_for_its_mask(predict, photos, tmp_path, capsys) -> None:
    code, _ = predict(photos / "Images/1/a.png", "--resume", out="photos/Images/1")
    assert code == 1
    assert "expected a folder apart from the images" in capsys.readouterr().err


def test_skipped_files_are_logged(predict, photos, capsys) -> None:
    for name in ("a.gif", "b.HEIC", ".hidden.txt"):
        (photos / "Images" / name).write_bytes(b"x")
    assert predict(photos / "Images")[0] == 0
    assert "skips 2 files without an image suffix (.gif, .heic)" in capsys.readouterr().err


def test_two_images_with_the_same_output_file(predict, photos, capsys) -> None:
    shutil.copy(photos / "Images/e.png", photos / "Images/e.probability.png")
    assert predict(photos / "Images", "--probability")[0] == 1
    assert "would both write e.probability.png" in capsys.readouterr().err


def test_tta_and_tile(predict, photos, mixed_model) -> None:
    image = photos / "Images/e.png"
    _, plain = predict(image, out="plain")
    code, out = predict(image, "--tta", "--tile=40")
    assert code == 0
    expected = nailseg.load(mixed_model, device="cpu")(image, tta=True, tile=40)
    assert (pixels(out / "e.png") == 255 * expected.mask).all()
    assert (pixels(out / "e.png") != pixels(plain / "e.png")).any()
    _, large = predict(image, "--tile=100", out="large")
    assert pngs(large) == pngs(plain)


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
    assert pngs(out) == pngs(out.parent / "one")
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
    for name in [*pngs(tmp_path / "one"), "polygons.json"]:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_image_too_large_for_jpeg_does_not_stop_the_others(predict, photos, capsys) -> None:
    Image.fromarray(np.zeros((1, 65_600), np.uint8)).save(photos / "Images" / "wide.png")
    code, out = predict(photos / "Images", "--overlay")
    assert code == 1
    log = capsys.readouterr().err
    assert "not done: " in log
    assert "wide.png: expected an image that fits into .jpg, found 65600 x 1 pixels" in log
    assert sorted(pngs(out)) == sorted(f"{name}.png" for name in NAMES)


def test_similar_class_names_have_different_files() -> None:
    options = Options(Path(), False, True, False, False, False, None)
    files = name_outputs(Path("a.png"), options, ["background", "x/y", "x:y", "z"])
    assert [str(name) for name in files] == [
        "a.probability.x_y-1.png",
        "a.probability.x_y-2.png",
        "a.probability.z.png",
        "a.png",
    ]
