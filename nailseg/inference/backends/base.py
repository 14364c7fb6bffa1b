"""The `Backend` protocol, and what the backends of exported files share."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from nailseg.errors import ConfigError, WeightsError
from nailseg.model_info import ModelInfo, parse_info


class Backend(Protocol):
    """Runs a network: torch, or the runtime of an exported file."""

    info: ModelInfo

    def __call__(self, images: np.ndarray, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Segments images of one size.

        Args:
            images: uint8 (N, H, W, 3), RGB.
            size: Pixels of the longer side of the network's input; None is the model's own, which for `crop`
                is the images'.

        Returns:
            Mask uint8 (N, H, W), class index, and probability float32 (N, C, H, W).
        """


class ExportedBackend:
    """Base of the backends of exported files: reads the metadata and converts the axis order.

    The graph of an exported file takes uint8 (N, 3, H, W) RGB images of any size and contains everything that
    follows: resizing, normalisation, the network, upsampling and softmax. `_run` maps them to mask and
    probability as `Backend` returns them.
    """

    def __init__(self, file: Path, metadata: str | None, source: str) -> None:
        """Parses the metadata, the JSON text of nailseg.json; `source` names its place in messages."""
        self.file = file
        if not metadata:
            raise WeightsError(
                f"{file}: expected a file exported by nailseg with class names in {source}, found none. "
                f"Run: nailseg export MODEL --format {'onnx' if file.suffix == '.onnx' else 'openvino'}"
            )
        self.info = parse_info(metadata, f"{file}, {source}")

    def __call__(self, images: np.ndarray, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `Backend`, thread-safe; raises a ConfigError if the size is not the one fixed in the graph."""
        if size not in (None, self.info.image_size):
            fixed = f"the size {self.info.image_size}, which is fixed in {self.file}"
            raise ConfigError(f"expected {fixed}, found {size}. Use the model folder for other sizes.")
        return self._run(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


def import_runtime(name: str) -> ModuleType:
    """Imports a module of the export extra; raises a ConfigError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        missing = f"exported models need {name}, which cannot be imported ({error})."
        raise ConfigError(f"{missing} Run: pip install 'nailseg[export]'") from error


def last_line(error: Exception | str) -> str:
    """Returns the last line of an error's text, where the runtimes state the cause."""
    return (str(error).strip().splitlines() or ["no reason given"])[-1].strip()
