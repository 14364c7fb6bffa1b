import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import nailseg
from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.errors import ConfigError, DataError, WeightsError
from nailseg.models.segformer import SegFormer


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory):
    torch.manual_seed(1)
    network = SegFormer(str(tiny_folder), ["background", "nail"])
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return model_folder.save_model_folder(
        folder, network, model_folder.describe_network(network, image_size=64)
    )


def test_unknown_device(model) -> None:
    with pytest.raises(ConfigError, match="--device: expected a device of this machine, found 'nonsense'"):
        nailseg.load(model, device="nonsense")


def test_path_array_and_pil_give_the_same_result(model, photos) -> None:
    segment = nailseg.load(model, device="cpu")
    with Image.open(photos / "Images/e.png") as image:
        results = [
            segment(p)
            for p in (photos / "Images/e.png", str(photos / "Images/e.png"), image, np.array(image))
        ]
    for result in results:
        assert (result.mask == results[0].mask).all()
        assert (result.probability == results[0].probability).all()
    assert results[0].mask.dtype == np.uint8
    assert results[0].probability.dtype == np.float32
    assert (results[0].probability.argmax(0) == results[0].mask).all()


def test_unsupported_input(model) -> None:
    segment = nailseg.load(model, device="cpu")
    with pytest.raises(
        DataError,
        match=r"expected a path, a file's bytes, .*a uint8 array.*found float64 \(4, 4, 3\)",
    ):
        segment(np.zeros((4, 4, 3)))
    with pytest.raises(DataError, match="found NoneType"):
        segment(None)


def test_unknown_model() -> None:
    for name in ("nix", "nailseg-b1", "./runs/none/model"):
        with pytest.raises(
            WeightsError, match=rf"--model {name}: expected nailseg-lite0, nailseg-b0, a model folder, a run"
        ):
            nailseg.load(name)


def test_untrained_model_is_refused() -> None:
    with pytest.raises(
        WeightsError, match="--model b0-random: expected nailseg-lite0, nailseg-b0, a model folder"
    ):
        nailseg.load("b0-random", device="cpu")


def test_threshold(model, photos, tmp_path, capsys) -> None:
    image = str(photos / "Images/e.png")
    probability = nailseg.load(model)(image).probability[1]
    middle = float(np.median(probability))
    out = tmp_path / "out"
    assert main(["predict", image, "--model", str(model), "--out", str(out), f"--threshold={middle}"]) == 0
    written = cv2.imread(str(out / "e.png"), cv2.IMREAD_UNCHANGED)
    assert (written == 255 * (probability >= middle)).all()
    assert 0.4 < (written > 0).mean() < 0.6
    other = str(tmp_path / "other")
    assert main(["predict", image, "--model", str(model), "--out", other, "--threshold=model"]) == 1
    assert "--threshold model: expected a threshold in" in capsys.readouterr().err
    own = tmp_path / "own"
    network = nailseg.load(model).backend.network
    model_folder.save_model_folder(
        own, network, model_folder.describe_network(network, image_size=64, threshold=middle)
    )
    assert (nailseg.load(own, threshold="model")(image).mask == (probability >= middle)).all()
    with pytest.raises(ConfigError, match="expected a probability from 0 to 1"):
        nailseg.load(model, threshold=1.5)


@pytest.mark.parametrize("kind", ["sixteen bits", "transparent", "palette", "grey", "rotated"])
def test_pil_image_and_its_file_give_the_same_result(model, tmp_path, kind) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 52, 4), dtype=np.uint8)
    image = {
        "sixteen bits": Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
        "transparent": Image.fromarray(pixels),
        "palette": Image.fromarray(pixels[..., :3].copy()).quantize(16),
        "grey": Image.fromarray(pixels[..., 0].copy()),
        "rotated": Image.fromarray(pixels[..., :3].copy()),
    }[kind]
    exif = Image.Exif()
    exif[274] = 6 if kind == "rotated" else 1
    image.save(tmp_path / "a.png", exif=exif)
    segment = nailseg.load(model, device="cpu")
    from_file, from_pil = segment(tmp_path / "a.png"), segment(Image.open(tmp_path / "a.png"))
    assert np.array_equal(from_file.image, from_pil.image)
    assert np.array_equal(from_file.mask, from_pil.mask)


def test_invalid_arguments(model) -> None:
    segment = nailseg.load(model, device="cpu")
    with pytest.raises(DataError, match="found Pillow's mode F"):
        segment(Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(DataError, match="expected a list of images, found one"):
        segment.batch("a.png")
    with pytest.raises(ConfigError, match="--tile x: expected auto"):
        segment(np.zeros((64, 64, 3), np.uint8), tile="x")


def test_uncertainty_sorts_images_by_their_dice() -> None:
    """Calibrated probabilities of several sharpness: the estimate follows the true 1 - Dice."""
    rng, errors, estimates = np.random.default_rng(0), [], []
    coarse = cv2.resize(rng.normal(size=(8, 8)).astype(np.float32), (128, 128), interpolation=cv2.INTER_CUBIC)
    for sharpness in (0.5, 1, 2, 4, 8, 16):
        probability = 1 / (1 + np.exp(-sharpness * (coarse - 0.5)))
        truth, mask = rng.random(coarse.shape) < probability, probability > 0.5
        errors.append(1 - 2 * (truth & mask).sum() / (truth.sum() + mask.sum()))
        result = nailseg.Result(
            np.zeros((*coarse.shape, 3), np.uint8), mask.astype(np.uint8),
            np.stack([1 - probability, probability]), ["background", "nail"],
        )  # fmt: skip
        estimates.append(result.uncertainty())
    assert estimates == pytest.approx(errors, abs=0.03)
    empty = nailseg.Result(
        np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8),
        np.stack([np.ones((9, 9)), np.zeros((9, 9))]), ["background", "nail"],
    )  # fmt: skip
    assert empty.uncertainty() == 0
