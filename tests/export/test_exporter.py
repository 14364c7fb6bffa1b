"""Exports compared with torch, and read by the runtimes directly."""

import concurrent.futures
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image
from transformers import pipeline

import nailseg
from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.errors import ConfigError, DataError, WeightsError
from nailseg.export import benchmark, exporter
from nailseg.inference.backends import find_exported_file
from nailseg.inference.backends import openvino as openvino_backend
from nailseg.model_info import ModelInfo
from nailseg.models.efficientnet import EfficientNet
from nailseg.models.loading import quiet_transformers
from nailseg.models.segformer import SegFormer
from nailseg.models.vit import ViT

SHAPES = [(64, 64), (37, 90), (130, 71), (5, 48)]


def draw_images(shapes=SHAPES) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (5, 5, 3), dtype=np.uint8) for _ in shapes]
    return [cv2.resize(a, s[::-1], interpolation=cv2.INTER_CUBIC) for a, s in zip(small, shapes, strict=True)]


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory) -> Path:
    """A model folder with confident predictions of both classes."""
    network = SegFormer(str(tiny_folder), ["background", "nail"]).eval()
    classifier = network.hf.decode_head.classifier
    images = torch.from_numpy(draw_images([(64, 64)])[0]).permute(2, 0, 1)[None]
    with torch.no_grad():
        classifier.weight.mul_(30)
        logits = network(images)
        classifier.bias[1] -= (logits[:, 1] - logits[:, 0]).median()
    network.origin = {"weights": "w", "licence": "a licence"}
    info = model_folder.describe_network(network, image_size=64)
    info.mask_values = MaskEncoding(
        ((0, 0), (255, 1)), ("background", "nail")
    ).to_dict()  # as a run writes them
    return model_folder.save_model_folder(tmp_path_factory.mktemp("export") / "tiny", network, info)


@pytest.fixture(scope="module")
def onnx(model) -> Path:
    out = model.parent / "onnx"
    assert main(["export", str(model), "--format", "onnx", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def openvino(model) -> Path:
    out = model.parent / "openvino"
    assert main(["export", str(model), "--format", "openvino", "--out", str(out)]) == 0
    return out


@pytest.fixture(params=["onnx", "openvino"])
def form(request) -> Path:
    return request.getfixturevalue(request.param)


def test_an_export_segments_as_the_model_does_at_any_size(form, model) -> None:
    ours, theirs = nailseg.load(model, "cpu"), nailseg.load(form)
    for image in draw_images():
        expected, found = ours(image), theirs(image)
        assert 0.01 < expected.mask.mean() < 0.99
        assert (expected.mask == found.mask).mean() >= 0.999
        assert np.abs(expected.probability - found.probability).max() < 1e-3
        assert found.mask.dtype == np.uint8
        assert found.probability.dtype == np.float32
    assert theirs.info.origin == ours.info.origin


def test_onnx_metadata_have_names_and_licence_but_no_path_of_this_machine(onnx) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx / "model.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["class_names"] == "background, nail"
    assert facts["licence"] == "a licence"
    assert json.loads(facts["nailseg"])["image_size"] == 64
    assert session.get_inputs()[0].shape == ["N", 3, "H", "W"]
    assert [o.name for o in session.get_outputs()] == ["mask", "probability"]
    content = (onnx / "model.onnx").read_bytes()
    assert b".py" not in content
    assert str(Path(nailseg.__file__).parents[1]).encode() not in content
    # 53 thousand parameters; the head is stored folded only
    assert len(content) < 400_000


def test_openvino_metadata_have_names_and_licence(openvino) -> None:
    import openvino as ov

    model = ov.Core().read_model(openvino / "model.xml")
    assert model.get_rt_info(["nailseg", "licence"]).astype(str) == "a licence"
    assert json.loads((openvino / "nailseg.json").read_text())["class_names"] == ["background", "nail"]


def test_bytes_images_and_batches_give_the_same_as_arrays(form, tmp_path) -> None:
    segment = nailseg.load(form)
    images = draw_images([*SHAPES, *SHAPES])
    file = io.BytesIO()
    Image.fromarray(images[0]).save(file, "PNG")
    assert np.array_equal(segment(file.getvalue()).image, images[0])
    assert np.array_equal(segment(Image.fromarray(images[0])).mask, segment(images[0]).mask)
    for image, result in zip(images, segment.batch(images), strict=True):
        assert np.array_equal(result.image, image)
        assert np.abs(result.probability - segment(image).probability).max() < 1e-5
    assert segment.batch([]) == []
    with pytest.raises(DataError, match=r"found list\. For several images: segment\.batch"):
        segment(images)
    with pytest.raises(DataError, match="the given bytes"):
        segment(b"no image")


def test_exported_models_are_thread_safe(form) -> None:
    segment = nailseg.load(form, threads=1)
    images = draw_images([*SHAPES] * 4)
    expected = [segment(image).probability for image in images]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: segment(image).probability, images))
    for one, other in zip(expected, found, strict=True):
        assert np.abs(one - other).max() < 1e-5


