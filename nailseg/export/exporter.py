"""`nailseg export`: one model folder or checkpoint in; a plain transformers folder, ONNX or OpenVINO out.

Nothing takes its name before it has been run, on several sizes and batches, beside torch.
"""

from __future__ import annotations

from collections.abc import Sequence  # the command line reads the signature
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import cv2
import numpy as np
import torch
from tqdm import tqdm

from nailseg.checkpoints import model_folder
from nailseg.checkpoints.model_card import render_model_card
from nailseg.data.io.headers import IMAGE_SUFFIXES
from nailseg.data.io.images import read_image
from nailseg.data.synthetic.sample import draw_hand
from nailseg.errors import ConfigError, OutputError, WeightsError
from nailseg.export.graph import write_onnx, write_openvino
from nailseg.inference.backends.exported import find_exported_file, open_exported
from nailseg.inference.backends.torch import TorchBackend, open_torch
from nailseg.metrics.confusion import ConfusionMatrix, iou, mean_defined
from nailseg.model_info import locate
from nailseg.models.loading import quiet_transformers

if TYPE_CHECKING:
    from nailseg.inference.backends.base import Backend

Format = Literal["hf", "onnx", "openvino"]
Precision = Literal["fp32", "fp16", "bf16"]
PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "hf": ("fp32",),
    "onnx": ("fp32", "fp16"),
    "openvino": ("fp32", "fp16", "bf16"),
}
MASK_AGREEMENT, PROBABILITY_DIFFERENCE = 0.999, 1e-3
"""What an export must reach: least share of equal mask pixels, largest difference of any probability."""


class Difference(NamedTuple):
    """How far an export is from torch: least share of equal mask pixels, largest change of a probability."""

    mask: float
    probability: float

    def __str__(self) -> str:
        return f"masks agree on {100 * self.mask:.4f} %, probabilities within {self.probability:.1e}"


def export_model(
    model: str | Path,
    *,
    format: Format,
    out: str | Path,
    precision: Precision = "fp32",
    images: Sequence[str] = (),
    csv: str | None = None,
    root: str | None = None,
    max_drop: float = 0.005,
    push: str | None = None,
) -> str:
    """Writes an export, all of it or nothing.

    Args:
        model: a model folder, a checkpoint, a run folder or a segmentation checkpoint of the hub.
        format: hf, onnx or openvino.
        out: a folder that does not exist yet.
        precision: fp16 halves the file, of onnx and openvino; bf16 computes in bfloat16, openvino only. Both
            need `csv`.
        images: images, or folders of them, to compare on; drawn ones when empty.
        csv: a data set whose test rows say what the export costs; a lower precision needs it.
        root: folder that the CSV's paths start from, if not its own.
        max_drop: most foreground IoU (0..1) that a lower precision may cost.
        push: a repository of the Hugging Face hub (owner/name) to send the folder to.

    Returns:
        What was compared, in a sentence.

    Raises:
        WeightsError: the model cannot be opened, or its export differs; the figures are in the message, and
            nothing is left behind.
        ConfigError: options that do not go together, or the export extra is not installed.
        OutputError: the folder exists, or the hub cannot be reached.
    """
    if precision != "fp32" and (precision not in PRECISIONS[format] or csv is None):
        able = " or ".join(name for name, known in PRECISIONS.items() if precision in known)
        raise ConfigError(
            f"--precision {precision}: expected --format {able} and --csv CSV, whose test rows say what it "
            f"costs; found --format {format} and {'no --csv' if csv is None else csv}."
        )
    if format == "hf" and csv is not None:
        raise ConfigError(
            f"--csv {csv}: expected with --format onnx or openvino, whose graphs are measured on it, found "
            "hf, the very weights. Leave it out."
        )
    if file := find_exported_file(model):
        raise ConfigError(
            f"{model}: expected a model folder or a checkpoint, found the export {file}. Export the "
            f"model that it was made from."
        )
    reference = open_torch(locate(model), "cpu")
    with model_folder.new_folder(out) as scratch:
        if format == "hf":
            found = write_hf(scratch, Path(out).name, reference, images)
        else:
            if format == "onnx":
                write_onnx(scratch, reference.network, reference.info, precision)
            else:
                write_openvino(scratch, reference.network, reference.info, precision)
            (scratch / "README.md").write_text(render_model_card(Path(out).name, reference.info, format))
            file = find_exported_file(scratch)
            assert file is not None
            exported = open_exported(file)
            found = str(check(reference, exported, images, strict=precision == "fp32"))
            if csv is not None:
                found += "; " + measure_loss(reference, exported, csv, root, max_drop)
    if push:
        found += f"; sent to {push_folder(Path(out), push)}"
    return f"{out}: {found}"


