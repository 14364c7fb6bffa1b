"""Exports: a model as one ONNX or OpenVINO graph, from uint8 image to mask and probability.

`graph` builds and writes the graph, `rewrites` and `resampling` replace operations that an exported graph
cannot express for every size, `exporter` compares the result with torch before it is kept, and `benchmark`
times all forms of a model side by side.
"""

from __future__ import annotations

from importlib import import_module

__all__ = ["export_model"]

_LAZY = {"export_model": "nailseg.export.exporter"}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
