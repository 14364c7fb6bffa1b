"""Inference: images in, masks of their own size out.

`segmenter` opens a model and segments images in Python, `batch` writes the mask files of `nailseg predict`.
`sources` lists the images, `tiling` adds tiled inference and test-time augmentation, `polygons` lists the
objects of masks, and `backends` run the network: torch, ONNX Runtime or OpenVINO. The public names are
imported on first use; exported models run without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nailseg.inference.batch import predict_files
    from nailseg.inference.segmenter import Result, Segmenter, load

__all__ = ["Result", "Segmenter", "load", "predict_files"]

_LAZY = {
    "Result": "nailseg.inference.segmenter",
    "Segmenter": "nailseg.inference.segmenter",
    "load": "nailseg.inference.segmenter",
    "predict_files": "nailseg.inference.batch",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
