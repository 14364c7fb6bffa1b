"""`--data.resize crop` from training to export: nothing is resized, tiles are blended, without an option."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

import nailseg
from nailseg import train
from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.data.augmentation import FOREGROUND_SHARE, Augmentation, TrainingTransform
from nailseg.data.cache import PixelCache
from nailseg.data.dataset import SegmentationDataset
from nailseg.inference.backends import open_exported
from nailseg.inference.tiling import split_into_tiles
from nailseg.model_info import read_info
from nailseg.training.callbacks import MAX_SIDE
from tests.conftest import assert_same_metrics
from tests.data.test_augmentation import NOTHING
from tests.data.test_dataset import BINARY, draw_rows

SIZE = 64


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes of odd sizes, larger than a crop in both, one or no direction, with small objects."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    sizes = [(150, 211), (40, 97), (33, 47)]
    lines = ["image,mask,split,group"]
    for number, split in enumerate(["train"] * 6 + ["val"] * 3 + ["test"] * 3):
        height, width = sizes[number % 3]
        image = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        for _ in range(3):
            center = rng.integers(6, [width - 6, height - 6]).tolist()
            cv2.circle(mask, center, 4, 255, -1)
        image[mask > 0] += 120
        cv2.imwrite(str(root / f"{number}.png"), image)
        cv2.imwrite(str(root / f"{number}.mask.png"), mask)
        lines.append(f"{number}.png,{number}.mask.png,{split},{number}")
    (root / "scenes.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


def options(scenes, *more: str) -> list[str]:
    given = ["--data.workers=0", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    return [f"--data.csv={scenes / 'scenes.csv'}", *given, *more]


@pytest.fixture(scope="module")
def run(scenes, mixed_model, tmp_path_factory):
    """A finished run of nailseg.train with crop; its learning rate leaves the mixed predictions mixed."""
    here = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("WANDB_MODE", "disabled")
        chosen = [f"--model.weights={mixed_model}", f"--data.size={SIZE}", "--data.resize=crop"]
        chosen += ["--data.batch_size=2", "--trainer.max_epochs=2", "--model.lr=1e-6", "--name=tiny"]
        assert train.main(options(scenes, *chosen)) == 0
    return here / "runs" / "tiny"


def blend_by_hand(backend, image: np.ndarray) -> np.ndarray:
    """Probabilities (C, H, W) of a plain loop over tiles of 64 pixels that share 16."""
    height, width = image.shape[:2]
    total, weight = np.zeros((2, height, width)), np.zeros((height, width))
    for top in {*range(0, max(height - SIZE, 0), 48), max(height - SIZE, 0)}:
        for left in {*range(0, max(width - SIZE, 0), 48), max(width - SIZE, 0)}:
            place = slice(top, top + SIZE), slice(left, left + SIZE)
            tile = image[place]
            _, (probability,) = backend(tile[None])
            ramps = [
                np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5, n // 4) for n in tile.shape[:2]
            ]
            own = ramps[0][:, None] * ramps[1]
            total[:, *place] += probability * own
            weight[place] += own
    return total / weight


def test_the_model_knows_its_tiles(run) -> None:
    info = read_info(run / "model")
    assert (info.resize, info.image_size, info.overlap) == ("crop", SIZE, 0.25)
    assert not json.loads((run / "model" / "preprocessor_config.json").read_text())["do_resize"]
    assert "crops of 64 pixels at the images' own scale" in (run / "model" / "README.md").read_text()
    assert model_folder.read_model_info(run / "checkpoints" / "best.ckpt").resize == "crop"
    assert "resize: crop" in (run / "config.yaml").read_text()


@pytest.mark.parametrize("number", [9, 10, 11])  # larger than a tile in two, one and no direction
def test_prediction_equals_a_loop_over_tiles(run, scenes, number) -> None:
    segment = nailseg.load(run / "model", "cpu")
    image = cv2.imread(str(scenes / f"{number}.png"))[..., ::-1]
    result = segment(image)
    expected = blend_by_hand(segment.backend, image)
    assert np.abs(result.probability - expected).max() < 1e-5
    (other,) = segment.batch([image])
    assert np.array_equal(other.probability, result.probability)


def test_an_explicit_tile_is_used_instead(run, scenes) -> None:
    segment = nailseg.load(run / "model", "cpu")
    image = cv2.imread(str(scenes / "9.png"))
    whole = segment.backend(image[None])[1][0]
    assert np.array_equal(segment(image, tile=1000).probability, whole)
    assert not np.allclose(segment(image).probability, whole, atol=1e-4)


def test_test_time_augmentation_scales_the_tiles(run, scenes) -> None:
    segment = nailseg.load(run / "model", "cpu")
    image = cv2.imread(str(scenes / "11.png"))
    total = 0
    for size in (round(0.75 * 47), None, round(1.25 * 47)):
        for step in (1, -1):
            total = total + segment.backend(image[None, :, ::step], size)[1][0][..., ::step]
    assert np.abs(segment(image, tta=True).probability - total / 6).max() < 1e-6


def test_predicted_masks_are_those_of_the_test(run, scenes, tmp_path) -> None:
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    files = [str(scenes / f"{number}.png") for number in (9, 10, 11)]
    assert main(["predict", *files, "--model", str(run), "--out", str(tmp_path / "masks")]) == 0
    hits = found = drawn = 0
    for number in (9, 10, 11):
        truth = cv2.imread(str(scenes / f"{number}.mask.png"), 0) > 0
        mask = cv2.imread(str(tmp_path / "masks" / f"{number}.png"), 0) > 0
        hits, found, drawn = hits + (truth & mask).sum(), found + mask.sum(), drawn + truth.sum()
    assert found > 0
    assert metrics["dice_nail"] == pytest.approx(2 * hits / (found + drawn), abs=1e-9)


def test_the_model_folder_and_the_checkpoint_test_the_same(run, scenes, tmp_path) -> None:
    expected = json.loads((run / "test" / "metrics.json").read_text())
    for name, source in {"folder": run / "model", "checkpoint": run / "checkpoints" / "best.ckpt"}.items():
        args = ["test", f"--model.weights={source}", f"--name={name}", *options(scenes)]
        assert main(args) == 0
        found = json.loads((tmp_path / "runs" / name / "test" / "metrics.json").read_text())
        assert_same_metrics(found["dice_nail"], expected["dice_nail"])


def test_resume_continues_with_crops(run, scenes, tmp_path) -> None:
    shutil.copytree(run, tmp_path / "runs" / "tiny")
    assert train.main(["--resume=runs/tiny", "--trainer.max_epochs=3"]) == 0
    assert read_info(tmp_path / "runs" / "tiny" / "model").resize == "crop"
    assert len((tmp_path / "runs" / "tiny" / "metrics.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_exported_tiles_agree_and_are_tested(run, scenes, tmp_path, form) -> None:
    out = tmp_path / form
    assert main(["export", str(run / "model"), "--format", form, "--out", str(out)]) == 0
    exported, segment = nailseg.load(out), nailseg.load(run / "model", "cpu")
    assert (exported.info.resize, exported.info.image_size, exported.info.overlap) == ("crop", SIZE, 0.25)
    for number in (9, 10, 11):
        image = cv2.imread(str(scenes / f"{number}.png"))
        difference = np.abs(exported(image).probability - segment(image).probability).max()
        assert difference < 1e-4
        exported(image, tta=True)  # mirrored only: the file resizes nothing
    if form == "onnx":
        metadata = open_exported(out).session.get_modelmeta().custom_metadata_map
        assert "tiles of 64 pixels" in metadata["input"]
        args = ["test", f"--model.weights={out}", "--name=exported", *options(scenes)]
        assert main(args) == 0
        found = json.loads((tmp_path / "runs" / "exported" / "test" / "metrics.json").read_text())
        assert found["dice_nail"] == pytest.approx(
            json.loads((run / "test" / "metrics.json").read_text())["dice_nail"], abs=1e-3
        )


def test_crops_are_pieces_of_the_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (150, 211, 3), dtype=np.uint8)
    mask = rng.integers(0, 2, (150, 211), dtype=np.uint8)
    transform = TrainingTransform(SIZE, "crop", NOTHING)
    windows = np.lib.stride_tricks.sliding_window_view(mask, (SIZE, SIZE))
    places = set()
    for seed in range(8):
        crop, labels = transform(image, mask, seed)
        ((top, left),) = np.argwhere((windows == labels).all((2, 3)))
        assert np.array_equal(crop, image[top : top + SIZE, left : left + SIZE])
        places.add((top, left))
    assert len(places) > 4


def test_a_window_gives_what_the_whole_image_gives(monkeypatch) -> None:
    """Only the crop's part of the image is warped; with the whole image the pixels are the same."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), (600, 400))
    mask = (image[..., 0] > 128).astype(np.uint8)
    augmentation = Augmentation(**vars(NOTHING) | {"rotate": 40.0, "scale": (1.0, 1.0), "flip": 0.5})
    transform = TrainingTransform(SIZE, "crop", augmentation)
    padded = cv2.copyMakeBorder(mask, 0, 0, 0, 0, cv2.BORDER_CONSTANT)
    for seed in range(6):
        crop, labels = transform(image, padded, seed)
        kept = labels != 255
        # the mask follows the image exactly, up to the interpolation at its edges
        assert ((crop[..., 0] > 128) == (labels == 1))[kept].mean() > 0.97


