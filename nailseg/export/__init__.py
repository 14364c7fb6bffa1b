"""Exports: a model as one ONNX or OpenVINO graph, from uint8 image to mask and probability.

`graph` builds and writes the graph, `rewrites` and `resampling` replace operations that an exported graph
cannot express for every size, `exporter` compares the result with torch before it is kept, and `benchmark`
times all forms of a model side by side.
"""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names

if TYPE_CHECKING:
    from nailseg.export.exporter import export_model

__all__ = ["export_model"]
__getattr__ = lazy_names(__name__, "exporter.export_model")
