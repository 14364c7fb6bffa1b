"""Folders that nailseg did not write: their preprocessor_config.json is honoured, or refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessorPil

import nailseg
from nailseg.cli.main import main
from nailseg.errors import WeightsError
from nailseg.imaging.geometry import network_size
from nailseg.models.preprocessing import Preprocessing, read_preprocessing


def write_processor(folder: Path, **content: object) -> Path:
    standard = {"image_processor_type": "SegformerImageProcessor", "image_mean": [0.4, 0.5, 0.6]}
    standard |= {"image_std": [0.2, 0.25, 0.3], "size": {"height": 96, "width": 96}}
    (folder / "preprocessor_config.json").write_text(json.dumps(standard | content))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SegFormer whose output depends on the scale of what it sees."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("foreign")
    config = SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 16], num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=16, id2label={0: "background", 1: "road", 2: "car"},
    )  # fmt: skip
    network = SegformerForSemanticSegmentation(config).eval()
    torch.nn.init.normal_(network.decode_head.classifier.weight, std=5.0)
    network.save_pretrained(folder)
    return folder


def draw_image(height: int = 120, width: int = 173) -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (9, 13, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


FORMS = {
    "height and width": ({"size": {"height": 96, "width": 96}}, Preprocessing(96, "squash")),
    "not square": ({"size": {"height": 64, "width": 128}}, Preprocessing([64, 128], "squash")),
    "a whole number": ({"size": 128}, Preprocessing(128, "squash")),
    "a pair": ({"size": [128, 128]}, Preprocessing(128, "squash")),
    "another image": ({"do_resize": False, "size": 128}, Preprocessing(512, "none")),
    "no normalisation": ({"do_normalize": False}, Preprocessing(96, "squash")),
    "no rescaling": (
        {"do_rescale": False, "image_mean": [100, 120, 130], "image_std": [60, 60, 60]},
        Preprocessing(96, "squash"),
    ),
    "another factor": ({"rescale_factor": 1 / 127.5}, Preprocessing(96, "squash")),
    "labels": ({"do_reduce_labels": True}, Preprocessing(96, "squash", reduce_labels=True)),
    "old names": (
        {"image_processor_type": None, "feature_extractor_type": "SegformerFeatureExtractor",
         "size": 96, "reduce_labels": True},
        Preprocessing(96, "squash", reduce_labels=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_masks_equal_those_of_transformers(weights: Path, form: str) -> None:
    content, expected = FORMS[form]
    folder = write_processor(weights, **content)
    assert read_preprocessing(folder) == expected
    # of a multiple of 32 where nothing is resized: nailseg pads other sizes
    image = draw_image(96, 160) if form == "another image" else draw_image()
    found = nailseg.load(folder, device="cpu")(image)
    truth = segment_with_transformers(folder, image)
    assert truth.std((1, 2)).max() > 1e-3
    assert (found.mask == truth.argmax(0)).mean() >= 0.99
    # Pillow rounds the resized image to whole grey levels
    assert np.abs(found.probability - truth).mean() < 0.01
    assert found.class_names == ["background", "road", "car"]


def segment_with_transformers(folder: Path, image: np.ndarray) -> np.ndarray:
    """Probabilities (C, H, W) of transformers' own processor and network."""
    processor = SegformerImageProcessorPil.from_pretrained(folder)
    network = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = network(**processor(image, return_tensors="pt")).logits
    logits = torch.nn.functional.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=False)
    return logits.softmax(1)[0].numpy()


@pytest.mark.parametrize(
    ("size", "kind", "height", "width", "expected"),
    [
        ({"shortest_edge": 256}, "ConvNext", 480, 640, (256, 341)),
        ({"shortest_edge": 256}, "ConvNext", 641, 480, (341, 256)),
        (256, "MobileNetV2", 480, 640, (256, 341)),
        ({"longest_edge": 256}, "Idefics", 480, 640, (192, 256)),
        (256, "Beit", 480, 640, (256, 256)),
    ],
)
def test_sizes_of_one_side(tmp_path: Path, size, kind: str, height: int, width: int, expected) -> None:
    write_processor(tmp_path, size=size, image_processor_type=f"{kind}ImageProcessor")
    found = read_preprocessing(tmp_path)
    assert network_size(height, width, found.image_size, found.resize) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"do_center_crop": True}, "do_center_crop: True"),
        ({"do_pad": True, "do_flip_channel_order": True}, "do_flip_channel_order: True, do_pad: True"),
        ({"resample": 3}, r"resample: 3 \(2, bilinear, is done\)"),
        ({"keep_aspect_ratio": True}, "keep_aspect_ratio: True"),
        ({"rescale_offset": 1}, "rescale_offset: 1"),
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, "size: .*1333"),
        ({"size": {"height": 96}}, "size: .*96"),
        ({"size": -5}, "size: -5"),
        ({"size": 0}, "size: 0"),
        ({"size": "large"}, "size: large"),
        ({"size": [96.5, 96]}, "size: "),
        ({"size": 224, "image_processor_type": "ConvNextImageProcessor"}, "size: 224 of ConvNext"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(weights: Path, content: dict, words: str) -> None:
    folder = write_processor(weights, **content)
    with pytest.raises(WeightsError, match=rf"preprocessor_config.json: expected .* found {words}"):
        nailseg.load(folder)


def test_predict_test_and_export_agree(weights: Path, drawn, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    folder = str(write_processor(weights, size={"shortest_edge": 64}))
    image = draw_image(80, 128)
    cv2.imwrite("a.png", image[..., ::-1])
    assert main(["predict", "a.png", "--model", folder, "--out", "masks"]) == 0
    assert main(["export", folder, "--format", "onnx", "--out", "onnx"]) == 0
    assert main(["predict", "a.png", "--model", "onnx", "--out", "exported"]) == 0
    first, second = (cv2.imread(f"{name}/a.png", cv2.IMREAD_UNCHANGED) for name in ("masks", "exported"))
    assert (first == second).mean() >= 0.999
    assert nailseg.load("onnx").info.resize == "shortest"


def test_training_needs_no_preprocessing_of_others(weights: Path) -> None:
    from nailseg.training import SegmentationTask

    folder = write_processor(weights, do_center_crop=True, resample=3)
    task = SegmentationTask(weights=str(folder), class_names=["background", "nail"], image_size=64)
    assert task.info().mean == pytest.approx([0.4, 0.5, 0.6])
    assert re.search("background", str(task.class_names))
