import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import nailseg
from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.errors import ConfigError, DataError, WeightsError
from nailseg.inference import sources
from nailseg.models.segformer import SegFormer


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory):
    torch.manual_seed(1)
    network = SegFormer(str(tiny_folder), ["background", "nail"])
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return model_folder.save_model_folder(
        folder, network, model_folder.describe_network(network, image_size=64)
    )


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in {
        "a.jpg": (40, 60),
        "a.png": (33, 31),
        "sub/b.JPG": (64, 64),
        "sub/c.webp": (50, 20),
    }.items():
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_folder_structure_and_suffix_of_shared_stems(model, photos, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(photos), "--model", str(model), "--out", str(out)]) == 0
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        "a.jpg.png",
        "a.png.png",
        "sub/b.png",
        "sub/c.png",
    }
    assert cv2.imread(str(out / "sub" / "c.png"), cv2.IMREAD_UNCHANGED).shape == (50, 20)
    assert capsys.readouterr().err.count("keep the suffix") == 1


def test_globs_are_relative_to_their_fixed_part(photos, tmp_path) -> None:
    found = sources.find_images([f"{photos}/**/*.[jJ][pP][gG]"], tmp_path / "out")
    assert sorted(p.as_posix() for p in found.values()) == ["a.jpg", "sub/b.JPG"]


def test_two_images_with_the_same_mask(photos, tmp_path) -> None:
    (photos / "b.JPG").write_bytes((photos / "sub" / "b.JPG").read_bytes())
    with pytest.raises(ConfigError, match=r"would both write b\.JPG\.png\. Give the folder above them"):
        sources.name_masks(
            sources.find_images([str(photos / "b.JPG"), str(photos / "sub")], tmp_path / "out")
        )


def test_kept_suffix_that_equals_another_name(photos, tmp_path) -> None:
    (photos / "a.jpg.png").write_bytes((photos / "a.png").read_bytes())
    with pytest.raises(ConfigError, match=r"would both write a\.jpg\.png"):
        sources.name_masks(sources.find_images([str(photos)], tmp_path / "out"))


def test_existing_overlay_is_not_overwritten(model, photos, tmp_path, capsys) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.overlay.jpg").write_text("mine")
    args = [
        "predict",
        str(photos / "a.jpg"),
        "--model",
        str(model),
        "--out",
        str(tmp_path / "out"),
        "--overlay",
    ]
    assert main(args) == 1
    assert "a.overlay.jpg" in capsys.readouterr().err


def test_unknown_device(model) -> None:
    with pytest.raises(ConfigError, match="--device: expected a device of this machine, found 'nonsense'"):
        nailseg.load(model, device="nonsense")


def test_out_is_the_folder_of_the_images(photos) -> None:
    with pytest.raises(ConfigError, match=r"--out .*: expected a folder apart from the images"):
        sources.find_images([str(photos / "sub")], photos / "sub")


def test_existing_masks_are_not_overwritten(model, photos, tmp_path, capsys) -> None:
    args = ["predict", str(photos / "a.jpg"), "--model", str(model), "--out", str(tmp_path / "out")]
    assert main(args) == 0
    assert main(args) == 1
    assert "1 of the files to write exist already (the first: a.png)" in capsys.readouterr().err


def test_out_inside_the_searched_folder_is_not_searched(model, photos) -> None:
    out = photos / "masks"
    assert main(["predict", str(photos), "--model", str(model), "--out", str(out)]) == 0
    assert len(sources.find_images([str(photos)], out)) == 4


def test_broken_file_does_not_stop_the_others(model, photos, tmp_path, capsys) -> None:
    (photos / "sub" / "broken.jpg").write_bytes((photos / "a.jpg").read_bytes()[:200])
    assert main(["predict", str(photos), "--model", str(model), "--out", str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err
    assert "not done: " in errors
    assert "broken.jpg" in errors
    assert "Traceback" not in errors
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4


def test_index_writes_class_indices(model, photos, tmp_path) -> None:
    args = [
        "predict",
        str(photos / "a.jpg"),
        "--model",
        str(model),
        "--out",
        str(tmp_path / "out"),
        "--index",
    ]
    assert main(args) == 0
    assert set(np.unique(cv2.imread(str(tmp_path / "out" / "a.png"), cv2.IMREAD_UNCHANGED))) <= {0, 1}


def test_path_array_and_pil_give_the_same_result(model, photos) -> None:
    segment = nailseg.load(model, device="cpu")
    with Image.open(photos / "a.png") as image:
        results = [segment(p) for p in (photos / "a.png", str(photos / "a.png"), image, np.array(image))]
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
            WeightsError, match=rf"--model {name}: expected nailseg-b0, a model folder, a run"
        ):
            nailseg.load(name)


def test_untrained_model_is_refused() -> None:
    with pytest.raises(WeightsError, match="expected a trained classifier"):
        nailseg.load("b0", device="cpu")


def test_threshold(model, photos, tmp_path, capsys) -> None:
    image = str(photos / "sub" / "b.JPG")
    probability = nailseg.load(model)(image).probability[1]
    middle = float(np.median(probability))
    out = tmp_path / "out"
    assert main(["predict", image, "--model", str(model), "--out", str(out), f"--threshold={middle}"]) == 0
    written = cv2.imread(str(out / "b.png"), cv2.IMREAD_UNCHANGED)
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
    with pytest.raises(ConfigError, match="from 0 to 1"):
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
    with pytest.raises(ConfigError, match="expected a probability from 0 to 1"):
        nailseg.load(model, device="cpu", threshold=1.5)
