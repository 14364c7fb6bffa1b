"""Inference: images in, masks of their own size out.

`segmenter` opens a model and segments images in Python, `batch` writes the mask files of `nailseg predict`.
`sources` lists the images, `tiling` adds tiled inference and test-time augmentation, `polygons` lists the
objects of masks, and `backends` run the network: torch, ONNX Runtime or OpenVINO (both without torch).
"""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names

if TYPE_CHECKING:
    from nailseg.inference.batch import predict_files
    from nailseg.inference.segmenter import Result, Segmenter, load

__all__ = ["Result", "Segmenter", "load", "predict_files"]
__getattr__ = lazy_names(
    __name__, "batch.predict_files", "segmenter.Result", "segmenter.Segmenter", "segmenter.load"
)