def check(
    reference: Backend, exported: Backend, images: Sequence[str] = (), strict: bool = True
) -> Difference:
    """Runs an export beside torch: images of three sizes, alone and three at a time.

    Args:
        reference: torch's backend of the same model.
        exported: the export's.
        images: images, or folders of them; drawn hands when empty.
        strict: whether to refuse what is further off than rounding explains.

    Raises:
        WeightsError: it is further off, and by how much.
    """
    pictures = load_images(images)
    size = reference.info.image_size
    worst = Difference(1.0, 0.0)
    for height, width in ((size, size), (size // 2 + 7, size + 13), (2 * size + 1, 3 * size // 2)):
        resized = np.stack([cv2.resize(picture, (width, height)) for picture in pictures])
        for batch in (resized[:1], resized):
            (mask, probability), (mine, likely) = reference(batch), exported(batch)
            if mine.shape != mask.shape or likely.shape != probability.shape:
                raise WeightsError(
                    f"the export gives a mask of {mine.shape} for images of {batch.shape}; nothing is kept."
                )
            off = float(np.abs(probability - likely).max())
            worst = Difference(min(worst.mask, float((mask == mine).mean())), max(worst.probability, off))
    if strict and not (worst.mask >= MASK_AGREEMENT and worst.probability <= PROBABILITY_DIFFERENCE):
        raise WeightsError(
            f"the export differs from torch: {worst}; expected {100 * MASK_AGREEMENT} % and "
            f"{PROBABILITY_DIFFERENCE}. Nothing is kept; the model folder itself is as good as before."
        )
    return worst


def load_images(images: Sequence[str]) -> list[np.ndarray]:
    """Three images, uint8 (H, W, 3) RGB, of files and folders (repeated if there are fewer), or drawn."""
    if not images:
        rng = np.random.default_rng(0)
        return [draw_hand(rng, 256, fingers)[0] for fingers in (1, 4, 8)]
    files = [
        file
        for path in map(Path, images)
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.suffix.lower() in IMAGE_SUFFIXES or not path.is_dir()
    ]
    if not files:
        raise ConfigError(f"--images: expected images, found none in {', '.join(images)}.")
    return [read_image(files[number * len(files) // 3]) for number in range(3)]


def measure_loss(reference: Backend, exported: Backend, csv: str, root: str | None, max_drop: float) -> str:
    """Foreground IoU over the CSV's test rows before and after, in a sentence; refuses too large a loss."""
    from nailseg.data.datamodule import SegmentationDataModule
    from nailseg.data.mask_encoding import MaskEncoding

    names, values = reference.info.class_names, reference.info.mask_values
    data = SegmentationDataModule(csv, root, names, MaskEncoding.from_dict(values) if values else None)
    data.setup("test")
    dataset = data.dataset("test")
    counts = {backend: ConfusionMatrix(len(names)) for backend in (reference, exported)}
    for row in tqdm(range(len(dataset)), unit="image", desc="before and after"):
        image, mask = dataset.read(row)
        for backend, own in counts.items():
            own.update(torch.from_numpy(backend(image[None])[0]), torch.from_numpy(mask[None]).long())
    scores = [float(mean_defined(iou(own.compute())[1:])) for own in counts.values()]
    loss = scores[0] - scores[1]
    found = f"foreground IoU on {len(dataset)} test images {scores[0]:.4f} -> {scores[1]:.4f}"
    if not loss <= max_drop:
        raise WeightsError(
            f"{found}: expected a loss of at most {max_drop} (--max-drop), found {loss:.4f}. Nothing is "
            f"kept; export in fp32, or allow more."
        )
    return found


def write_hf(folder: Path, name: str, reference: TorchBackend, images: Sequence[str] = ()) -> str:
    """Writes a plain transformers folder, and compares transformers' own pipeline with nailseg.

    Args:
        folder: empty.
        name: for the model card.
        reference: the model in torch.
        images: as `check` takes them.

    Returns:
        How well the masks agree, in a sentence.

    Raises:
        WeightsError: they do not.
        ConfigError: a network that transformers does not have.
    """
    if reference.info.architecture == "vit":
        raise ConfigError(
            "--format hf: expected a network that transformers has, found the plain ViT. Take --format onnx."
        )
    from PIL import Image
    from transformers import pipeline

    inner = model_folder.save_model_folder(folder / name, reference.network, reference.info)
    with quiet_transformers():
        segment = pipeline("image-segmentation", model=str(inner), device="cpu")
    size, names = reference.info.image_size, reference.info.class_names
    agreement = 1.0
    for picture in load_images(images):
        square = cv2.resize(picture, (size, size))
        found = np.zeros((size, size), np.uint8)
        for part in segment(Image.fromarray(square)):
            found[np.asarray(part["mask"]) > 0] = names.index(part["label"])
        agreement = min(agreement, float((found == reference(square[None])[0][0]).mean()))
    shown = f"transformers' pipeline and nailseg agree on {100 * agreement:.4f} % of {size} x {size} pixels"
    if not agreement >= MASK_AGREEMENT:
        raise WeightsError(f"{shown}; expected {100 * MASK_AGREEMENT} %. Nothing is kept.")
    for file in inner.iterdir():
        file.rename(folder / file.name)
    inner.rmdir()
    return shown


def push_folder(folder: Path, repository: str) -> str:
    """Sends a folder to the Hugging Face hub; a repository that is new is private.

    Returns:
        The repository's address.

    Raises:
        OutputError: not reachable, not logged in, not allowed; the folder stays.
    """
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