def test_half_of_the_crops_show_a_rare_object() -> None:
    image, mask = np.zeros((2000, 2600, 3), np.uint8), np.zeros((2000, 2600), np.uint8)
    mask[1700:1706, 90:96] = 1
    transform = TrainingTransform(SIZE, "crop")
    crops = [transform(image, mask, seed)[1] for seed in range(60)]
    share = np.mean([(labels == 1).any() for labels in crops])
    assert share == pytest.approx(FOREGROUND_SHARE, abs=0.2)
    centers = [np.argwhere(labels == 1).mean(0) for labels in crops if (labels == 1).any()]
    assert np.std(centers, axis=0).min() > 4  # not always in the middle


def test_small_images_are_padded_and_lie_anywhere() -> None:
    image, mask = np.full((20, 31, 3), 200, np.uint8), np.ones((20, 31), np.uint8)
    transform = TrainingTransform(SIZE, "crop", NOTHING)
    places = set()
    for seed in range(8):
        crop, labels = transform(image, mask, seed)
        inside = np.argwhere(labels == 1)
        assert len(inside) == 20 * 31
        assert (crop[labels == 255] == 114).all()
        places.add(tuple(inside[0]))
    assert len(places) > 4


@pytest.mark.parametrize("mode", ["train", "val"])
def test_cached_samples_are_equal(tmp_path, mode) -> None:
    rows = draw_rows(tmp_path, [(150, 211), (33, 47)])
    transform = TrainingTransform(SIZE, "crop") if mode == "train" else None
    data = SegmentationDataset(rows, tmp_path, BINARY, SIZE, "crop", mode, transform=transform)
    plain = [data[(epoch, row)] for epoch in range(3) for row in range(2)]
    data.cache = PixelCache(tmp_path / "cache", mode, data.settings()).prepare()
    for _ in range(2):  # written, then read
        found = [data[(epoch, row)] for epoch in range(3) for row in range(2)]
        for one, other in zip(found, plain, strict=True):
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["mask"], other["mask"])
    assert sum(array.size for array in data.preprocess(0)) == data.preprocessed_bytes(0) == 4 * 150 * 211


def test_large_validation_images_are_drawn_small(run) -> None:
    drawn = cv2.imread(str(run / "images" / "epoch_001.png"))
    assert drawn.shape[1] <= 3 * MAX_SIDE + 100


def test_tiles_of_another_overlap() -> None:
    assert [place.start for place, _ in split_into_tiles(100, 40, 0.5)] == [0, 20, 40, 60]
