"""`nailseg export`: a model folder or checkpoint in, ONNX or OpenVINO out.

An export is compared with torch, on several sizes and batches, before its folder gets its name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from tqdm import tqdm

from nailseg.checkpoints import model_folder
from nailseg.checkpoints.model_card import render_model_card
from nailseg.data.io.images import read_image
from nailseg.data.pairing import list_images
from nailseg.data.synthetic.sample import draw_hand
from nailseg.errors import ConfigError, OutputError, WeightsError
from nailseg.export.graph import write_onnx, write_openvino
from nailseg.inference.backends import find_exported_file, open_exported
from nailseg.inference.backends.base import Backend
from nailseg.inference.backends.torch import open_torch
from nailseg.inference.tiling import predict_tiled
from nailseg.metrics.confusion import ConfusionMatrix, iou, mean_defined

WRITERS = {"onnx": write_onnx, "openvino": write_openvino}
MIN_AGREEMENT, MAX_DIFFERENCE = 0.999, 1e-3
"""Limits of a float32 export: smallest share of equal mask pixels, largest difference of a probability."""


def export_model(
    model: str | Path,
    /,
    *,
    format: Literal["onnx", "openvino"],
    out: str | Path,
    precision: Literal["fp32", "fp16", "bf16"] = "fp32",
    images: Sequence[str] = (),
    csv: str | None = None,
    root: str | None = None,
    max_drop: float = 0.005,
    push: str | None = None,
) -> str:
    """Exports a model to ONNX or OpenVINO; an export that differs from torch is not kept.

    Args:
        model: A model folder, checkpoint, run folder, shipped model, or SegFormer of the hub.
        format: Format of the export.
        out: New folder for the export.
        precision: Number format: fp16 halves the file, bf16 is for openvino only. Both need `csv`.
        images: Images, or folders of them, to compare on; drawn hands by default.
        csv: Data set whose test rows measure what a lower precision costs; required for fp16 and bf16.
        root: Folder that the CSV's paths are relative to; by default the CSV's own.
        max_drop: Largest loss of foreground IoU (0 to 1) that a lower precision may cause.
        push: Upload the folder to this repository (owner/name) of the Hugging Face hub.

    Raises:
        WeightsError: The model cannot be opened, or its export differs, with the figures; nothing is left.
        ConfigError: Options that exclude each other, or the export extra is not installed.
        OutputError: The folder exists, or the hub cannot be reached.
    """
    formats = ["openvino"] if precision == "bf16" else list(WRITERS)
    if format not in formats:
        expected = f"expected --format {' or '.join(formats)}, found --format {format}"
        raise ConfigError(f"--precision {precision}: {expected}.")
    if precision != "fp32" and csv is None:
        expected = "expected --csv CSV, whose test rows measure the loss; found no --csv"
        raise ConfigError(f"--precision {precision}: {expected}.")
    if file := find_exported_file(model):
        raise ConfigError(
            f"{model}: expected a model folder or a checkpoint, found the export {file}. Export the model "
            "that it was made from."
        )
    reference = open_torch(model, "cpu")
    with model_folder.new_folder(out) as scratch:
        WRITERS[format](scratch, reference.network, reference.info, precision)
        card = render_model_card(Path(out).name, reference.info, format)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        exported = open_exported(scratch)
        result = compare_with_torch(reference, exported, images, strict=precision == "fp32")
        if csv is not None:
            result += "; " + measure_loss(reference, exported, csv, root, max_drop)
    if push:
        result += f"; sent to {push_folder(Path(out), push)}"
    return f"{out}: {result}"


def compare_with_torch(
    reference: Backend, exported: Backend, images: Sequence[str] = (), strict: bool = True
) -> str:
    """Runs an export and torch on the same images: three sizes, one image and three in a batch.

    Returns the smallest share of equal mask pixels and the largest difference of a probability, as text.

    Args:
        reference: torch's backend of the same model.
        exported: the export's backend.
        images: as in `export_model`.
        strict: whether differences beyond rounding raise a `WeightsError` with the figures.
    """
    originals = load_images(images)
    size = reference.info.longest_side
    agreement, difference = 1.0, 0.0
    for height, width in ((size, size), (size // 2 + 7, size + 13), (2 * size + 1, 3 * size // 2)):
        resized = np.stack([cv2.resize(image, (width, height)) for image in originals])
        for batch in (resized[:1], resized):
            (mask, probability), (own_mask, own_probability) = reference(batch), exported(batch)
            if (own_mask.shape, own_probability.shape) != (mask.shape, probability.shape):
                raise WeightsError(
                    f"the export gives masks of {own_mask.shape} for {batch.shape} images; nothing is kept."
                )
            difference = max(difference, float(np.abs(probability - own_probability).max()))
            agreement = min(agreement, float((mask == own_mask).mean()))
    found = f"masks agree on {100 * agreement:.4f} %, probabilities within {difference:.1e}"
    if strict and not (agreement >= MIN_AGREEMENT and difference <= MAX_DIFFERENCE):
        raise WeightsError(
            f"the export differs from torch: {found}; expected {100 * MIN_AGREEMENT} % and {MAX_DIFFERENCE}. "
            "Nothing is kept; the model folder is unchanged."
        )
    return found


def load_images(images: Sequence[str]) -> list[np.ndarray]:
    """Three images, uint8 (H, W, 3) RGB, of files and folders (repeated if there are fewer), or drawn."""
    if not images:
        rng = np.random.default_rng(0)
        return [draw_hand(rng, 256, nails)[0] for nails in (1, 4, 8)]
    files: list[Path] = []
    for path in map(Path, images):
        files += [path / name for name in list_images(path)] if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"--images: expected images, found none in {', '.join(images)}.")
    return [read_image(files[number * len(files) // 3]) for number in range(3)]


def measure_loss(reference: Backend, exported: Backend, csv: str, root: str | None, max_drop: float) -> str:
    """Returns the foreground IoU of both over the CSV's test rows; `WeightsError` if it drops too much."""
    from nailseg.data.datamodule import SegmentationDataModule
    from nailseg.data.mask_encoding import MaskEncoding

    info = reference.info
    names, stored = info.class_names, info.mask_values
    encoding = MaskEncoding.from_dict(stored, "mask_values of the model") if stored else None
    data = SegmentationDataModule(csv, root, names, encoding, image_range=info.image_range or "full")
    data.setup("test")
    dataset = data.dataset("test")
    counts = {backend: ConfusionMatrix(len(names)) for backend in (reference, exported)}
    for row in tqdm(range(len(dataset)), unit="image", desc="measuring the loss"):
        image, mask = dataset.read(row)
        for backend, matrix in counts.items():
            predicted, _ = predict_tiled(backend, image)
            matrix.update(torch.from_numpy(predicted[None]), torch.from_numpy(mask[None]).long())
    before, after = (float(mean_defined(iou(matrix.compute())[1:])) for matrix in counts.values())
    result = f"foreground IoU on {len(dataset)} test images {before:.4f} -> {after:.4f}"
    if not before - after <= max_drop:
        raise WeightsError(
            f"{result}: expected a loss of at most {max_drop} (--max-drop), found {before - after:.4f}. "
            "Nothing is kept; export in fp32, or allow more."
        )
    return result


def push_folder(folder: Path, repository: str) -> str:
    """Uploads a folder to the Hugging Face hub, where a new repository is private; returns its address."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # the hub's, the connection's and the name check's have no common base
        raise OutputError(
            f"--push {repository}: expected to reach the Hugging Face hub and to be logged in, found "
            f"{type(error).__name__}: {error}. {folder} is complete; later: hf upload {repository} {folder}"
        ) from error
    return str(address)
