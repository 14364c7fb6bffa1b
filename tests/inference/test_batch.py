"""Inputs and outputs of `nailseg predict`, and interrupted runs."""

import csv
import errno
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
from nailseg.inference import batch
from nailseg.inference.batch import plan_outputs
from nailseg.models.segformer import SegFormer
from tests.conftest import TINY
from tests.inference.conftest import NAMES, read_pngs


def pixels(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_masks_of_a_data_set_are_skipped(predict, photos, capsys) -> None:
    code, out = predict(photos)
    assert code == 0
    assert set(read_pngs(out)) == {f"Images/{name}.png" for name in NAMES}
    assert "takes the 5 images in Images/ and skips 5 others" in capsys.readouterr().err


def test_predict_csv(predict, photos) -> None:
    (photos / "dataset.csv").write_text("images\nImages/e.png\nImages/lost.png\n")
    code, out = predict(photos / "dataset.csv")
    assert code == 1  # lost.png does not exist
    assert set(read_pngs(out)) == {"Images/e.png"}


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
    masks = read_pngs(tmp_path / "again" / "Masks")
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
    assert read_pngs(out) == read_pngs(out.parent / "whole")
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
        message = f"--resume: {tables} would lack the 1 of 2 images whose masks exist already"
        assert message in capsys.readouterr().err
    assert (out / "polygons.json").read_bytes() == before
    assert predict(images / "b.png", "--polygons", "--resume", out="other")[0] == 1
    assert "polygons.json) and are not overwritten" in capsys.readouterr().err
    assert predict(images, "--resume", out="other")[0] == 0
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png", "polygons.json"}


def test_resume_writes_no_table_that_contradicts_existing_masks(predict, photos, capsys) -> None:
    images = photos / "Images/1"
    code, out = predict(images, "--threshold=1")
    assert code == 0
    before = read_pngs(out)
    # the overlays are missing, the masks are not
    assert predict(images, "--threshold=0", "--overlay", "--csv", "--resume")[0] == 1
    log = capsys.readouterr().err
    assert "objects.csv would lack the 2 of 2 images whose masks exist already" in log
    assert "leave out --resume and choose another --out" in log
    assert read_pngs(out) == before
    assert not (out / "objects.csv").exists()


def test_resume_does_not_take_an_image_for_its_mask(predict, photos, tmp_path, capsys) -> None:
    code, _ = predict(photos / "Images/1/a.png", "--resume", out="photos/Images/1")
    assert code == 1
    assert "expected a folder apart from the images" in capsys.readouterr().err


def test_skipped_files_are_logged(predict, photos, capsys) -> None:
    for name in ("a.txt", "LICENCE", ".hidden.txt"):
        (photos / "Images" / name).write_bytes(b"no image")
    assert predict(photos / "Images")[0] == 1
    assert "skips 2 files that are no images: LICENCE, a.txt" in capsys.readouterr().err
    assert predict(photos / "Images" / "*", out="glob")[0] == 1
    assert "skips 2 files that are no images: LICENCE, a.txt" in capsys.readouterr().err
    (photos / "Images" / "b.HEIC").write_bytes(b"no image")
    assert predict(photos / "Images", out="other")[0] == 1
    assert "not done: " in capsys.readouterr().err


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
    assert read_pngs(large) == read_pngs(plain)


def test_image_too_large_for_jpeg_does_not_stop_the_others(predict, photos, capsys) -> None:
    Image.fromarray(np.zeros((1, 65_600), np.uint8)).save(photos / "Images" / "wide.png")
    code, out = predict(photos / "Images", "--overlay")
    assert code == 1
    log = capsys.readouterr().err
    assert "not done: " in log
    assert "wide.png: expected an image that fits into .jpg, found 65600 x 1 pixels" in log
    assert sorted(read_pngs(out)) == sorted(f"{name}.png" for name in NAMES)


def test_similar_class_names_have_different_files() -> None:
    files = plan_outputs(["background", "x/y", "x:y", "z"], False, True, False, Path("a.png"))
    assert [str(name) for name in files] == [
        "a.probability.x_y-1.png",
        "a.probability.x_y-2.png",
        "a.probability.z.png",
        "a.png",
    ]


def test_existing_files_are_not_overwritten(predict, photos, tmp_path, capsys) -> None:
    image = photos / "Images/1/a.png"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.overlay.jpg").write_text("mine")
    assert predict(image, "--overlay")[0] == 1
    assert "(the first: a.overlay.jpg)" in capsys.readouterr().err
    assert predict(image)[0] == 0
    assert predict(image)[0] == 1
    assert "1 of the files to write exist already (the first: a.png)" in capsys.readouterr().err


def test_what_another_process_writes_meanwhile_is_kept(
    predict, photos, tmp_path, monkeypatch, capsys
) -> None:
    describe = batch.describe_objects

    def write_meanwhile(*args: object) -> object:
        (tmp_path / "out" / "b.png").write_text("another's")
        (tmp_path / "out" / "objects.csv").write_text("another's")
        return describe(*args)

    monkeypatch.setattr(batch, "describe_objects", write_meanwhile)
    code, out = predict(photos / "Images/1", "--csv")
    assert code == 1
    errors = capsys.readouterr().err
    assert "1 masks in" in errors
    assert f"not done: {out / 'objects.csv'}: another process has written it meanwhile" in errors
    assert f"{out / 'b.png'}: another process has written it meanwhile" in errors
    assert (out / "b.png").read_text() == (out / "objects.csv").read_text() == "another's"
    assert (out / f"objects-{os.getpid()}.csv").read_text().count("a.png,a.png") == 1


def test_two_predictions_into_one_folder(photos, mixed_model, tmp_path) -> None:
    """Whoever comes first, every mask is complete, and nothing fails but by a message that says why."""
    command = [sys.executable, "-m", "nailseg", "predict", photos / "Images", "--out", tmp_path / "out"]
    command += ["--model", mixed_model, "--device", "cpu", "--csv"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(read_pngs(tmp_path / "out")) == sorted(f"{name}.png" for name in NAMES)
    assert not list((tmp_path / "out").rglob("*.part"))
    for error in errors:
        assert "Errno" not in error
        assert "Traceback" not in error
    for process, error in zip(both, errors, strict=True):
        refused = "are not overwritten" in error or "written it meanwhile" in error
        assert process.returncode == int(refused), error


def test_broken_file_does_not_stop_the_others(predict, photos, capsys) -> None:
    (photos / "Images/1/broken.png").write_bytes((photos / "Images/e.png").read_bytes()[:200])
    code, out = predict(photos / "Images/1")
    assert code == 1
    log = capsys.readouterr().err
    assert "not done: " in log
    assert "broken.png" in log
    assert "Traceback" not in log
    assert set(read_pngs(out)) == {"a.png", "b.png"}


def test_index_writes_class_indices(predict, photos) -> None:
    code, out = predict(photos / "Images/e.png", "--index")
    assert code == 0
    assert set(np.unique(pixels(out / "e.png"))) == {0, 1}


def test_a_full_disk_ends_the_prediction_at_once(predict, photos, monkeypatch, capsys) -> None:
    written = []

    def full(source: object, target: object) -> None:
        written.append(target)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert predict(photos / "Images")[0] == 1
    errors = capsys.readouterr().err
    assert errors.count("No space left on device. Free some space") == 1
    assert len(written) <= 3, "those that were waiting to be written"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_a_file_name_that_is_no_text_is_found_before_the_work(mixed_model, tmp_path, capsys) -> None:
    name = os.fsencode(tmp_path) + b"/n\xe4gel.png"
    with open(name, "wb") as file:
        file.write(cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes())
    args = ["predict", str(tmp_path), "--out", str(tmp_path / "out"), "--model", str(mixed_model)]
    assert main([*args, "--csv"]) == 1
    assert "expected a file name in UTF-8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(args) == 0, "masks alone need no text"


def test_a_read_only_place_is_found_before_the_work(mixed_model, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("nailseg.files.os.access", lambda path, mode: False)  # as on a read-only mount
    args = ["predict", "missing.png", "--out", str(tmp_path / "a" / "b"), "--model", str(mixed_model)]
    assert main(args) == 1
    assert f"{tmp_path} is read-only" in capsys.readouterr().err
