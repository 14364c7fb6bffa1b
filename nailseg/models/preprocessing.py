"""What the preprocessor_config.json of a folder that nailseg did not write asks for.

Mean and standard deviation are read by `models.pretrained`, because every use needs them. The rest matters
where the folder's own model predicts: training resizes as the data module says.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nailseg.errors import WeightsError
from nailseg.model_info import MAX_SIDE
from nailseg.models.pretrained import PREPROCESSOR_FILE, read_json

SQUARE = ("Segformer", "Beit", "ViT", "DPT")
"""Processors for which a whole number as `size` is that of both sides; MobileNetV2 means the shorter side."""
HONOURED = {"do_resize", "do_rescale", "do_normalize", "do_reduce_labels", "do_convert_rgb"}
UNSUPPORTED = {"rescale_offset", "keep_aspect_ratio", "crop_pct"}
BILINEAR = (2, "bilinear")
EDGES = {"shortest_edge": "shortest", "longest_edge": "keep"}


@dataclass(frozen=True)
class Preprocessing:
    """How images become the network's input."""

    image_size: int | list[int] = 512  # as `ModelInfo.image_size`
    resize: str = "keep"  # as `geometry.Resize`
    reduce_labels: bool = False  # mask value 0 is ignored and value k is class k - 1, as in ADE20K


def read_preprocessing(folder: Path) -> Preprocessing:
    """Reads a folder's preprocessor_config.json; without one, nailseg's own rule: longer side 512.

    `do_resize`, `do_reduce_labels` and all forms of `size` that transformers has had are honoured: height and
    width, shortest_edge, longest_edge, a whole number, a pair.

    Raises:
        WeightsError: for what is not: center crops, padding, bicubic resampling, sizes in several limits.
    """
    file = folder / PREPROCESSOR_FILE
    content = read_json(file)
    if content is None:
        return Preprocessing()
    reduce_labels = bool(content.get("do_reduce_labels", content.get("reduce_labels", False)))
    refused = {key for key in content if key.startswith("do_") and content[key]} - HONOURED
    refused |= {key for key in UNSUPPORTED if content.get(key)}
    if refused:
        raise WeightsError(_refusal(file, ", ".join(f"{key}: {content[key]}" for key in sorted(refused))))
    if not content.get("do_resize", True):
        return Preprocessing(resize="none", reduce_labels=reduce_labels)
    if content.get("resample", 2) not in BILINEAR:
        raise WeightsError(_refusal(file, f"resample: {content['resample']} (2, bilinear, is done)"))
    image_size, resize = _read_size(file, content)
    return Preprocessing(image_size, resize, reduce_labels)


def _read_size(file: Path, content: dict[str, Any]) -> tuple[int | list[int], str]:
    kind = str(content.get("image_processor_type") or content.get("feature_extractor_type") or "Segformer")
    kind = re.sub(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", kind)
    size = content.get("size", 512 if kind == "Segformer" else None)  # transformers' default
    if isinstance(size, int) and kind in SQUARE:
        size = [size, size]
    elif isinstance(size, int) and kind == "MobileNetV2":
        size = {"shortest_edge": size}
    if isinstance(size, dict) and size.keys() == {"height", "width"}:
        size = [size["height"], size["width"]]
    sides = list(size.values()) if isinstance(size, dict) else size
    if isinstance(sides, list) and all(isinstance(side, int) and 1 <= side <= MAX_SIDE for side in sides):
        if isinstance(size, list) and len(size) == 2:
            return (size[0] if size[0] == size[1] else size), "squash"
        if isinstance(size, dict) and len(size) == 1 and (edge := next(iter(size))) in EDGES:
            return size[edge], EDGES[edge]
    raise WeightsError(_refusal(file, f"size: {content.get('size')} of {kind}"))


def _refusal(file: Path, found: str) -> str:
    return (
        f"{file}: expected preprocessing that nailseg can do, found {found}. Fine-tune these weights "
        f"(nailseg fit, which resizes by itself), or change the file if the difference does not matter."
    )
