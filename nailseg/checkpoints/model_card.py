"""The model folder's README.md: what the model is, how good, and under which licence its weights came."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nailseg.model_info import ModelInfo


def model_card(name: str, info: ModelInfo, library: str = "transformers") -> str:
    """The README.md of a model folder, or of an export for another library (onnx, openvino)."""
    licence = info.origin.get("licence", "unknown")
    between = info.metrics.get("intervals", {})
    numbers = [
        f"| {key} | {value:.4f} | {'{:.3f} to {:.3f}'.format(*between[key]) if between.get(key) else ''} |"
        for key, value in info.metrics.items()
        if isinstance(value, float) and key != "surface_tolerance"
    ]
    measured = (
        f"On {info.metrics['n_images']} held-out test images, at the masks' original size, with bootstrap\n"
        "95 % intervals over the images:\n\n"
        "| number | value | interval |\n| --- | --- | --- |\n" + "\n".join(numbers)
        if info.metrics
        else "Not tested: run `nailseg test` on held-out images before you rely on it."
    )
    data = "\n".join(f"- {key}: {value}" for key, value in info.data.items()) or "- not recorded"
    kind = {"vit": "plain ViT", "auto": "network of transformers"}.get(info.architecture, "SegFormer")
    loader = "AutoModelForSemanticSegmentation" if kind != "SegFormer" else "SegformerForSemanticSegmentation"
    plain = f'Plain transformers loads the folder too: `{loader}.from_pretrained("{name}")`.'
    if info.architecture == "vit":
        plain = "Plain transformers does not know this network."
    trained = f"the longer side at {info.image_size} pixels (resize rule: {info.resize})"
    plain += (
        f" Trained with {trained}; transformers' own image\nprocessor squashes instead, which changes the "
        "result for images that are not square."
    )
    if library != "transformers":
        plain = (
            "Or without nailseg: input `image`, uint8 (N, 3, H, W), RGB, any size; outputs `mask`, uint8 "
            f"(N, H, W),\nand `probability`, float32 (N, C, H, W), at that size. Inside, {trained}."
        )
    return f"""---
library_name: {library}
pipeline_tag: image-segmentation
tags: [{info.architecture}, nailseg]
---
# {name}

A {kind} that segments {", ".join(info.class_names[1:])} from {info.class_names[0]}, fine-tuned with
nailseg {info.version}.

## Use

```python
import nailseg
result = nailseg.load("{name}")("photo.jpg")   # result.mask, result.probability, result.overlay()
```

{plain}

## Intended use

ScanResult {", ".join(info.class_names[1:])} in photographs like those it was trained on: to count, measure,
recolour or check them by eye. Not for diagnoses, not for recognising persons, and not where an
unseen mistake does harm.

## Limits

What the training images do not show was not learned: look at results on your own camera, light, distance,
skin tones, nail shapes and polishes before you rely on it. The numbers below say nothing about groups of
people that they do not name. Things that touch come out as one. Objects much smaller than in training are
missed; cut large images into tiles.

## How good

{measured}

## Data

{data}

## Licence

Started from: {info.origin.get("weights", "unknown")}. Licence of those weights: **{licence}**. What is
fine-tuned from non-commercial weights is non-commercial too.
"""
