"""16-bit images of a narrow range: told from the whole set, scaled by its range, recorded with the model."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import nailseg
from nailseg.cli.main import main
from nailseg.data import SegmentationDataModule
from nailseg.data.io.images import decode_image, read_bytes, read_image
from nailseg.data.io.levels import measure_range, sample_values, scale_to_8_bits
from nailseg.errors import ConfigError
from nailseg.model_info import read_info

RANGES = {"7600..8110": (7600, 2), "51241..52181": (51241, 3.69), "12 bits": (0, 16)}


def draw_gray(seed: int) -> np.ndarray:
    """uint8 (64, 80): cells of all levels, dark at the border."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 10)).astype(np.uint8)
    coarse[[0, -1]] //= 2
    coarse[:, [0, -1]] //= 2
    coarse[0, :2], coarse[3, 3:5] = 0, 255
    return cv2.resize(coarse, (80, 64), interpolation=cv2.INTER_NEAREST)


def write_set(folder: Path, offset: float, factor: float, count: int = 30, suffix: str = "png") -> str:
    lines = ["image,mask,split"]
    for number in range(count):
        gray = draw_gray(number)
        deep = np.rint(offset + factor * gray.astype(float)).astype(np.uint16)
        cv2.imwrite(str(folder / f"{number}.{suffix}"), deep)
        cv2.imwrite(str(folder / f"mask{number}.png"), (gray > 190).astype(np.uint8) * 255)
        split = "train" if number < 20 else "val" if number < 25 else "test"
        lines.append(f"{number}.{suffix},mask{number}.png,{split}")
    (folder / "dataset.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "dataset.csv")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("kind", RANGES)
def test_a_narrow_range_is_an_error_with_the_option(kind: str, suffix: str, tmp_path: Path, capsys) -> None:
    table = write_set(tmp_path, *RANGES[kind], suffix=suffix)
    assert main(["check", table]) == 1
    text = capsys.readouterr().out
    assert "image-range (1)" in text
    assert "expected 32 gray levels or more, found" in text
    assert "--image-range percentile" in text
    assert main(["check", table, "--image-range", "percentile"]) == 0


@pytest.mark.parametrize("kind", RANGES)
def test_percentiles_give_the_levels_back(kind: str, tmp_path: Path) -> None:
    offset, factor = RANGES[kind]
    table = write_set(tmp_path, offset, factor)
    data = SegmentationDataModule(csv=table, size=64, workers=0, cache="off", image_range="percentile")
    data.setup("fit")
    low, high = data.facts()["image_range"]
    assert (low, high) == (round(offset), round(offset + factor * 255))
    image, _ = data.dataset("train").read(0)
    assert np.abs(image[..., 0].astype(int) - draw_gray(0)).max() <= 1


def test_a_dim_image_in_a_full_set_is_no_error(tmp_path: Path) -> None:
    table = write_set(tmp_path, 0, 257)
    cv2.imwrite(str(tmp_path / "3.png"), 7600 + 2 * draw_gray(3).astype(np.uint16))
    assert main(["check", table]) == 0


def test_8_bit_images_have_no_range(tmp_path: Path) -> None:
    table = write_set(tmp_path, 0, 257)
    for path in tmp_path.glob("[0-9]*.png"):
        cv2.imwrite(str(path), (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) // 257).astype(np.uint8))
    data = SegmentationDataModule(csv=table, size=64, workers=0, cache="off", image_range="percentile")
    data.setup("fit")
    assert data.facts()["image_range"] is None
    assert np.array_equal(data.dataset("train").read(0)[0][..., 0], draw_gray(0))


@pytest.mark.parametrize("given", ["fall", (5, 5), (9, 4), (-1, 7), (0, 70000), (1, 2, 3)])
def test_invalid_ranges(given, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--data.image_range: expected full, percentile or two values"):
        SegmentationDataModule(csv="x.csv", image_range=given)


def test_scaling_equals_a_hand_written_formula() -> None:
    values = np.random.default_rng(0).integers(0, 65536, 5000).astype(np.uint16)
    for low, high in ((0, 65535), (7600, 8110), (100, 101)):
        expected = [round(255 * min(max((int(v) - low) / (high - low), 0), 1)) for v in values]
        assert scale_to_8_bits(values, (low, high)).tolist() == expected
    assert measure_range([sample_values(values.reshape(50, 100))]) == pytest.approx(
        np.percentile(values, (0.5, 99.5)), abs=150
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_folder) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("deep")
    table = write_set(folder, 7600, 2)
    before = os.getcwd()
    os.chdir(folder)
    args = ["--data.csv", table, "--data.size", "64", "--data.workers", "0", "--data.batch_size", "4"]
    args += ["--model.weights", str(tiny_folder), "--trainer.max_epochs", "1", "--trainer.logger", "false"]
    try:
        assert main(["train", *args, "--data.image_range", "percentile", "--name", "deep"]) == 0
    finally:
        os.chdir(before)
    return folder / "runs" / "deep", table


def test_the_range_is_recorded_and_used_without_an_option(trained, tmp_path: Path, capsys) -> None:
    run, table = trained
    assert read_info(run / "model").image_range == [7600, 8110]
    first = json.loads((run / "test" / "metrics.json").read_text())
    out = str(tmp_path / "runs")
    assert main(["test", "--model.weights", str(run / "model"), "--data.csv", table, "--runs", out]) == 0
    (again,) = Path(out).glob("*/test/metrics.json")
    assert json.loads(again.read_text())["dice_nail"] == first["dice_nail"]
    image = run.parents[1] / "27.png"
    segment = nailseg.load(run / "model", device="cpu")
    assert np.abs(segment(image).image[..., 0].astype(int) - draw_gray(27)).max() <= 1
    assert np.array_equal(segment(image).mask, segment(image.read_bytes()).mask)
    assert main(["export", str(run / "model"), "--format", "onnx", "--out", str(tmp_path / "onnx")]) == 0
    exported = nailseg.load(tmp_path / "onnx")
    assert exported.info.image_range == [7600, 8110]
    assert np.array_equal(exported(image).image, segment(image).image)


def test_the_server_scales_too(trained) -> None:
    from fastapi.testclient import TestClient

    from nailseg.serving import create_app

    run, _ = trained
    segment = nailseg.load(run / "model", device="cpu")
    file = (run.parents[1] / "27.png").read_bytes()
    answer = TestClient(create_app(segment)).post("/predict", files={"file": ("a.png", file)})
    served = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(served > 0, segment(file).mask > 0)


def test_predict_without_a_range_says_so(tmp_path: Path, caplog) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), 7600 + 2 * draw_gray(0).astype(np.uint16))
    with caplog.at_level(logging.WARNING, "nailseg"):
        nailseg.load("nailseg-b0", device="cpu")(tmp_path / "a.png")
    assert "a.png: expected 32 gray levels or more, found 3" in caplog.text
    assert "--data.image_range" in caplog.text


def test_ranges_reach_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), 7600 + 2 * draw_gray(0).astype(np.uint16))
    for found in (
        read_image(path, image_range=(7600, 8110)),
        decode_image(read_bytes(path), "a", image_range=[7600, 8110]).pixels,
    ):
        assert np.array_equal(found[..., 0], draw_gray(0))