def test_frequent_sizes_get_a_static_graph(openvino, monkeypatch) -> None:
    segment = nailseg.load(openvino)
    image = draw_images()[1]
    found = [segment(image).probability for _ in range(4)]
    assert list(segment.backend.static) == [(1, 3, *image.shape[:2])]
    for shape in [(40, 40 + n) for n in range(8)] * 3:
        segment(np.zeros((*shape, 3), np.uint8))
    assert len(segment.backend.static) == 4
    monkeypatch.setattr(openvino_backend, "MAX_COUNTED_SHAPES", 5)
    for width in range(40, 60):
        segment(np.zeros((40, width, 3), np.uint8))
    assert len(segment.backend.shape_counts) <= 5
    for probability in found:
        assert np.abs(probability - found[0]).max() < 1e-5


def test_predict_needs_no_torch(form, model, tmp_path) -> None:
    Image.fromarray(draw_images()[1]).save(tmp_path / "a.png")
    code = (
        "import sys\nfrom nailseg.cli.main import main\nassert main(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'transformers', 'lightning', 'albumentations', 'matplotlib', 'wandb'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    args = ["predict", str(tmp_path / "a.png"), "--model", str(form), "--out", str(tmp_path / "out")]
    printed = subprocess.run(
        [sys.executable, "-c", code, *args], check=True, capture_output=True, text=True
    ).stdout
    assert printed.strip() == "[]"
    mask = cv2.imread(str(tmp_path / "out" / "a.png"), cv2.IMREAD_UNCHANGED)
    expected = nailseg.load(model, "cpu")(tmp_path / "a.png").mask * 255
    assert (mask == expected).mean() >= 0.999


def test_verb_test_measures_the_exported_graph(onnx, model, drawn, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, weights in (("torch", model), ("onnx", onnx / "model.onnx")):
        args = ["--model.weights", str(weights), "--data.csv", str(drawn / "dataset.csv"), "--name", name]
        trainer = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
        assert main(["test", *args, "--data.workers", "0", *trainer]) == 0, capsys.readouterr().err
        found[name] = json.loads((tmp_path / "runs" / name / "test" / "metrics.json").read_text())
    for number in ("n_images", "iou_nail", "dice_nail", "miou", "pixel_accuracy"):
        assert found["onnx"][number] == pytest.approx(found["torch"][number], abs=2e-3)
    assert main(["test", *args, "--data.eval_size", "96"]) == 1
    assert "whose size, 64 pixels, and resize rule are its own" in capsys.readouterr().err


def test_an_export_that_differs_is_not_kept(model, tmp_path, monkeypatch, capsys) -> None:
    write = exporter.write_openvino

    def write_another(folder, network, info, precision="fp32"):
        with torch.no_grad():
            network = SegFormer(str(model))
            network.hf.decode_head.classifier.bias[1] += 1e-2
        write(folder, network, info, precision)

    monkeypatch.setitem(exporter.WRITERS, "openvino", write_another)
    assert main(["export", str(model), "--format", "openvino", "--out", str(tmp_path / "out")]) == 1
    assert re.search(
        r"differs from torch: masks agree on \d+\.\d+ %, probabilities within 2\.\de-03; expected 99.9 %",
        capsys.readouterr().err,
    )
    assert list(tmp_path.iterdir()) == []


def copies_of(folder: Path):
    """Replaces the exporter, which takes seconds."""
    return lambda target, *_, **__: shutil.copytree(folder, target, dirs_exist_ok=True)


def test_lower_precision_requires_a_measured_loss(
    model, openvino, drawn, tmp_path, monkeypatch, capsys
) -> None:
    args = ["export", str(model), "--format", "openvino", "--precision", "fp16", "--out"]
    assert main([*args, str(tmp_path / "unmeasured")]) == 1
    assert "expected --csv CSV, whose test rows measure the loss; found no --csv" in capsys.readouterr().err
    assert main(["export", str(model), "--format", "onnx", "--precision", "bf16", "--out", "x"]) == 1
    assert "--precision bf16: expected --format openvino, found --format onnx" in capsys.readouterr().err
    csv = ["--csv", str(drawn / "dataset.csv")]
    assert main([*args, str(tmp_path / "half"), *csv]) == 0
    assert re.search(r"foreground IoU on 6 test images 0\.\d{4} -> 0\.\d{4}", capsys.readouterr().out)
    sizes = [(folder / "model.bin").stat().st_size for folder in (tmp_path / "half", openvino)]
    assert sizes[0] < 0.6 * sizes[1]
    monkeypatch.setitem(exporter.WRITERS, "openvino", copies_of(openvino))
    assert main([*args, str(tmp_path / "lossy"), *csv, "--max-drop", "-1"]) == 1
    assert "expected a loss of at most -1.0 (--max-drop)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["half"]


def test_fp16_onnx_file_segments_alike(model, onnx, drawn, tmp_path, capsys) -> None:
    args = [
        "export",
        str(model),
        "--format",
        "onnx",
        "--precision",
        "fp16",
        "--csv",
        str(drawn / "dataset.csv"),
    ]
    assert main([*args, "--out", str(tmp_path / "half")]) == 0
    assert "foreground IoU on 6 test images" in capsys.readouterr().out
    import onnx as library

    for folder, kind in ((onnx, library.TensorProto.FLOAT), (tmp_path / "half", library.TensorProto.FLOAT16)):
        weights = library.load(folder / "model.onnx").graph.initializer
        kinds = [weight.data_type for weight in weights if math.prod(weight.dims) >= 1000]
        assert kinds
        assert set(kinds) == {kind}
    for image in draw_images():
        whole, half = nailseg.load(onnx)(image), nailseg.load(tmp_path / "half")(image)
        assert np.abs(whole.probability - half.probability).max() < 0.1  # confident: weights times 30


def test_model_folder_in_the_pipeline_of_transformers(model) -> None:
    with quiet_transformers():
        segment = pipeline("image-segmentation", model=str(model), device="cpu")
    ours = nailseg.load(model, "cpu")
    for image in draw_images():
        # the pipeline squashes, so that only squares of the model's size are comparable
        square = cv2.resize(image, (64, 64))
        mask = np.zeros((64, 64), np.uint8)
        for part in segment(Image.fromarray(square)):
            mask[np.asarray(part["mask"]) > 0] = ours.class_names.index(part["label"])
        assert (mask == ours(square).mask).mean() >= 0.999


def test_push_uploads_the_whole_folder_to_a_private_repository(
    model, onnx, tmp_path, monkeypatch, capsys
) -> None:
    calls = []

    def create_repo(self, repo_id, private, exist_ok):
        calls.append((repo_id, private, exist_ok))
        return f"the hub/{repo_id}"

    def upload_folder(self, repo_id, folder_path):
        calls.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    def offline(*args, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.setitem(exporter.WRITERS, "onnx", copies_of(onnx))
    args = ["export", str(model), "--format", "onnx", "--push", "me/nails", "--out"]
    assert main([*args, str(tmp_path / "a")]) == 0
    assert calls == [("me/nails", True, True), ("me/nails", ["README.md", "model.onnx"])]
    assert "the hub/me/nails" in capsys.readouterr().out
    monkeypatch.setattr(HfApi, "create_repo", offline)
    assert main([*args, str(tmp_path / "b")]) == 1
    message = capsys.readouterr().err
    assert "--push me/nails: expected to reach the Hugging Face hub" in message
    assert "ConnectionError: no network" in message
    assert (tmp_path / "b" / "model.onnx").exists()


def test_loss_is_measured_on_antialiased_masks_too(drawn, tmp_path) -> None:
    for path in (drawn / "Masks").rglob("*.png"):
        soft = cv2.GaussianBlur(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (5, 5), 1.0)
        (tmp_path / path.relative_to(drawn)).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / path.relative_to(drawn)), soft)
    shutil.copytree(drawn / "Images", tmp_path / "Images")
    shutil.copy(drawn / "dataset.csv", tmp_path)

    class Nothing:
        values = MaskEncoding(((0, 0), (255, 1)), ("background", "nail"), antialiased=True)
        info = ModelInfo(["background", "nail"], mask_values=values.to_dict())

        def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            shape = (len(images), 2, *images.shape[1:3])
            return np.zeros(images.shape[:3], np.uint8), np.zeros(shape, np.float32)

    printed = exporter.measure_loss(Nothing(), Nothing(), str(tmp_path / "dataset.csv"), None, 0.01)
    assert printed == "foreground IoU on 6 test images 0.0000 -> 0.0000"


def test_a_plain_vit_exports_too(tmp_path) -> None:
    torch.manual_seed(0)
    network = ViT("vit-tiny-32-random", ["background", "nail"]).eval()
    network.new_head = False
    info = model_folder.describe_network(network, image_size=32)
    info.resize = "squash"
    folder = model_folder.save_model_folder(tmp_path / "vit", network, info)
    image = draw_images()[1]
    expected = nailseg.load(folder, "cpu")(image)
    for form in ("onnx", "openvino"):
        assert main(["export", str(folder), "--format", form, "--out", str(tmp_path / form)]) == 0
        found = nailseg.load(tmp_path / form)(image)
        assert np.abs(expected.probability - found.probability).max() < 1e-3


def test_bench_of_a_network_that_transformers_does_not_know(monkeypatch, tmp_path, onnx, openvino) -> None:
    network = EfficientNet.from_config({"variant": "lite0", "width": 8}, ["background", "nail"])
    info = model_folder.describe_network(network, image_size=64)
    folder = model_folder.save_model_folder(tmp_path / "cnn", network, info)
    monkeypatch.setattr(benchmark, "WRITERS", {"onnx": copies_of(onnx), "openvino": copies_of(openvino)})
    _, _, openers = benchmark._forms(folder, 64, tmp_path)
    assert list(openers)[:2] == ["torch", "onnx"]


# slow, because a process with OpenVINO loaded may die after it when it starts another
@pytest.mark.slow
def test_bench_compares_all_forms(model, onnx, openvino, tmp_path, monkeypatch, capsys) -> None:
    # exporting and starting processes has its own tests
    monkeypatch.setattr(benchmark, "WRITERS", {"onnx": copies_of(onnx), "openvino": copies_of(openvino)})
    monkeypatch.setattr(benchmark, "_probe", lambda *_: (100.0, 1.0, 0.2))
    out = tmp_path / "bench"
    assert main(["bench", str(model), "--threads", "1", "--repeats", "2", "--out", str(out)]) == 0
    rows = json.loads((out / "bench.json").read_text())
    assert [row["form"] for row in rows][:4] == ["transformers", "torch", "onnx", "openvino"]
    assert rows[0]["ratio"] == 1
    assert all(row["p95"] >= row["median"] > 0 for row in rows)
    assert all(row["agreement"] > 0.999 for row in rows[:4])
    assert (out / "bench.svg").read_text().startswith("<svg")
    assert "/s" in capsys.readouterr().out


# slow, because a process with OpenVINO loaded may die after it when it starts another
@pytest.mark.slow
def test_bench_of_an_exported_file(onnx, capsys) -> None:
    assert main(["bench", str(onnx), "--threads", "1", "--repeats", "1", "--size", "48"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"onnx +1 .* MiB +\d+\.\d s +\d\.\d MiB", line)


def test_unsupported_uses_of_an_export_are_refused(form, tmp_path, monkeypatch) -> None:
    segment = nailseg.load(form)
    with pytest.raises(ConfigError, match=r"expected the size 64, which is fixed in .*, found 96"):
        segment.backend(draw_images()[0][None], 96)
    with pytest.raises(ConfigError, match="--device cuda: expected cpu"):
        nailseg.load(form, "cuda")
    with pytest.raises(ConfigError, match="--threads: expected 1 or more, found 0"):
        nailseg.load(form, threads=0)
    broken = tmp_path / find_exported_file(form).name
    with pytest.raises(WeightsError, match="expected an exported model, found nothing"):
        nailseg.load(broken)
    broken.write_bytes(b"rubbish")
    shutil.copy(Path(form) / "README.md", tmp_path)
    if (form / "nailseg.json").exists():
        shutil.copy(form / "nailseg.json", tmp_path)
    with pytest.raises(WeightsError, match="cannot be opened as an"):
        nailseg.load(broken)
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'nailseg[export]'")):
        nailseg.load(form)


def test_onnx_file_of_another_program_is_refused(onnx, tmp_path) -> None:
    import onnx as library

    content = library.load(onnx / "model.onnx")
    del content.metadata_props[:]
    library.save(content, tmp_path / "model.onnx")
    with pytest.raises(WeightsError, match="expected a file exported by nailseg with class names"):
        nailseg.load(tmp_path)


def test_an_export_is_not_exported_again(form, tmp_path, capsys) -> None:
    for target in ("openvino", "onnx"):
        assert main(["export", str(form), "--format", target, "--out", str(tmp_path / "again")]) == 1
        assert "expected a model folder or a checkpoint, found the export" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_export_cannot_be_trained(openvino, drawn, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["--model.weights", str(openvino), "--data.csv", str(drawn / "dataset.csv"), "--data.workers", "0"]
    assert main(["fit", *args, "--trainer.accelerator", "cpu", "--data.size", "64"]) == 1
    assert "expected weights that can be trained, found an exported model" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_documented_example_without_nailseg(onnx, model, tmp_path, monkeypatch, capsys) -> None:
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "onnxruntime" in b]
    assert len(code.splitlines()) <= 15
    assert "nailseg" not in code
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw_images()[2]).save("hand.png")
    exec(code.replace("onnx/model.onnx", str(onnx / "model.onnx")).replace("hand.jpg", "hand.png"), {})
    written = np.asarray(Image.open("mask.png"))
    expected = nailseg.load(model, "cpu")("hand.png")
    assert (written == 255 * expected.mask).mean() >= 0.999
    assert f"nail {expected.mask.mean():.1%}" in capsys.readouterr().out


def test_sigterm_leaves_no_partial_export(mixed_model, tmp_path, monkeypatch) -> None:
    def killed(folder: Path, *_: object) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setitem(exporter.WRITERS, "onnx", killed)
    before = signal.getsignal(signal.SIGTERM)
    line = ["export", str(mixed_model), "--format", "onnx", "--out", str(tmp_path / "onnx")]
    assert main(line) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before
